// The `infini` program: reads the command line and runs one command.
#include <CLI/CLI.hpp>

#include "tensor/error.h"
#include "trainer/commands.h"
#include "trainer/exit_codes.h"
#include "trainer/progress.h"

int main(int argc, char** argv) {
  infini::set_up_logging();
  int exit_code = infini::kExitDone;

  CLI::App app("A trainer for Infini-Transformers: transformers with a compressive memory.",
               "infini");
  app.require_subcommand(1);
  app.get_formatter()->column_width(36);
  infini::add_prepare(app, exit_code);
  infini::add_inspect(app, exit_code);

  return infini::guarded([&] {
    try {
      app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
      if (error.get_exit_code() == 0) return app.exit(error);  // --help
      throw infini::ConfigError(infini::text(error.what(), "; see infini --help"));
    }
    return exit_code;
  });
}
