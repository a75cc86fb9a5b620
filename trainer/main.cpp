// The `infini` program: reads the command line and runs one command.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/error.h"
#include "trainer/commands.h"
#include "trainer/config_reader.h"
#include "trainer/exit_codes.h"
#include "trainer/progress.h"

namespace {

// CLI11 would only say that a command is required.
void refuse_unknown_command(const CLI::App& app, int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "";
  std::vector<std::string_view> known;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    known.push_back(command->get_name());
  if (name.empty() || name[0] == '-' || std::ranges::find(known, name) != known.end()) return;
  throw infini::ConfigError(
      infini::text("unknown command ", name, "; ", infini::name_hint(name, known)));
}

}  // namespace

int main(int argc, char** argv) {
  infini::set_up_logging();
  int exit_code = infini::kExitDone;

  CLI::App app("A trainer for Infini-Transformers: transformers with a compressive memory.",
               "infini");
  app.require_subcommand(1);
  app.get_formatter()->column_width(36);
  infini::add_prepare(app, exit_code);
  infini::add_train(app, exit_code);
  infini::add_evaluate(app, exit_code);
  infini::add_score(app, exit_code);
  infini::add_generate(app, exit_code);
  infini::add_inspect(app, exit_code);

  return infini::guarded([&] {
    refuse_unknown_command(app, argc, argv);
    try {
      app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
      if (error.get_exit_code() == 0) return app.exit(error);  // --help
      throw infini::ConfigError(infini::text(error.what(), "; see infini --help"));
    }
    return exit_code;
  });
}
