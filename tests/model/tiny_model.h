// Models and rows small enough to compare to the last digit.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "model/recurrence.h"
#include "tensor/enum_names.h"
#include "tests/model/memories.h"

namespace infini {

struct Tiny {
  MemoryRule memory = MemoryRule::kLinear;
  int kv_heads = 2;  // of 2
  int layers = 2;
  std::int64_t segment_tokens = 5;
  DType dtype = DType::kFloat64;
  FirstSegment first_segment = FirstSegment::kGated;
  double gate_mean = 0;
  Activation activation = Activation::kGelu;
  bool tied = false;
  Architecture architecture = Architecture::kInfini;
  std::int64_t cache_tokens = 0;
  std::int64_t retrieval_tokens = 0;
  int retrieval_layer = 0;
  int neighbours = 32;
  std::int64_t compressed_tokens = 0;
  int compression_rate = 2;
  Compression compression = Compression::kConvolution;
  double reconstruction_weight = 1;
  std::int64_t memory_tokens = 0;
  std::int64_t memory_segments = 0;
  bool projection_biases = false;
  bool head_norms = false;
  bool offset_norms = false;  // and embeddings that are scaled, as Gemma has them
  RotaryScaling::Kind rope = RotaryScaling::Kind::kNone;
  int ema_size = 16;
  int norm_groups = 0;

