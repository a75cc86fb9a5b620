// Everything one YAML file says about a run.
#pragma once

#include "data/config.h"
#include "distributed/config.h"
#include "model/config.h"
#include "model/recurrence.h"
#include "optim/config.h"
#include "trainer/origin_config.h"

namespace infini {

enum class DeviceChoice { kAuto, kCpu, kCuda };
constexpr std::array<std::pair<std::string_view, DeviceChoice>, 3> enum_names(DeviceChoice) {
  return {
      {{"auto", DeviceChoice::kAuto}, {"cpu", DeviceChoice::kCpu}, {"cuda", DeviceChoice::kCuda}}};
}
// auto: a GPU where this build and this machine have one. Throws DeviceError where cuda was asked
// for and there is none.
Device device_of(DeviceChoice choice);

enum class Compute { kFp32, kTf32, kBf16, kFp64 };
constexpr std::array<std::pair<std::string_view, Compute>, 4> enum_names(Compute) {
  return {{{"fp32", Compute::kFp32},
           {"tf32", Compute::kTf32},
           {"bf16", Compute::kBf16},
           {"fp64", Compute::kFp64}}};
}
constexpr DType dtype_of_compute(Compute compute) {
  return compute == Compute::kFp64   ? DType::kFloat64
         : compute == Compute::kBf16 ? DType::kBFloat16
                                     : DType::kFloat32;
}

struct TrainConfig {
  std::int64_t steps = 1000;
  int accumulate = 1;
  Compute compute = Compute::kFp32;
  RowSchedule schedule = RowSchedule::kParallel;
  std::int64_t segments_per_tape = 1;
  std::int64_t gradient_horizon = 0;
  std::int64_t host_borders = 0;
  bool recompute_blocks = false;
  int skips_allowed = 10;

  template <class Visitor>
  void visit(Visitor& field) {
    field("steps", steps, "optimizer steps of the whole run");
    field("accumulate", accumulate,
          "parts into which the rows of a step are cut to need less memory; the result stays the "
          "same");
    field("compute", compute,
          "type of weights and activations in the network; sums, memories and masters are fp32 or "
          "better; tf32: fp32 whose products a GPU may round to 10 bits");
    field("schedule", schedule,
          "parallel: a row at once, fastest; streaming: a few segments at a time, memory does not "
          "grow with the row");
    field("segments_per_tape", segments_per_tape,
          "segments that the streaming schedule takes at a time");
    field(
        "gradient_horizon", gradient_horizon,
        "gradients stop at segment borders that are multiples of it; 0: they cross the whole row");
    field("host_borders", host_borders,
          "of the streaming schedule: every n-th border memory waits in host memory; 0: none");
    field("recompute_blocks", recompute_blocks,
          "backward computes each block again instead of keeping its activations");
    field("skips_allowed", skips_allowed,
          "steps with a loss, gradient or memory that is not finite are skipped; more than this "
          "many in a row end the run");
  }
  void validate() const {
    check<ConfigError>(steps >= 1, "train.steps must be at least 1, got ", steps);
    check<ConfigError>(accumulate >= 1, "train.accumulate must be at least 1, got ", accumulate);
    check<ConfigError>(segments_per_tape >= 1, "train.segments_per_tape must be at least 1, got ",
                       segments_per_tape);
    check<ConfigError>(gradient_horizon >= 0, "train.gradient_horizon must not be negative, got ",
                       gradient_horizon);
    check<ConfigError>(host_borders >= 0, "train.host_borders must not be negative, got ",
                       host_borders);
    check<ConfigError>(skips_allowed >= 0, "train.skips_allowed must not be negative, got ",
                       skips_allowed);
  }
  RecurrenceOptions recurrence() const {
    return {.schedule = schedule,
            .segments_per_tape = segments_per_tape,
            .gradient_horizon = gradient_horizon,
            .recompute_blocks = recompute_blocks,
            .host_borders = host_borders};
  }
};

struct CheckpointConfig {
  std::int64_t every = 500;
  int keep = 3;

  template <class Visitor>
  void visit(Visitor& field) {
    field("every", every,
          "steps between checkpoints; one is also written at the end and when the run is stopped; "
          "0: only then");
    field("keep", keep, "newest checkpoints that stay; 0: all");
  }
  void validate() const {
    check<ConfigError>(every >= 0, "checkpoint.every must not be negative, got ", every);
    check<ConfigError>(keep >= 0, "checkpoint.keep must not be negative, got ", keep);
  }
};

struct PasskeyTableConfig {
  std::vector<std::int64_t> row_segments;
  int prompts = 20;

  template <class Visitor>
  void visit(Visitor& field) {
    field("row_segments", row_segments,
          "row lengths in segments; empty: those trained on and twice the longest");
    field("prompts", prompts, "prompts for each length and position");
  }
  void validate() const {
    check<ConfigError>(prompts >= 1, "evaluate.passkey.prompts must be at least 1, got ", prompts);
    for (const std::int64_t segments : row_segments)
      check<ConfigError>(segments >= 1, "evaluate.passkey.row_segments must be at least 1, got ",
                         segments);
  }
};

// How summaries are written of documents: the paper's decoding.
struct SummariesConfig {
  std::int64_t documents = 0;
  std::int64_t tokens = 1024;
  double temperature = 0.5;
  double top_p = 0.95;
  int top_k = 0;
  double repetition_penalty = 1;
  int no_repeat_ngram = 0;
  std::int64_t at_once = 16;

