// The `infini` program: reads the command line and runs one command.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
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

// GNU OpenMP's threads burn their core while they wait for each other, which on a machine that is
// busy with something else slows a step several times over. It reads its settings before main, so
// the program starts itself again with them.
void yield_while_waiting(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY") || std::getenv("GOMP_SPINCOUNT")) return;
  setenv("GOMP_SPINCOUNT", "1000", 1);  // a few microseconds
  execv("/proc/self/exe",
        argv);  // returns only where there is no /proc; then things stay as they are
}

// What was printed may still wait in a buffer, and a pipe or disk may be full.
void check_standard_output() {
  std::cout.flush();
  const bool flushed = std::fflush(stdout) == 0;
  const int cause = errno;
  infini::check<infini::DeviceError>(flushed && !std::ferror(stdout) && std::cout.good(),
                                     "cannot write standard output",
                                     flushed ? "" : infini::text(": ", std::strerror(cause)));
}

}  // namespace

int main(int argc, char** argv) {
  yield_while_waiting(argv);
  infini::set_up_logging();
  int exit_code = infini::kExitDone;

  CLI::App app("A trainer for Infini-Transformers: transformers with a compressive memory.",
               "infini");
  app.require_subcommand(1);
  app.get_formatter()->column_width(36);
  infini::add_prepare(app, exit_code);
  infini::add_train(app, exit_code);
  infini::add_evaluate(app, exit_code);
  infini::add_passkey(app, exit_code);
  infini::add_score(app, exit_code);
  infini::add_generate(app, exit_code);
  infini::add_inspect(app, exit_code);
  infini::add_bench(app, exit_code);
  infini::add_plan(app, exit_code);
  infini::add_reproduce(app, exit_code);
  infini::add_import(app, exit_code);
  infini::add_export(app, exit_code);

  return infini::guarded([&] {
    refuse_unknown_command(app, argc, argv);
    try {
      app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
      if (error.get_exit_code() == 0) return app.exit(error);  // --help
      throw infini::ConfigError(infini::text(error.what(), "; see infini --help"));
    }
    check_standard_output();
    return exit_code;
  });
}
