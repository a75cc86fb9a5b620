// What the program's exit code tells scripts and schedulers.
#pragma once

#include <exception>
#include <functional>
#include <string>

namespace infini {

enum ExitCode : int {
  kExitDone = 0,
  kExitError = 1,    // a mistake of ours, or anything not below
  kExitConfig = 2,   // the configuration or the command line was wrong
  kExitData = 3,     // data or a checkpoint is damaged
  kExitDevice = 4,   // memory, accelerator, disk or network failed
  kExitStopped = 75  // stopped on request after saving; start again with --resume
};

int exit_code_of(const std::exception& error);

// Runs `body` and returns its exit code. What it throws is printed once, as "infini: error: ...".
int guarded(const std::function<int()>& body);

// What `error` says, without a name in front.
std::string message_of(const std::exception& error);

}  // namespace infini
