#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>

#include "model/memory_size.h"
#include "tensor/enum_names.h"
#include "trainer/plan.h"
#include "trainer/progress.h"

namespace infini {
namespace {

std::string grouped(std::int64_t value) {
  std::string digits = std::to_string(value);
  for (std::size_t at = digits.size(); at > 3; at -= 3) digits.insert(at - 3, 1, ',');
  return digits;
}

std::string seconds_text(double seconds) {
  return seconds < 1 ? fmt::format("{:.2f} ms", seconds * 1e3) : fmt::format("{:.2f} s", seconds);
}

const char* hides_text(Exchange::Hides hides) {
  return hides == Exchange::Hides::kNot                  ? "nothing"
         : hides == Exchange::Hides::kBehindLastBackward ? "the last backward pass"
                                                         : "the step";
}

std::string memory_text(const Plan& plan) {
  std::string out = "memory of a GPU, at its peak\n";
  const auto line = [&](std::string_view name, std::int64_t bytes) {
    if (bytes > 0) out += fmt::format("  {:<14}{:>12}\n", name, bytes_text(bytes));
  };
  for (int kind = 0; kind < static_cast<int>(MemoryKind::kCount); ++kind)
    line(name_of(static_cast<MemoryKind>(kind)), plan.step.peak.of(static_cast<MemoryKind>(kind)));
  line("rounding", plan.step.peak.rounding);
  line("tensors", plan.step.peak_bytes);
  line("context", plan.context_bytes());
  const std::int64_t all = plan.step.peak_bytes + plan.context_bytes();
  out += fmt::format("  {:<14}{:>12}  of {}: {}\n", "in all", bytes_text(all),
                     bytes_text(plan.card_bytes()), plan.fits() ? "fits" : "DOES NOT FIT");
  return out;
}

std::string traffic_text(const Plan& plan) {
  if (plan.traffic.empty()) return "";
  std::string out = fmt::format(
      "traffic of a GPU in a step\n  {:<16}{:<30}{:>8}{:>12}{:>12}{:>12}"
      "  hides behind\n",
      "axis", "what", "calls", "NVLink", "network", "time");
  for (const Exchange& each : plan.traffic)
    out += fmt::format("  {:<16}{:<30}{:>8}{:>12}{:>12}{:>12}  {}\n", each.axis, each.what,
                       each.calls, bytes_text(static_cast<std::int64_t>(each.nvlink_bytes)),
                       bytes_text(static_cast<std::int64_t>(each.network_bytes)),
                       seconds_text(each.seconds), hides_text(each.hides));
  return out + "\n";
}

std::string time_text(const Plan& plan) {
  const RunConfig& config = plan.rank.config;
  if (!plan.time && config.train.compute != Compute::kBf16)
    return "no time: the figures of the card are of train.compute = bf16\n";
  if (!plan.time)
    return text("no time: how long the attention of model.architecture = ",
                config.model.architecture_name(), " takes was not measured\n");
  const StepTime& time = *plan.time;
  std::string out = "time of a step\n";
  const auto line = [&](const char* name, double seconds) {
    out += fmt::format("  {:<14}{:>12}{:>8.1f} %\n", name, seconds_text(seconds),
                       100 * seconds / time.total());
  };
  line("products", time.products);
  line("attention", time.attention);
  line("memory", time.memory);
  line("other kernels", time.other);
  line("optimizer", time.optimizer);
  line("exchange", time.exchange);
  line("in all", time.total());
  const double rate = plan.tokens_per_second();
  out += fmt::format("\nthroughput      {} tokens/s, {} a GPU; {} steps in {}\n",
                     grouped(std::llround(rate)), grouped(std::llround(rate / plan.ranks())),
                     grouped(plan.rank.config.train.steps),
                     plan.days() < 1 ? duration_text(86400 * plan.days())
                                     : fmt::format("{:.1f} days", plan.days()));
  return out;
}

}  // namespace

std::string plan_text(const Plan& plan) {
  const PlannedRank& rank = plan.rank;
  const int nodes = (plan.ranks() + plan.gpus_per_node - 1) / plan.gpus_per_node;
  std::string out = fmt::format("{} GPU{} on {} node{}, by the figures of {} ({})\n", plan.ranks(),
                                plan.ranks() == 1 ? "" : "s", nodes, nodes == 1 ? "" : "s",
                                plan.figures.card, plan.figures.date);
  out += fmt::format("axes            data {} x segment {} x tensor {}, shard {}\n", rank.axes.data,
                     rank.axes.segments, rank.axes.tensors, name_of(rank.config.parallel.shard));
  out +=
      fmt::format("step            {} rows of {} tokens, {} in all\n", rank.config.data.batch_rows,
                  grouped(rank.row_tokens), grouped(rank.step_tokens()));
  out += fmt::format(
      "GPU             {} row{} of {} tokens, {} tape{}; {} parameters, of which it updates {}{}\n",
      rank.rows(), rank.rows() == 1 ? "" : "s", grouped(rank.row_tokens / rank.axes.segments),
      plan.step.tapes, plan.step.tapes == 1 ? "" : "s", grouped(rank.parameters),
      grouped(rank.owned),
      rank.trained == rank.parameters
          ? ""
          : fmt::format("; {} are frozen", grouped(rank.parameters - rank.trained)));
  out += fmt::format("memory          {} numbers of each row\n\n",
                     grouped(memory_numbers(rank.config.model)));
  return out + memory_text(plan) + "\n" + traffic_text(plan) + time_text(plan);
}

std::string plan_json(const Plan& plan) {
  const PlannedRank& rank = plan.rank;
  nlohmann::json memory{{"rounding", plan.step.peak.rounding},
                        {"tensors", plan.step.peak_bytes},
                        {"reserved", plan.step.reserved_bytes},
                        {"context", plan.context_bytes()},
                        {"card", plan.card_bytes()}};
  for (int kind = 0; kind < static_cast<int>(MemoryKind::kCount); ++kind)
    memory[std::string(name_of(static_cast<MemoryKind>(kind)))] =
        plan.step.peak.of(static_cast<MemoryKind>(kind));
  nlohmann::json traffic = nlohmann::json::array();
  for (const Exchange& each : plan.traffic)
    traffic.push_back({{"axis", each.axis},
                       {"what", each.what},
                       {"calls", each.calls},
                       {"nvlink_bytes", each.nvlink_bytes},
                       {"network_bytes", each.network_bytes},
                       {"seconds", each.seconds},
                       {"hides_behind", hides_text(each.hides)}});
  nlohmann::json all{{"card", plan.figures.card},
                     {"figures_of", plan.figures.date},
                     {"ranks", plan.ranks()},
                     {"gpus_per_node", plan.gpus_per_node},
                     {"data", rank.axes.data},
                     {"segment", rank.axes.segments},
                     {"tensor", rank.axes.tensors},
                     {"shard", name_of(rank.config.parallel.shard)},
                     {"batch_rows", rank.config.data.batch_rows},
                     {"row_tokens", rank.row_tokens},
                     {"parameters", rank.parameters},
                     {"updated_parameters", rank.owned},
                     {"frozen_parameters", rank.parameters - rank.trained},
                     {"memory_numbers", memory_numbers(rank.config.model)},
                     {"tapes", plan.step.tapes},
                     {"memory_bytes", memory},
                     {"fits", plan.fits()},
                     {"traffic", traffic}};
  if (plan.time) {
    const StepTime& time = *plan.time;
    all["seconds"] = {{"products", time.products},   {"attention", time.attention},
                      {"memory", time.memory},       {"other", time.other},
                      {"optimizer", time.optimizer}, {"exchange", time.exchange},
                      {"step", time.total()}};
    all["tokens_per_second"] = plan.tokens_per_second();
    all["tokens_per_second_per_gpu"] = plan.tokens_per_second() / plan.ranks();
    all["days"] = plan.days();
  }
  return all.dump(2) + "\n";
}

}  // namespace infini
