// One training run in memory: model, optimizer, data and where they stand. What the run does next
// follows from buffers() and position() alone.
#pragma once

#include <memory>
#include <optional>

#include "data/loader.h"
#include "distributed/gradient_buckets.h"
#include "distributed/layout.h"
#include "model/recurrence.h"
#include "optim/optimizer.h"
#include "trainer/checkpoint.h"
#include "trainer/parameter_shards.h"
#include "trainer/rank_exchange.h"
#include "trainer/run_config.h"
#include "trainer/tensor_buffers.h"

namespace infini {

struct StepReport {
  std::int64_t step = 0;        // counted from 1
  double loss = 0;              // weighted mean of the negative log-likelihoods, in nats
  double token_loss = 0;        // plain mean over the scored tokens
  double learning_rate = 0;     // peak rate times the schedule's factor
  double gradient_norm = 0;     // before clipping
  std::int64_t tokens = 0;      // of the rows, padding included
  std::int64_t peak_bytes = 0;  // the most that tensors have held on the device so far
  bool skipped = false;         // loss, gradient or memory was not finite: nothing was updated
};

// On several ranks each has a Training of its own, all ranks make the same calls, and what step()
// reports is of all of them.
class Training {
 public:
  // config.model.vocabulary may be 0: then it is that of the data. Throws ConfigError for what the
  // layout's ranks cannot share.
  Training(const RunConfig& config, std::unique_ptr<BatchSource> source, std::string tokenizer,
           const Layout& layout = {});

  // Takes the next batch and updates the parameters. Throws Error when more steps in a row were
  // skipped than allowed.
  StepReport step();

  std::string description() const { return source_->description(); }
  std::int64_t steps_done() const { return steps_done_; }
  // Where ranks divide the parameters they run it together, all alike.
  InfiniTransformer& model() { return model_; }
  Device device() const { return model_.device(); }
  const RunConfig& config() const { return config_; }  // with the vocabulary filled in
  const Layout& layout() const { return layout_; }
  // The ranks that can each run the model by themselves or with those that share its blocks, for
  // work that they divide; this one as if it were alone where they can only run it together.
  Communicator independent_ranks() const {
    return shards_.divides_values() ? Communicator() : layout_.replicas;
  }

  CheckpointContents contents();  // this rank's part
  // Continues where the checkpoint stands; call before the first step.
  void resume(const Checkpoint& checkpoint);
  // Takes the values of a checkpoint of another run, or of an import, as its start, and nothing
  // else; call before the first step. Gates that the checkpoint does not have, or all with
  // config.fresh_gates, stay as they were drawn. Throws ConfigError where the checkpoint is of
  // another model or tokenizer.
  void begin_from(const Checkpoint& checkpoint);

 private:
  // Everything that a checkpoint holds but the tokenizer: to read, all that this rank has; to
  // write, what it saves for those that have the same.
  TensorBuffers buffers(bool to_write);
  // What the parts of a batch add up to over all ranks, on the device.
  struct Sums {
    Tensor totals;    // [3] fp64: loss, negative log-likelihood, squares of the memories
    Memories memory;  // of this rank's rows after the batch, where the source carries memories

    Tensor loss() const { return totals.slice(0, 1); }
    Tensor nll() const { return totals.slice(1, 1); }
    Tensor memory_squares() const { return totals.slice(2, 1); }
  };
  void check_frozen_as_before(const RunConfig& config,
                              const std::filesystem::path& checkpoint) const;
  Sums train_batch(const SequenceBatch& batch, double total_weight);
  std::string memory_account() const;
  int rank_rows() const { return source_->batch_rows() / layout_.data; }
  const TensorGroup* tensor_group() const { return layout_.tensors > 1 ? &tensors_ : nullptr; }

  RunConfig config_;
  Layout layout_;
  RankExchange exchange_;    // with the ranks that share this one's rows
  RankTensorGroup tensors_;  // those that share its blocks
  std::unique_ptr<BatchSource> source_;
  std::string tokenizer_;  // serialised; saved with every checkpoint
  ParameterShards shards_;
  InfiniTransformer model_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<RankLender> lender_;  // where ranks divide gradients
  GradientBuckets buckets_;
  Memories memories_;  // of this rank's rows, where the source carries them
  std::optional<BatchLoader> loader_;
  std::int64_t steps_done_ = 0;
  std::int64_t skipped_in_a_row_ = 0, skipped_ = 0;
};

}  // namespace infini