  // Whether a segment finds anything of those before it.
  bool carries() const {
    return memory != MemoryRule::kNone || architecture != Architecture::kInfini;
  }
  // Whether gradients go back through what it finds.
  bool carries_gradients() const {
    return memory != MemoryRule::kNone || architecture == Architecture::kRmt ||
           architecture == Architecture::kAutoCompressor ||
           architecture == Architecture::kTransformerFam ||
           architecture == Architecture::kMegalodon;
  }
};

inline ModelConfig config_of(const Tiny& tiny) {
  ModelConfig config;
  config.architecture = tiny.architecture;
  config.cache_tokens = tiny.cache_tokens;
  config.retrieval_tokens = tiny.retrieval_tokens;
  config.retrieval_layer = tiny.retrieval_layer;
  config.neighbours = tiny.neighbours;
  config.compressed_tokens = tiny.compressed_tokens;
  config.compression_rate = tiny.compression_rate;
  config.compression = tiny.compression;
  config.reconstruction_weight = tiny.reconstruction_weight;
  config.memory_tokens = tiny.memory_tokens;
  config.memory_segments = tiny.memory_segments;
  config.ema_size = tiny.ema_size;
  config.norm_groups = tiny.norm_groups;
  config.layers = tiny.layers;
  config.d_model = 12;
  config.heads = 2;
  config.kv_heads = tiny.kv_heads;
  config.d_head = 6;
  config.feed_forward = 16;
  config.vocabulary = 23;
  config.segment_tokens = tiny.segment_tokens;
  config.memory = tiny.memory;
  config.activation = tiny.activation;
  config.tied = tiny.tied;
  config.first_segment = tiny.first_segment;
  config.gate_mean = tiny.gate_mean;
  config.gate_deviation = 0.5;
  config.projection_biases = tiny.projection_biases;
  config.head_norms = tiny.head_norms;
  config.offset_norms = tiny.offset_norms;
  config.embedding_scale = tiny.offset_norms ? 2.5 : 1;
  config.rope_scaling = {.kind = tiny.rope, .factor = 3, .original_tokens = 12};
  config.init_deviation = 0.4;  // far from linear, so that nothing agrees by being small
  return config;
}

inline InfiniTransformer model_of(const Tiny& tiny, std::uint64_t seed = 1) {
  InfiniTransformer model(config_of(tiny), tiny.dtype, Device::kCpu);
  model.parameters().initialise(seed);
  // What starts as 0 and 1 is moved away from there.
  for (const Parameter& parameter : model.parameters().all())
    if (parameter.name.ends_with(".bias") || parameter.name.ends_with("_norm.weight"))
      if (tiny.projection_biases || tiny.head_norms || tiny.offset_norms) {
        std::vector<double> values = parameter.master.to_vector<double>();
        for (std::size_t i = 0; i < values.size(); ++i)
          values[i] += 0.5 * RandomKey{.seed = seed + 8}.normal(i);
        parameter.master.copy_from(
            Tensor::of(values, parameter.master.shape()).to(parameter.master.dtype()));
      }
  model.parameters().refresh_values();
  return model;
}

inline Tensor random_ids(const Shape& shape, std::uint32_t site, int vocabulary = 23) {
  std::vector<std::int32_t> ids(shape.size());
  for (std::size_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<std::int32_t>(RandomKey{.seed = 6, .site = site}.below(i, vocabulary));
  return Tensor::of(ids, shape);
}

// Rows of a model's segments: 2 rows of `tokens` tokens.
inline Rows rows_of(std::int64_t tokens, std::int64_t segment_tokens = 5, std::int64_t batch = 2) {
  return {.segment_tokens = segment_tokens,
          .tokens = random_ids({batch, tokens}, 1),
          .targets = random_ids({batch, tokens}, 2),
          .weights = {},
          .resets = {},
          .keep = {}};
}

// Rows with everything at once: 5 full segments and a ragged one, resets, padding, weights, targets
// that do not count.
inline Rows rich_rows() {
  Rows rows = rows_of(28);
  for (std::int64_t i = 3; i < 56; i += 9) rows.targets.data<std::int32_t>()[i] = -1;
  std::vector<float> weights(56);
  for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = 0.25f * static_cast<float>(i % 5);
  rows.weights = Tensor::of(weights, {2, 28});
  rows.resets = Tensor::of(std::vector<std::uint8_t>{1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1}, {2, 6});
  std::vector<std::uint8_t> keep(56, 1);
  for (const int padded : {3, 4, 26, 27, 28 + 14, 28 + 27}) keep[padded] = 0;
  rows.keep = Tensor::of(keep, {2, 28});
  return rows;
}

// The normalised hidden states of rows [B, T, D], `at_once` segments at a time.
struct Hidden {
  Tensor states;
  Memories memory;

  Tensor at(std::int64_t row, std::int64_t begin, std::int64_t count) const {
    const auto [batch, tokens, width] = states.dims<3>();
    return states.reshape({batch * tokens, width}).slice(row * tokens + begin, count);
  }
};
inline Hidden hidden_of(const InfiniTransformer& model, const Rows& rows, const Memories& memory,
                        std::int64_t at_once = 100) {
  const std::int64_t batch = rows.batch(), tokens = rows.row_tokens(),
                     width = model.config().d_model;
  Hidden result{.states = Tensor::zeros({batch, tokens, width}, model.parameters().compute()),
                .memory = {}};
  result.memory = Recurrence(model, {}).forward(
      rows, memory, at_once, [&](const Piece& piece, const Tensor& hidden) {
        const std::int64_t count = piece.count * piece.tokens;
        for (std::int64_t b = 0; b < batch; ++b)
          result.at(b, piece.first * rows.segment_tokens, count)
              .copy_from(hidden.slice(b * count, count));
      });
  return result;
}
inline Hidden hidden_of(const InfiniTransformer& model, const Rows& rows) {
  return hidden_of(model, rows, empty_memories(model.config()));
}

// Tokens [begin, begin + count) of every row; begin and count at borders of segments, or the row's
// end.
inline Rows part_of(const Rows& rows, std::int64_t begin, std::int64_t count) {
  const auto cut = [&](const Tensor& table, std::int64_t first, std::int64_t width) {
    if (!table) return Tensor{};
    const Tensor part = Tensor::empty({table.shape()[0], width}, table.dtype());
    const std::int64_t bytes = bytes_of(table.dtype());
    for (std::int64_t b = 0; b < table.shape()[0]; ++b)
      std::copy_n(table.raw() + (b * table.shape()[1] + first) * bytes, width * bytes,
                  part.raw() + b * width * bytes);
    return part;
  };
  Rows part{.segment_tokens = rows.segment_tokens,
            .tokens = cut(rows.tokens, begin, count),
            .targets = cut(rows.targets, begin, count),
            .weights = cut(rows.weights, begin, count),
            .resets = {},
            .keep = cut(rows.keep, begin, count)};
  part.resets = cut(rows.resets, begin / rows.segment_tokens, part.segments());
  return part;
}

inline const Tiny kTinies[] = {
    {.memory = MemoryRule::kLinear, .kv_heads = 2},
    {.memory = MemoryRule::kLinear, .kv_heads = 1, .activation = Activation::kSwiglu, .tied = true},
    {.memory = MemoryRule::kLinear, .kv_heads = 1, .first_segment = FirstSegment::kBypass},
    {.memory = MemoryRule::kDelta, .kv_heads = 2, .activation = Activation::kRelu},
    {.memory = MemoryRule::kDelta, .kv_heads = 1},
    {.memory = MemoryRule::kNone, .kv_heads = 2, .tied = true},
    {.memory = MemoryRule::kNone, .kv_heads = 2, .architecture = Architecture::kTransformerXl},
    {.memory = MemoryRule::kNone,
     .kv_heads = 1,
     .activation = Activation::kSwiglu,
     .tied = true,
     .architecture = Architecture::kTransformerXl,
     .cache_tokens = 7},
    {.memory = MemoryRule::kNone,
     .kv_heads = 1,
     .architecture = Architecture::kMemorizingTransformer,
     .retrieval_tokens = 17},
    {.memory = MemoryRule::kNone,
     .kv_heads = 2,
     .first_segment = FirstSegment::kBypass,
     .architecture = Architecture::kMemorizingTransformer,
     .cache_tokens = 3,
     .retrieval_tokens = 11,
     .retrieval_layer = 2,
     .neighbours = 4},
    {.memory = MemoryRule::kNone,
     .kv_heads = 1,
     .architecture = Architecture::kCompressiveTransformer},
    {.memory = MemoryRule::kNone,
     .kv_heads = 2,
     .architecture = Architecture::kCompressiveTransformer,
     .cache_tokens = 7,
     .compressed_tokens = 4,
     .compression_rate = 3,
     .compression = Compression::kMeanPool},
    {.memory = MemoryRule::kNone,
     .kv_heads = 2,
     .architecture = Architecture::kRmt,
     .memory_tokens = 3},
    {.memory = MemoryRule::kNone,
     .kv_heads = 1,
     .activation = Activation::kSwiglu,
     .tied = true,
     .architecture = Architecture::kRmt,
     .memory_tokens = 1},
    {.memory = MemoryRule::kNone,
     .kv_heads = 2,
     .architecture = Architecture::kAutoCompressor,
     .memory_tokens = 2,
     .memory_segments = 3},
    {.memory = MemoryRule::kNone,
     .kv_heads = 1,
     .activation = Activation::kRelu,
     .tied = true,
     .architecture = Architecture::kAutoCompressor,
     .memory_tokens = 1,
     .memory_segments = 1},
    {.memory = MemoryRule::kLinear,
     .kv_heads = 1,
     .first_segment = FirstSegment::kBypass,
     .activation = Activation::kSwiglu,
     .projection_biases = true,
     .rope = RotaryScaling::Kind::kLlama3},
    {.memory = MemoryRule::kDelta,
     .kv_heads = 2,
     .activation = Activation::kSwiglu,
     .head_norms = true},
    {.memory = MemoryRule::kLinear,
     .kv_heads = 1,
     .activation = Activation::kGeglu,
     .tied = true,
     .offset_norms = true},
    {.memory = MemoryRule::kNone,
     .kv_heads = 1,
     .architecture = Architecture::kRmt,
     .memory_tokens = 2,
     .projection_biases = true,
     .head_norms = true,
     .rope = RotaryScaling::Kind::kLinear},
    {.memory = MemoryRule::kNone,
     .kv_heads = 2,
     .architecture = Architecture::kTransformerFam,
     .memory_tokens = 3},
    {.memory = MemoryRule::kNone,
     .kv_heads = 1,
     .activation = Activation::kSwiglu,
     .tied = true,
     .architecture = Architecture::kTransformerFam,
     .cache_tokens = 7,
     .memory_tokens = 2},
    {.memory = MemoryRule::kNone,
     .kv_heads = 2,
     .architecture = Architecture::kMegalodon,
     .ema_size = 4},
    {.memory = MemoryRule::kNone,
     .kv_heads = 2,
     .activation = Activation::kSwiglu,
     .tied = true,
     .architecture = Architecture::kMegalodon,
     .ema_size = 1,
     .norm_groups = 3},
};
// Those of which ranks can share the rows or the heads.
inline std::vector<Tiny> shared_tinies() {
  std::vector<Tiny> shared;
  std::ranges::copy_if(kTinies, std::back_inserter(shared),
                       [](const Tiny& tiny) { return tiny.architecture == Architecture::kInfini; });
  return shared;
}

inline std::string name_of(const Tiny& tiny) {
  std::string name(name_of(tiny.memory));
  if (tiny.architecture == Architecture::kTransformerXl)
    name = text("xl_cache_", tiny.cache_tokens);
  if (tiny.architecture == Architecture::kMemorizingTransformer)
    name = text("memorizing_", tiny.neighbours, "_of_", tiny.retrieval_tokens);
  if (tiny.architecture == Architecture::kCompressiveTransformer)
    name = text("compressive_", tiny.compression_rate, "_to_1");
  if (tiny.architecture == Architecture::kRmt) name = text("rmt_", tiny.memory_tokens);
  if (tiny.architecture == Architecture::kAutoCompressor)
    name = text("auto_compressor_", tiny.memory_segments, "_of_", tiny.memory_tokens);
  if (tiny.architecture == Architecture::kTransformerFam)
    name = text("fam_", tiny.memory_tokens, "_cache_", tiny.cache_tokens);
  if (tiny.architecture == Architecture::kMegalodon)
    name = text("megalodon_", tiny.ema_size, "_norm_", tiny.norm_groups);
  return text(name, "_with_", tiny.kv_heads, "_key_heads",
              tiny.first_segment == FirstSegment::kBypass ? "_bypass" : "",
              tiny.projection_biases ? "_biases" : "", tiny.head_norms ? "_head_norms" : "",
              tiny.offset_norms ? "_offset_norms" : "");
}
inline std::string tiny_name(const testing::TestParamInfo<Tiny>& info) {
  return name_of(info.param);
}
inline void PrintTo(const Tiny& tiny, std::ostream* out) { *out << name_of(tiny); }

}  // namespace infini
