#include "trainer/plan_time.h"

#include <algorithm>
#include <cmath>

namespace infini {
namespace {

constexpr double kTera = 1e12;
// Tiles of a product's result that a multiprocessor computes at a time, as cuBLASLt mostly has them
// on Hopper.
constexpr double kTileRows = 128, kTileColumns = 256;

double product_seconds(const Work::Product& product, const CardFigures& figures) {
  const auto [m, n, k, added] = product;
  const double rows = static_cast<double>(m), columns = static_cast<double>(n);
  const double depth = static_cast<double>(k), units = figures.multiprocessors;
  const double tiles = std::ceil(rows / kTileRows) * std::ceil(columns / kTileColumns);
  // The last round of tiles does not fill the card, unless there are so few tiles that the sum is
  // split.
  const double rounds = std::ceil(tiles / units) * units;
  const double filled = tiles < units ? 1 : tiles / rounds;
  const double flops = 2 * rows * columns * depth;
  const double bytes = 2 * (rows * depth + columns * depth) + (added ? 8 : 2) * rows * columns;
  return std::max(flops / (kTera * figures.product_teraflops * filled),
                  bytes / (kTera * figures.elementwise_terabytes));
}

}  // namespace

StepTime kernel_time(const Work& work, const OptimConfig& optim, const CardFigures& figures) {
  StepTime time;
  for (const auto& [product, count] : work.products)
    time.products += static_cast<double>(count) * product_seconds(product, figures);
  time.attention = work.attention_flops / (kTera * figures.attention_teraflops) +
                   work.attention_grad_flops / (kTera * figures.attention_grad_teraflops);
  time.memory = work.memory_bytes / (kTera * figures.memory_terabytes) +
                work.overlap_bytes / (kTera * figures.overlap_terabytes) +
                work.affine_scan_bytes / (kTera * figures.affine_scan_terabytes) +
                work.scan_bytes / (kTera * figures.elementwise_terabytes);
  time.other = work.elementwise_bytes / (kTera * figures.elementwise_terabytes) +
               1e-6 * figures.kernel_microseconds * static_cast<double>(work.kernels);
  time.optimizer = work.optimizer_bytes /
                   (kTera * (optim.kind == OptimizerKind::kAdamW ? figures.adamw_terabytes
                                                                 : figures.adafactor_terabytes));
  return time;
}

StepTime step_time(const PlannedRank& rank, const PlannedStep& step,
                   const std::vector<Exchange>& traffic, const CardFigures& figures) {
  const auto seconds = [&](const Work& work) {
    return kernel_time(work, rank.config.optim, figures).total();
  };
  StepTime time = kernel_time(step.work, rank.config.optim, figures);
  // The first bucket leaves when the first block is done, and the last one has nothing to hide
  // behind.
  const double shown = 1.0 / (rank.model.layers + 1);
  const double backward =
      (1 - shown) * (seconds(step.last_backward_end) - seconds(step.last_backward_begin));
  double behind_backward = 0, behind_step = 0, share = shown;
  for (const Exchange& exchange : traffic) {
    if (exchange.hides == Exchange::Hides::kNot) time.exchange += exchange.seconds;
    if (exchange.hides == Exchange::Hides::kBehindLastBackward) {
      behind_backward += exchange.seconds;
      share = std::max(shown, 1.0 / static_cast<double>(exchange.calls));
    }
    if (exchange.hides == Exchange::Hides::kBehindStep) behind_step += exchange.seconds;
  }
  const double kernels = time.total() - time.exchange - time.optimizer;
  const double taken = static_cast<double>(figures.exchange_multiprocessors) /
                       static_cast<double>(figures.multiprocessors);
  const auto hide = [&](double exchange, double behind, double always) {
    const double hidden = std::min(exchange * (1 - always), behind);
    time.exchange += exchange - hidden + hidden * taken;
  };
  hide(behind_backward, backward, share);
  hide(behind_step, kernels, 0);
  return time;
}

}  // namespace infini
