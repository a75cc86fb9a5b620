#include "trainer/training.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "optim/clip.h"
#include "optim/schedule.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/product.h"
#include "trainer/config_writer.h"
#include "trainer/gradient_tree.h"
#include "trainer/loaded_model.h"
#include "trainer/parallel_checks.h"
#include "trainer/progress.h"
#include "trainer/resume_check.h"
#include "trainer/rows.h"
#include "trainer/saved_tokenizer.h"

namespace infini {
namespace {

RunConfig checked(RunConfig config, const BatchSource& source, const Layout& layout) {
  if (config.model.vocabulary == 0) config.model.vocabulary = source.vocabulary();
  check<ConfigError>(config.model.vocabulary >= source.vocabulary(), "model.vocabulary is ",
                     config.model.vocabulary, ", but the data has token ids up to ",
                     source.vocabulary() - 1);
  check_parallel(config, layout);
  check_frozen(config.optim, parameter_specs(config.model));
  return config;
}

// Rows [first, first + count) of every state; empty states stay empty.
Memories rows_of(const Memories& memories, std::int64_t first, std::int64_t count) {
  return each_part(
      memories, [&](const MemoryPart&, const Tensor& state) { return state.slice(first, count); });
}

// Scalars of one device, read at once.
std::vector<double> together(const std::vector<Tensor>& scalars) {
  const Tensor all = Tensor::empty({static_cast<std::int64_t>(scalars.size())}, DType::kFloat64,
                                   scalars[0].device());
  for (std::size_t i = 0; i < scalars.size(); ++i)
    convert_into(all.slice(static_cast<std::int64_t>(i), 1), scalars[i]);
  return all.to_vector<double>();
}

void copy_memories(const Memories& to, const Memories& from) {
  for (std::size_t layer = 0; layer < to.size(); ++layer)
    for (const MemoryPart& part : kMemoryParts)
      if (const Tensor& state = to[layer].*part.tensor) state.copy_from(from[layer].*part.tensor);
}

}  // namespace

Training::Training(const RunConfig& config, std::unique_ptr<BatchSource> source,
                   std::string tokenizer, const Layout& layout)
    : config_(checked(config, *source, layout)),
      layout_(layout),
      exchange_(layout_.segment_group),
      tensors_(layout_.tensor_group),
      source_(std::move(source)),
      tokenizer_(std::move(tokenizer)),
      shards_(layout_.replicas, layout_.tensor_group, config_.parallel.shard,
              parameter_specs(config_.model, layout_.tensors, layout_.tensor_index,
                              frozen_by(config_.optim))),
      model_(config_.model, dtype_of_compute(config_.train.compute), device_of(config_.device),
             tensor_group(), shards_.keeps(), frozen_by(config_.optim)),
      lender_(shards_.lender(model_.parameters())),
      buckets_(layout_.replicas, shards_.exchanged(model_.parameters()), shards_.pieces(),
               config_.parallel.bucket_mebibytes) {
  allow_tf32(config_.train.compute == Compute::kTf32);
  model_.borrow_from(lender_.get());
  model_.parameters().initialise(static_cast<std::uint64_t>(config_.seed));
  optimizer_ = make_optimizer(
      config_.optim, model_.parameters(),
      [this](const Parameter& parameter) { return shards_.updates(parameter); }, tensor_group());
  if (source_->carries_memory())
    memories_ =
        zero_memories(model_.share(), rank_rows(), model_.parameters().compute(), model_.device());
}

StepReport Training::step() {
  if (!loader_)
    loader_.emplace(*source_, steps_done_, layout_.data_index * rank_rows(), rank_rows());
  const SequenceBatch batch = loader_->next();
  StepReport report{.step = steps_done_ + 1, .tokens = source_->batch_rows() * batch.row_tokens};
  const std::vector<double> weights =
      layout_.data_group.sum({batch.total_weight, static_cast<double>(batch.scored_tokens)});
  const double factor = learning_rate_factor(config_.optim, report.step, config_.train.steps);
  report.learning_rate = config_.optim.learning_rate * factor;

  // Nothing here waits for the device until the step is on its way: whether it can be taken is
  // decided there, by a scale that is not a number where it cannot.
  Sums sums;
  try {
    sums = train_batch(batch, weights[0]);
  } catch (const OutOfMemory& error) {
    throw OutOfMemory(text(error.what(), "; ", memory_account()));
  }
  // A memory that overflowed would spoil its lane for good.
  const Tensor conditions[] = {sums.loss(), sums.memory_squares()};
  const GradientScale clip = gradient_scale(shards_.square_sum_of_gradients(model_.parameters()),
                                            conditions, config_.optim.clip_norm);
  optimizer_->step(factor, clip.scale);
  shards_.share_values(model_.parameters());

  const std::vector<double> numbers = together({sums.loss(), sums.nll(), clip.norm, clip.scale});
  report.loss = numbers[0];
  report.token_loss = weights[1] > 0 ? numbers[1] / weights[1] : 0;
  report.gradient_norm = numbers[2];
  report.skipped = !std::isfinite(numbers[3]);
  if (report.skipped) {
    optimizer_->restore_steps(optimizer_->steps() - 1);
    ++skipped_;
    ++skipped_in_a_row_;
  } else {
    copy_memories(memories_, sums.memory);
    skipped_in_a_row_ = 0;
  }
  report.peak_bytes = memory_statistics(device()).peak_bytes;
  ++steps_done_;
  check(skipped_in_a_row_ <= config_.train.skips_allowed, "step ", report.step, ": loss ",
        report.loss, ", gradient norm ", report.gradient_norm, "; ", skipped_in_a_row_,
        " steps in a row were not finite, train.skips_allowed is ", config_.train.skips_allowed);
  return report;
}

Training::Sums Training::train_batch(const SequenceBatch& batch, double total_weight) {
  model_.parameters().zero_gradients();
  const int row_leaves = config_.parallel.row_leaves / layout_.data;  // of this rank
  const int parts = row_leaves > 0 ? row_leaves : config_.train.accumulate;
  const int segment_leaves = layout_.segments == 1 ? config_.parallel.segment_leaves : 0;
  RecurrenceOptions options = config_.train.recurrence();
  if (segment_leaves > 0) options.group_segments = batch.segments / segment_leaves;
  const Recurrence recurrence(model_, options);
  const std::int64_t part = batch.rows / parts;
  const double scale = total_weight > 0 ? 1 / total_weight : 0;
  Sums sums{.totals = Tensor::zeros({3}, DType::kFloat64, device()), .memory = {}};
  if (!memories_.empty())
    sums.memory =
        zero_memories(model_.share(), batch.rows, model_.parameters().compute(), model_.device());

  const int leaves = row_leaves * std::max(1, segment_leaves);
  GradientTree tree({model_.parameters().gradients(), sums.totals}, std::max(1, leaves));
  const auto add_losses = [&](const Tensor& loss, const Tensor& nll) {
    add_into({.tensor = sums.loss(), .accumulate = true}, loss);
    add_into({.tensor = sums.nll(), .accumulate = true}, sum(nll));
  };
  const auto add_segment_leaf = [&](const CrossEntropy& losses) {
    add_losses(losses.loss, losses.nll);
    tree.add_leaf();
  };
  // While the last part is on its way back, gradients leave as they become final; those of a tree
  // do when all its leaves are added.
  const GradientsFinal final = [this](std::int64_t first) { buckets_.final_from(first); };
  for (int i = 0; i < parts; ++i) {
    const std::int64_t first = i * part;
    const Memories before =
        memories_.empty() ? empty_memories(config_.model) : rows_of(memories_, first, part);
    const RandomKey key{.seed = static_cast<std::uint64_t>(config_.seed),
                        .step = static_cast<std::uint64_t>(steps_done_),
                        .site = 0};
    const Rows rows = layout_.segments == 1 ? rows_of(batch, first, part)
                                            : shared_rows_of(batch, first, part, exchange_);
    const bool leave = i + 1 == parts && leaves <= 1 && !lender_;
    const RowsResult result = recurrence.train(
        rows, before, scale, key, nullptr, leave ? &final : nullptr,
        segment_leaves > 0 ? Recurrence::TapeDone(add_segment_leaf) : Recurrence::TapeDone());
    if (segment_leaves == 0) add_losses(result.loss, result.nll);
    if (segment_leaves == 0 && row_leaves > 0) tree.add_leaf();
    if (memories_.empty()) continue;
    for (const MemoryState& state : result.memory)
      for (const MemoryPart& each : kMemoryParts)
        if (const Tensor& tensor = state.*each.tensor; tensor && tensor.dtype() != DType::kUInt8)
          add_into({.tensor = sums.memory_squares(), .accumulate = true}, square_sum(tensor));
    copy_memories(rows_of(sums.memory, first, part), result.memory);
  }
  if (lender_) lender_->finish();
  buckets_.finish();
  // Ranks that share blocks have memories of their own heads, but the same losses.
  layout_.tensor_group.all_reduce(sums.memory_squares());
  layout_.tensor_group.wait();
  layout_.replicas.all_reduce(sums.totals);
  layout_.replicas.wait();
  return sums;
}

// What holds the memory when a step does not fit, and what would help.
std::string Training::memory_account() const {
  const Parameters& parameters = model_.parameters();
  std::int64_t model = parameters.masters().bytes() + parameters.gradients().bytes();
  if (parameters.compute() != parameters.masters().dtype()) model += parameters.values().bytes();
  std::int64_t optimizer = 0, carried = 0;
  for (const NamedTensor& state : optimizer_->state()) optimizer += state.tensor.bytes();
  for (const MemoryState& state : memories_)
    for (const MemoryPart& part : kMemoryParts)
      if (state.*part.tensor) carried += (state.*part.tensor).bytes();
  return text("the parameters and their gradients hold ", bytes_text(model), ", the optimizer ",
              bytes_text(optimizer), ", carried memories ", bytes_text(carried),
              ", and the rest is what the step keeps for its backward pass: ",
              config_.train.schedule == RowSchedule::kParallel
                  ? "train.schedule=streaming, train.recompute_blocks=true, a larger "
                    "train.accumulate or fewer data.batch_rows need less"
                  : "fewer train.segments_per_tape, train.host_borders=1, "
                    "train.recompute_blocks=true, a larger train.accumulate or fewer "
                    "data.batch_rows need less");
}

TensorBuffers Training::buffers(bool to_write) {
  TensorBuffers buffers(to_write);
  std::vector<NamedTensor> states;
  for (const Parameter& parameter : model_.parameters().all()) {
    if (to_write ? !shards_.owns(parameter) : !parameter.master) continue;
    if (!to_write || shards_.speaks_for(parameter.division))
      buffers.add(parameter.name, parameter.master, parameter.division);
    std::ranges::move(optimizer_->state_of(parameter.name), std::back_inserter(states));
  }
  for (const NamedTensor& state : states)
    if (!to_write || shards_.speaks_for(state.division))
      buffers.add(state.name, state.tensor, state.division);
  if (to_write && layout_.segment_index > 0) return buffers;
  for (std::size_t layer = 0; layer < memories_.size(); ++layer)
    for (const MemoryPart& part : kMemoryParts) {
      const Tensor& state = memories_[layer].*part.tensor;
      if (!state) continue;
      std::vector<std::int64_t> whole(state.shape().begin(), state.shape().end());
      std::vector<std::int64_t> begin(whole.size(), 0);
      whole[0] = source_->batch_rows();
      begin[0] = layout_.data_index * rank_rows();
      whole[1] *= layout_.tensors;  // heads
      begin[1] = layout_.tensor_index * state.shape()[1];
      buffers.add(text("memory/", layer, "/", part.name), state, whole, begin);
    }
  return buffers;
}

CheckpointContents Training::contents() {
  const nlohmann::json position{{"step", steps_done_},
                                {"optimizer_steps", optimizer_->steps()},
                                {"skipped", skipped_},
                                {"skipped_in_a_row", skipped_in_a_row_}};
  const TensorBuffers tensors = buffers(true);
  CheckpointContents contents{.buffers = tensors.list(),
                              .owners = tensors.owners(),
                              .position_json = position.dump(),
                              .config_yaml = config_yaml(config_)};
  if (layout_.is_first()) contents.buffers.push_back(tokenizer_buffer(tokenizer_));
  return contents;
}

void Training::resume(const Checkpoint& checkpoint) {
  const nlohmann::json position = nlohmann::json::parse(checkpoint.position_json());
  check<ConfigError>(!position.value("imported", false), checkpoint.directory().string(),
                     " is an import, which has values but no optimizer state and no place in the "
                     "data; begin a run with it by init_from, without --resume");
  // Before the parameters: another tokenizer often changes their shapes too, which says less.
  check<ConfigError>(saved_tokenizer(checkpoint) == tokenizer_, checkpoint.directory().string(),
                     " was trained with another tokenizer than the data has now");
  const RunConfig before = config_of(checkpoint);
  check_same_run(before, config_, checkpoint.directory());
  check_frozen_as_before(before, checkpoint.directory());
  const TensorBuffers tensors = buffers(false);
  std::vector<NamedBuffer> all = tensors.list();
  all.push_back(tokenizer_buffer(tokenizer_));
  const std::vector<std::string>& states = optimizer_->state_elsewhere();
  std::set<std::string> others(states.begin(), states.end());
  for (const Parameter& parameter : model_.parameters().all())
    if (!parameter.master) others.insert(parameter.name);
  checkpoint.read_all(all, others);
  tensors.put_back();
  model_.parameters().refresh_values();
  steps_done_ = position.at("step");
  skipped_ = position.at("skipped");
  skipped_in_a_row_ = position.at("skipped_in_a_row");
  optimizer_->restore_steps(position.at("optimizer_steps"));
}

// The state of the optimizer in a checkpoint is that of what trained then.
void Training::check_frozen_as_before(const RunConfig& config,
                                      const std::filesystem::path& checkpoint) const {
  const Frozen before = frozen_by(config.optim);
  for (const Parameter& parameter : model_.parameters().all()) {
    const bool frozen = before && before(parameter.name);
    check<ConfigError>(frozen == parameter.frozen, checkpoint.string(), ": ", parameter.name,
                       frozen ? " was frozen" : " trained", " when it was saved, but optim.groups ",
                       frozen ? "train" : "freeze",
                       " it now; --resume goes on with what trained, and a new run with init_from "
                       "may freeze otherwise");
  }
}

void Training::begin_from(const Checkpoint& checkpoint) {
  const std::string tokenizer = saved_tokenizer(checkpoint);
  check<ConfigError>(tokenizer.empty() || tokenizer == tokenizer_,
                     "init_from: ", checkpoint.directory().string(),
                     " was trained with another tokenizer than the data has");
  const RunConfig theirs = config_of(checkpoint);
  check_takes_all(config_.model, theirs.model,
                  text("init_from: ", checkpoint.directory().string()));
  std::set<std::string> there;
  for (const ParameterSpec& spec : parameter_specs(theirs.model)) there.insert(spec.name);
  TensorBuffers buffers(false);
  for (const Parameter& parameter : model_.parameters().all()) {
    const bool is_fresh =
        is_gate(parameter.name) && (config_.fresh_gates || !there.contains(parameter.name));
    if (parameter.master && !is_fresh)
      buffers.add(parameter.name, parameter.master, parameter.division);
  }
  checkpoint.read(buffers.list());
  buffers.put_back();
  model_.parameters().refresh_values();
}

}  // namespace infini
