// The commands of the program. Each add_ function describes one to the command line and leaves its
// exit code in `exit_code` when it runs; errors travel on to main.
#pragma once

#include <CLI/CLI.hpp>

namespace infini {

void add_prepare(CLI::App& app, int& exit_code);
void add_train(CLI::App& app, int& exit_code);
void add_evaluate(CLI::App& app, int& exit_code);
void add_passkey(CLI::App& app, int& exit_code);
void add_score(CLI::App& app, int& exit_code);
void add_generate(CLI::App& app, int& exit_code);
void add_inspect(CLI::App& app, int& exit_code);
void add_bench(CLI::App& app, int& exit_code);
void add_plan(CLI::App& app, int& exit_code);
void add_reproduce(CLI::App& app, int& exit_code);
void add_import(CLI::App& app, int& exit_code);
void add_export(CLI::App& app, int& exit_code);

}  // namespace infini
