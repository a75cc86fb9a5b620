// What a run tells of its steps: the progress line, metrics.jsonl and TensorBoard events.
#pragma once

#include <chrono>
#include <filesystem>

#include "trainer/metrics.h"
#include "trainer/progress.h"
#include "trainer/tensorboard.h"
#include "trainer/training.h"

namespace infini {

class Reporter {
 public:
  Reporter(const std::filesystem::path& directory, std::int64_t first_step,
           std::int64_t total_steps);

  void step(const StepReport& report);
  // Figures that belong to a step but are not measured in every one.
  void record(std::int64_t step, const Metrics& metrics);
  // Leaves the progress line standing. Time between pause() and go_on() does not count as a step's.
  void pause() { progress_.finish(); }
  void go_on() { last_ = std::chrono::steady_clock::now(); }

 private:
  MetricsLog metrics_;
  EventWriter events_;
  Progress progress_;
  std::int64_t first_step_, total_steps_;
  double smooth_rate_ = 0;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now(), last_ = begin_;
};

}  // namespace infini
