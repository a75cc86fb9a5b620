#include "trainer/reporter.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>

namespace infini {

Reporter::Reporter(const std::filesystem::path& directory, std::int64_t first_step,
                   std::int64_t total_steps)
    : metrics_(directory / "metrics.jsonl", first_step),
      events_(directory / "tensorboard", first_step),
      progress_(std::max<std::int64_t>(1, total_steps / 20)),
      first_step_(first_step),
      total_steps_(total_steps) {}

void Reporter::step(const StepReport& report) {
  const auto now = std::chrono::steady_clock::now();
  const double seconds = std::chrono::duration<double>(now - last_).count();
  last_ = now;
  const double rate = static_cast<double>(report.tokens) / seconds;
  smooth_rate_ = smooth_rate_ == 0 ? rate : 0.9 * smooth_rate_ + 0.1 * rate;
  const Metrics metrics{{"loss", report.loss},
                        {"token_loss", report.token_loss},
                        {"perplexity", std::exp(report.token_loss)},
                        {"learning_rate", report.learning_rate},
                        {"gradient_norm", report.gradient_norm},
                        {"skipped", report.skipped ? 1.0 : 0.0},
                        {"tokens_per_second", rate},
                        {"seconds", seconds},
                        {"peak_bytes", static_cast<double>(report.peak_bytes)}};
  metrics_.append(report.step, metrics);
  events_.append(report.step, metrics);
  if (report.skipped) {
    progress_.finish();
    spdlog::warn("step {} was skipped: its loss {}, gradient norm {} or memory is not finite",
                 report.step, report.loss, report.gradient_norm);
  }
  progress_.update({.step = report.step,
                    .total_steps = total_steps_,
                    .elapsed_seconds = std::chrono::duration<double>(now - begin_).count(),
                    .first_step = first_step_,
                    .tokens_per_second = smooth_rate_,
                    .loss = report.token_loss,
                    .learning_rate = report.learning_rate,
                    .gradient_norm = report.gradient_norm,
                    .peak_bytes = report.peak_bytes});
}

void Reporter::record(std::int64_t step, const Metrics& metrics) {
  metrics_.append(step, metrics);
  events_.append(step, metrics);
}

}  // namespace infini