  template <class Visitor>
  void visit(Visitor& field) {
    field("documents", documents, "of the split, the first so many; 0: all");
    field("tokens", tokens, "of a summary at most; it ends sooner where the model says so");
    field("temperature", temperature, "of the draws; 0: always the most likely token");
    field("top_p", top_p, "only the most likely tokens that together reach this probability");
    field("top_k", top_k, "only the k most likely tokens; 0: all");
    field("repetition_penalty", repetition_penalty,
          "divides the score of tokens that a summary has written already; 1: none");
    field("no_repeat_ngram", no_repeat_ngram,
          "no run of so many tokens is written twice in a summary; 0: any may be");
    field("at_once", at_once, "summaries that are written together, each with a memory of its own");
  }
  void validate() const {
    const auto least = [](const char* key, auto value, auto bound) {
      check<ConfigError>(value >= bound, "evaluate.summaries.", key, " must be at least ", bound,
                         ", got ", value);
    };
    least("documents", documents, 0);
    least("tokens", tokens, 1);
    least("temperature", temperature, 0.0);
    least("top_k", top_k, 0);
    least("no_repeat_ngram", no_repeat_ngram, 0);
    least("at_once", at_once, 1);
    check<ConfigError>(top_p > 0 && top_p <= 1,
                       "evaluate.summaries.top_p must be above 0 and at most 1, got ", top_p);
    check<ConfigError>(repetition_penalty > 0,
                       "evaluate.summaries.repetition_penalty must be above 0, got ",
                       repetition_penalty);
  }
};

struct EvaluateConfig {
  std::int64_t every = 0;
  std::int64_t segments_at_once = 8;
  std::int64_t document_tokens = 0;
  PasskeyTableConfig passkey;
  SummariesConfig summaries;

  template <class Visitor>
  void visit(Visitor& field) {
    field("every", every,
          "steps between evaluations on the validation split; 0: none while training");
    field("segments_at_once", segments_at_once,
          "segments computed together; memory grows with it, results do not depend on it");
    field("document_tokens", document_tokens,
          "tokens of a document that are read; 0: whole documents");
    field("passkey", passkey, "the table of exact matches, for data.source passkey");
    field("summaries", summaries,
          "summaries that are written and compared, for data.source examples");
  }
  void validate() const {
    check<ConfigError>(every >= 0, "evaluate.every must not be negative, got ", every);
    check<ConfigError>(segments_at_once >= 1 && segments_at_once <= 1 << 20,
                       "evaluate.segments_at_once must be from 1 to ", 1 << 20, ", got ",
                       segments_at_once);
    check<ConfigError>(document_tokens >= 0, "evaluate.document_tokens must not be negative, got ",
                       document_tokens);
  }
};

struct RunConfig {
  std::int64_t seed = 1;
  std::string directory = "runs/default";
  std::string init_from = {};
  bool fresh_gates = false;
  DeviceChoice device = DeviceChoice::kAuto;
  ModelConfig model;
  DataConfig data;
  OptimConfig optim;
  TrainConfig train;
  ParallelConfig parallel;
  CheckpointConfig checkpoint;
  EvaluateConfig evaluate;
  OriginConfig origin;

  template <class Visitor>
  void visit(Visitor& field) {
    field("seed", seed, "every random number of the run follows from it");
    field("directory", directory,
          "where the run writes; a number is appended when it already holds a run");
    field("init_from", init_from,
          "a checkpoint, a run or an import whose values a new run begins with: schedule, data and "
          "optimizer are new, model keys that stand nowhere here are those of the checkpoint; "
          "--resume continues a run instead");
    field("fresh_gates", fresh_gates,
          "gates start from model.gate_mean and gate_deviation, not from those of init_from");
    field("device", device, "where the run computes; auto: on a GPU where there is one");
    field("model", model, "shape of the network");
    field("data", data, "what it learns from");
    field("optim", optim, "how it learns");
    field("train", train, "how a step is carried out");
    field("parallel", parallel, "how many ranks share the work");
    field("checkpoint", checkpoint, "how the run is saved");
    field("evaluate", evaluate, "how it is measured");
    field("origin", origin, "where an imported model came from; infini import writes it");
  }
  void validate() const {
    check<ConfigError>(seed >= 0, "seed must not be negative, got ", seed);
    check<ConfigError>(!directory.empty(), "directory must name where the run writes");
    check<ConfigError>(!fresh_gates || !init_from.empty(),
                       "fresh_gates = true says nothing without init_from: all gates are fresh");
    check<ConfigError>(data.batch_rows % train.accumulate == 0,
                       "data.batch_rows = ", data.batch_rows,
                       " is not divisible by train.accumulate = ", train.accumulate);
    check<ConfigError>(data.source == DataKind::kPasskey || model.segment_tokens <= data.row_tokens,
                       "model.segment_tokens = ", model.segment_tokens,
                       " is longer than a row, data.row_tokens = ", data.row_tokens);
  }
};

}  // namespace infini
