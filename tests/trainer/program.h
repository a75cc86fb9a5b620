// What tests of the whole program share: a folder that goes away, and the program run in it.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/durable_file.h"
#include "tests/data/fixtures.h"
#include "trainer/checkpoint.h"

namespace infini {

class ProgramTest : public ::testing::Test {
 protected:
  struct Outcome {
    int code;          // exit code, or minus the signal
    std::string said;  // stdout and stderr
  };
  // Runs a shell command in the folder; $infini is the program.
  Outcome shell(const std::string& command) {
    const std::string script = "cd '" + folder_.path().string() +
                               "' && infini='" INFINI_BINARY "' && { " + command + "; } 2>&1";
    Outcome outcome{-1, ""};
    FILE* pipe = popen(script.c_str(), "r");
    char piece[4096];
    while (const std::size_t count = std::fread(piece, 1, sizeof piece, pipe))
      outcome.said.append(piece, count);
    const int status = pclose(pipe);
    outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    return outcome;
  }
  Outcome infini(const std::string& arguments) { return shell("$infini " + arguments); }

  // Starts the program and, once the run has written its first step, does `then` with the process
  // $job. The exit code is that of the program.
  Outcome infini_until_first_step(const std::string& arguments, const std::string& run,
                                  const std::string& then) {
    return shell("$infini " + arguments + " & job=$!; for i in $(seq 3000); do [ -s " + run +
                 "/metrics.jsonl ] && break; sleep 0.01; done; " + then + "; wait $job");
  }

  void expect_done(const std::string& arguments) {
    const Outcome outcome = infini(arguments);
    EXPECT_EQ(outcome.code, 0) << "infini " << arguments << "\n" << outcome.said;
  }
  // The program says whose mistake it was by its exit code, and what the mistake was.
  void expect_refused(const std::string& arguments, int code, const std::string& message) {
    const Outcome outcome = infini(arguments);
    EXPECT_EQ(outcome.code, code) << "infini " << arguments << "\n" << outcome.said;
    EXPECT_THAT(outcome.said, ::testing::HasSubstr("infini: error: ")) << arguments;
    EXPECT_THAT(outcome.said, ::testing::HasSubstr(message)) << arguments;
  }

  std::filesystem::path path(const std::string& name) const { return folder_ / name; }
  void write(const std::string& name, const std::string& content) { put_file(path(name), content); }
  std::string content(const std::string& name) const { return read_file(path(name)); }

  // metrics.jsonl of a run, a value for each line.
  std::vector<nlohmann::json> metrics(const std::string& run) const {
    std::vector<nlohmann::json> lines;
    std::ifstream file(path(run) / "metrics.jsonl");
    for (std::string line; std::getline(file, line);) lines.push_back(nlohmann::json::parse(line));
    return lines;
  }
  // The bytes of everything that a run's checkpoint of this step holds: weights, optimizer state,
  // carried memories, position.
  std::string shard(const std::string& run, std::int64_t step) const {
    for (const CheckpointPath& found : list_checkpoints(path(run)))
      if (found.step == step) return read_file(Checkpoint(found.directory).shard(0));
    ADD_FAILURE() << run << " has no checkpoint of step " << step;
    return {};
  }

  TempFolder folder_;
};

}  // namespace infini
