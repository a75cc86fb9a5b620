#include "trainer/training.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "optim/clip.h"
#include "optim/schedule.h"
#include "trainer/config_writer.h"
#include "trainer/rows.h"

namespace infini {
namespace {

constexpr const char* kTokenizer = "tokenizer";

NamedBuffer tokenizer_buffer(std::string& tokenizer) {
  return {.name = kTokenizer,
          .dtype = "u8",
          .shape = {static_cast<std::int64_t>(tokenizer.size())},
          .data = tokenizer.data(),
          .bytes = tokenizer.size()};
}

RunConfig with_vocabulary(RunConfig config, const BatchSource& source) {
  if (config.model.vocabulary == 0) config.model.vocabulary = source.vocabulary();
  check<ConfigError>(config.model.vocabulary >= source.vocabulary(), "model.vocabulary is ",
                     config.model.vocabulary, ", but the data has token ids up to ",
                     source.vocabulary() - 1);
  return config;
}

// Rows [first, first + count) of every state; empty states stay empty.
Memories rows_of(const Memories& memories, std::int64_t first, std::int64_t count) {
  Memories part = memories;
  for (MemoryState& state : part)
    if (state.matrix)
      state = {.matrix = state.matrix.slice(first, count),
               .normalizer = state.normalizer.slice(first, count)};
  return part;
}

// A memory that overflowed would spoil every later step of its lane.
bool is_finite(const Memories& memories) {
  const auto finite = [](const Tensor& part) {
    return !part || dispatch_accumulator(part.dtype(), [&]<class A>() {
      return std::all_of(part.data<A>(), part.data<A>() + part.size(),
                         [](A value) { return std::isfinite(value); });
    });
  };
  return std::ranges::all_of(memories, [&](const MemoryState& state) {
    return finite(state.matrix) && finite(state.normalizer);
  });
}

void copy_memories(const Memories& to, const Memories& from) {
  for (std::size_t layer = 0; layer < to.size(); ++layer) {
    if (!to[layer].matrix) continue;
    to[layer].matrix.copy_from(from[layer].matrix);
    to[layer].normalizer.copy_from(from[layer].normalizer);
  }
}

}  // namespace

NamedBuffer named_buffer(const std::string& name, const Tensor& tensor) {
  return {.name = name,
          .dtype = std::string(name_of(tensor.dtype())),
          .shape = {tensor.shape().begin(), tensor.shape().end()},
          .data = tensor.raw(),
          .bytes = static_cast<std::size_t>(tensor.bytes())};
}

Training::Training(const RunConfig& config, std::unique_ptr<BatchSource> source,
                   std::string tokenizer)
    : config_(with_vocabulary(config, *source)),
      source_(std::move(source)),
      tokenizer_(std::move(tokenizer)),
      model_(config_.model, dtype_of_compute(config_.train.compute), Device::kCpu) {
  model_.parameters().initialise(static_cast<std::uint64_t>(config_.seed));
  optimizer_ = make_optimizer(config_.optim, model_.parameters());
  if (source_->carries_memory())
    memories_ = zero_memories(config_.model, source_->batch_rows(),
                              model_.parameters().masters().dtype(), model_.device());
}

std::string saved_tokenizer(const Checkpoint& checkpoint) {
  std::string tokenizer;
  for (const BufferInfo& info : checkpoint.buffers()) {
    if (info.name != kTokenizer) continue;
    tokenizer.resize(static_cast<std::size_t>(info.shape.at(0)));
    const NamedBuffer buffer = tokenizer_buffer(tokenizer);
    checkpoint.read({&buffer, 1});
  }
  return tokenizer;
}

StepReport Training::step() {
  if (!loader_) loader_.emplace(*source_, steps_done_);
  const SequenceBatch batch = loader_->next();
  StepReport report{.step = steps_done_ + 1, .tokens = batch.rows * batch.row_tokens};
  const double factor = learning_rate_factor(config_.optim, report.step, config_.train.steps);
  report.learning_rate = config_.optim.learning_rate * factor;

  Memories after;
  if (train_batch(batch, report, after)) {
    optimizer_->step(factor, clip_factor(report.gradient_norm, config_.optim.clip_norm));
    copy_memories(memories_, after);
    skipped_in_a_row_ = 0;
  } else {
    report.skipped = true;
    ++skipped_;
    ++skipped_in_a_row_;
  }
  ++steps_done_;
  check(skipped_in_a_row_ <= config_.train.skips_allowed, "step ", report.step, ": loss ",
        report.loss, ", gradient norm ", report.gradient_norm, "; ", skipped_in_a_row_,
        " steps in a row were not finite, train.skips_allowed is ", config_.train.skips_allowed);
  return report;
}

bool Training::train_batch(const SequenceBatch& batch, StepReport& report, Memories& after) {
  model_.parameters().zero_gradients();
  const Recurrence recurrence(model_, config_.train.recurrence());
  const std::int64_t part = batch.rows / config_.train.accumulate;
  const double scale = batch.total_weight > 0 ? 1 / batch.total_weight : 0;
  if (!memories_.empty())
    after = zero_memories(config_.model, batch.rows, model_.parameters().masters().dtype(),
                          model_.device());
  double nll = 0;
  for (std::int64_t first = 0; first < batch.rows; first += part) {
    const Memories before =
        memories_.empty() ? empty_memories(config_.model) : rows_of(memories_, first, part);
    const RandomKey key{.seed = static_cast<std::uint64_t>(config_.seed),
                        .step = static_cast<std::uint64_t>(steps_done_),
                        .site = 0};
    const RowsResult result = recurrence.train(rows_of(batch, first, part), before, scale, key);
    report.loss += result.loss;
    for (const double value : result.nll.to_vector<double>()) nll += value;
    if (!memories_.empty()) copy_memories(rows_of(after, first, part), result.memory);
  }
  report.token_loss = batch.scored_tokens > 0 ? nll / static_cast<double>(batch.scored_tokens) : 0;
  report.gradient_norm = gradient_norm(model_.parameters());
  return std::isfinite(report.loss) && std::isfinite(report.gradient_norm) && is_finite(after);
}

std::vector<NamedBuffer> Training::buffers() {
  std::vector<NamedBuffer> buffers;
  for (const Parameter& parameter : model_.parameters().all())
    buffers.push_back(named_buffer(parameter.name, parameter.master));
  for (const NamedTensor& state : optimizer_->state())
    buffers.push_back(named_buffer(state.name, state.tensor));
  for (std::size_t layer = 0; layer < memories_.size(); ++layer) {
    if (!memories_[layer].matrix) continue;
    buffers.push_back(named_buffer(text("memory/", layer, "/matrix"), memories_[layer].matrix));
    buffers.push_back(
        named_buffer(text("memory/", layer, "/normalizer"), memories_[layer].normalizer));
  }
  buffers.push_back(tokenizer_buffer(tokenizer_));
  return buffers;
}

CheckpointContents Training::contents() {
  const nlohmann::json position{{"step", steps_done_},
                                {"optimizer_steps", optimizer_->steps()},
                                {"skipped", skipped_},
                                {"skipped_in_a_row", skipped_in_a_row_}};
  return {
      .buffers = buffers(), .position_json = position.dump(), .config_yaml = config_yaml(config_)};
}

void Training::resume(const Checkpoint& checkpoint) {
  // Before the parameters: another tokenizer often changes their shapes too, which says less.
  check<ConfigError>(saved_tokenizer(checkpoint) == tokenizer_, checkpoint.directory().string(),
                     " was trained with another tokenizer than the data has now");
  checkpoint.read_all(buffers());
  model_.parameters().refresh_values();
  const nlohmann::json position = nlohmann::json::parse(checkpoint.position_json());
  steps_done_ = position.at("step");
  skipped_ = position.at("skipped");
  skipped_in_a_row_ = position.at("skipped_in_a_row");
  optimizer_->restore_steps(position.at("optimizer_steps"));
}

}  // namespace infini
