// The shape of an Infini-Transformer, or of a system it is compared to, and every choice the papers
// leave open.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>
#include <utility>

#include "model/rope_config.h"
#include "tensor/error.h"

namespace infini {

// What stands in the place of a block's attention, see segment_attention.h, or around the tokens of
// a segment, see memory_tokens.h.
enum class Architecture {
  kInfini,
  kTransformerXl,
  kMemorizingTransformer,
  kCompressiveTransformer,
  kRmt,
  kAutoCompressor
};
constexpr std::array<std::pair<std::string_view, Architecture>, 6> enum_names(Architecture) {
  return {{{"infini", Architecture::kInfini},
           {"transformer_xl", Architecture::kTransformerXl},
           {"memorizing_transformer", Architecture::kMemorizingTransformer},
           {"compressive_transformer", Architecture::kCompressiveTransformer},
           {"rmt", Architecture::kRmt},
           {"auto_compressor", Architecture::kAutoCompressor}}};
}

enum class Compression { kConvolution, kMeanPool };
constexpr std::array<std::pair<std::string_view, Compression>, 2> enum_names(Compression) {
  return {{{"convolution", Compression::kConvolution}, {"mean_pool", Compression::kMeanPool}}};
}

enum class MemoryRule { kLinear, kDelta, kNone };
constexpr std::array<std::pair<std::string_view, MemoryRule>, 3> enum_names(MemoryRule) {
  return {{{"linear", MemoryRule::kLinear},
           {"delta", MemoryRule::kDelta},
           {"none", MemoryRule::kNone}}};
}

enum class Activation { kGelu, kRelu, kSwiglu };
constexpr std::array<std::pair<std::string_view, Activation>, 3> enum_names(Activation) {
  return {
      {{"gelu", Activation::kGelu}, {"relu", Activation::kRelu}, {"swiglu", Activation::kSwiglu}}};
}

enum class SoftmaxScale { kHead, kModel };
constexpr std::array<std::pair<std::string_view, SoftmaxScale>, 2> enum_names(SoftmaxScale) {
  return {{{"d_head", SoftmaxScale::kHead}, {"d_model", SoftmaxScale::kModel}}};
}

enum class FirstSegment { kGated, kBypass };
constexpr std::array<std::pair<std::string_view, FirstSegment>, 2> enum_names(FirstSegment) {
  return {{{"gated", FirstSegment::kGated}, {"bypass", FirstSegment::kBypass}}};
}

struct ModelConfig {
  Architecture architecture = Architecture::kInfini;
  int layers = 4;
  int d_model = 256;
  int heads = 4;
  int kv_heads = 0;
  int d_head = 0;
  int feed_forward = 0;
  int vocabulary = 0;
  std::int64_t segment_tokens = 256;
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
  MemoryRule memory = MemoryRule::kLinear;
  Activation activation = Activation::kGelu;
  bool tied = true;
  bool projection_biases = false;
  bool head_norms = false;
  double norm_eps = 1e-6;
  double rope_base = 10000;
  RopeScalingConfig rope_scaling = {};
  double memory_eps = 1e-6;
  SoftmaxScale softmax_scale = SoftmaxScale::kHead;
  FirstSegment first_segment = FirstSegment::kGated;
  double gate_mean = 0;
  double gate_deviation = 0.1;
  double init_deviation = 0.02;

  template <class Visitor>
  void visit(Visitor& field) {
    field(
        "architecture", architecture,
        "infini: local attention and a compressive memory; transformer_xl: attention over the "
        "segment and a cache of tokens before it, with relative positions; "
        "memorizing_transformer: the same, and one block reads the nearest keys of a long memory; "
        "compressive_transformer: what leaves the cache is compressed and kept for longer; rmt: "
        "local attention over the segment and memory_tokens before and after it; auto_compressor: "
        "the same over summaries of the segments before it; all but infini need memory=none");
    field("layers", layers, "number of blocks");
    field("d_model", d_model, "width of the residual stream");
    field("heads", heads, "query heads");
    field("kv_heads", kv_heads,
          "key/value heads, each with a memory of its own; 0: as many as heads");
    field("d_head", d_head, "width of a head; 0: d_model / heads");
    field("feed_forward", feed_forward, "width of the feed-forward part; 0: 4 d_model");
    field("vocabulary", vocabulary, "number of token ids; 0: that of the data");
    field("segment_tokens", segment_tokens,
          "tokens that local attention sees; the memory is written after each segment");
    field(
        "cache_tokens", cache_tokens,
        "tokens before a segment that transformer_xl, memorizing_transformer and "
        "compressive_transformer keep and read, which may change between training and evaluation; "
        "0: segment_tokens");
    field("retrieval_tokens", retrieval_tokens,
          "newest tokens whose keys and values the memory of memorizing_transformer holds, which "
          "may change between training and evaluation; 0: 32 segments");
    field("retrieval_layer", retrieval_layer,
          "the block with that memory, counted from 1; 0: the fourth from the end");
    field("neighbours", neighbours, "keys of that memory that a query reads, the nearest to it");
    field("compressed_tokens", compressed_tokens,
          "rows of the compressed memory of compressive_transformer, which may change between "
          "training and evaluation; 0: segment_tokens");
    field("compression_rate", compression_rate,
          "tokens that become one row of the compressed memory");
    field("compression", compression,
          "by a learned convolution, or by mean_pool, which has no parameters");
    field("reconstruction_weight", reconstruction_weight,
          "weight in the training loss of what a convolution loses of attention over the tokens: "
          "for each token the mean squared difference; it trains the convolution alone");
    field("memory_tokens", memory_tokens,
          "vectors that rmt reads before the tokens of a segment and writes after them, or that "
          "auto_compressor writes as the summary of a segment");
    field("memory_segments", memory_segments,
          "segments whose summaries auto_compressor reads, the newest ones");
    field("memory", memory,
          "linear: add what a segment holds; delta: add what the memory does not hold yet; none: "
          "local attention only");
    field("activation", activation, "gelu (tanh form), relu or swiglu");
    field("tied", tied, "one matrix for the embedding and the output");
    field("projection_biases", projection_biases,
          "whether what queries, keys and values are projected to has a learned bias, as in Qwen2");
    field("head_norms", head_norms,
          "RMSNorm of every query and key head before positions and memory, as in Qwen3");
    field("norm_eps", norm_eps, "added to the mean square inside RMSNorm");
    field("rope_base", rope_base,
          "base of the rotary angles of local attention, whose positions restart in each segment, "
          "or of the sinusoids of relative positions");
    field("rope_scaling", rope_scaling, "how rotary angles are slowed down");
    field("memory_eps", memory_eps, "least denominator of a memory read");
    field("softmax_scale", softmax_scale,
          "scores are divided by the square root of d_head, or of d_model as the paper prints");
    field("first_segment", first_segment,
          "while the memory that a gate opens is empty, gated scales local attention by 1 - "
          "sigmoid(gate), bypass does not");
    field("gate_mean", gate_mean,
          "mean of the gates' start; 0 gives memory and local attention equal weight");
    field("gate_deviation", gate_deviation,
          "deviation of the gates' start; above 0 a relative optimizer can move them");
    field("init_deviation", init_deviation,
          "deviation of the matrices' start; 0: 1 / sqrt(fan in)");
  }

  void validate() const {
    check<ConfigError>(layers >= 1, "model.layers must be at least 1, got ", layers);
    check<ConfigError>(d_model >= 2, "model.d_model must be at least 2, got ", d_model);
    check<ConfigError>(heads >= 1, "model.heads must be at least 1, got ", heads);
    check<ConfigError>(d_head > 0 || d_model % heads == 0, "model.d_model = ", d_model,
                       " is not divisible by model.heads = ", heads,
                       "; give model.d_head or another width");
    check<ConfigError>(kv_heads >= 0 && (kv_heads == 0 || heads % kv_heads == 0),
                       "model.heads = ", heads, " is not divisible by model.kv_heads = ", kv_heads);
    check<ConfigError>(d_head >= 0 && head_width() % 2 == 0,
                       "the head width must be even and positive, got ", head_width());
    check<ConfigError>(feed_forward >= 0, "model.feed_forward must not be negative, got ",
                       feed_forward);
    check<ConfigError>(vocabulary >= 0, "model.vocabulary must not be negative, got ", vocabulary);
    check<ConfigError>(segment_tokens >= 1, "model.segment_tokens must be at least 1, got ",
                       segment_tokens);
    check<ConfigError>(norm_eps > 0, "model.norm_eps must be positive, got ", norm_eps);
    check<ConfigError>(memory_eps > 0, "model.memory_eps must be positive, got ", memory_eps);
    check<ConfigError>(rope_base > 1, "model.rope_base must be above 1, got ", rope_base);
    validate_architecture();
    check<ConfigError>(gate_deviation >= 0 && init_deviation >= 0,
                       "model: deviations must not be negative");
  }

  int key_value_heads() const { return kv_heads ? kv_heads : heads; }
  int head_width() const { return d_head ? d_head : d_model / heads; }
  int inner_width() const { return feed_forward ? feed_forward : 4 * d_model; }

  // Whether attention has relative positions and reads a cache of tokens.
  bool has_relative_positions() const {
    return architecture == Architecture::kTransformerXl ||
           architecture == Architecture::kMemorizingTransformer ||
           architecture == Architecture::kCompressiveTransformer;
  }
  // Tokens before a segment that its attention reads besides the segment; 0 for others.
  std::int64_t cached_tokens() const {
    if (!has_relative_positions()) return 0;
    return cache_tokens ? cache_tokens : segment_tokens;
  }
  // Whether this block, counted from 0, has a memory that is searched, and the tokens it holds.
  bool retrieves(int layer) const {
    return architecture == Architecture::kMemorizingTransformer &&
           layer == (retrieval_layer ? retrieval_layer - 1 : std::max(0, layers - 4));
  }
  std::int64_t searched_tokens() const {
    return retrieval_tokens ? retrieval_tokens : 32 * segment_tokens;
  }
  // Rows of a compressed memory before the cached tokens, and all places that attention reads
  // before a segment.
  std::int64_t compressed_rows() const {
    if (architecture != Architecture::kCompressiveTransformer) return 0;
    return compressed_tokens ? compressed_tokens : segment_tokens;
  }
  std::int64_t context_tokens() const { return compressed_rows() + cached_tokens(); }
  // Whether the memory belongs to the model, and segments run one after the other: see
  // memory_tokens.h.
  bool has_memory_tokens() const {
    return architecture == Architecture::kRmt || architecture == Architecture::kAutoCompressor;
  }
  // Vectors that stand before the tokens of a segment, and after them; 0 for others.
  std::int64_t read_tokens() const {
    return architecture == Architecture::kAutoCompressor ? memory_tokens * memory_segments
                                                         : written_tokens();
  }
  std::int64_t written_tokens() const { return has_memory_tokens() ? memory_tokens : 0; }
  // Positions that blocks see where a segment has so many tokens.
  std::int64_t positions(std::int64_t tokens) const {
    return read_tokens() + tokens + written_tokens();
  }
  std::string_view architecture_name() const {
    return enum_names(architecture)[static_cast<std::size_t>(architecture)].first;
  }
  void validate_architecture() const;
  void validate_retrieval() const;
  void validate_compression() const;
  void validate_memory_tokens() const;

  // What each of `ranks` that share every block has of the model: heads, each with its memory,
  // feed-forward columns and token ids, which `ranks` must divide.
  ModelConfig share(int ranks) const;
};

inline void ModelConfig::validate_architecture() const {
  const std::string_view name = architecture_name();
  check<ConfigError>(cache_tokens >= 0, "model.cache_tokens must not be negative, got ",
                     cache_tokens);
  check<ConfigError>(cache_tokens == 0 || has_relative_positions(),
                     "model.cache_tokens = ", cache_tokens, ", but model.architecture = ", name,
                     " keeps no cache");
  validate_retrieval();
  validate_compression();
  validate_memory_tokens();
  check<ConfigError>(!has_relative_positions() || !(projection_biases || head_norms),
                     "model.architecture = ", name, " has neither model.projection_biases nor ",
                     "model.head_norms");
  if (architecture == Architecture::kInfini) return;
  check<ConfigError>(memory == MemoryRule::kNone, "model.architecture = ", name,
                     " has no compressive memory and needs model.memory = none, got ",
                     enum_names(memory)[static_cast<std::size_t>(memory)].first);
  check<ConfigError>(d_model % 2 == 0 || !has_relative_positions(), "model.architecture = ", name,
                     " has a sine and a cosine of each position: model.d_model must be even, got ",
                     d_model);
}

inline void ModelConfig::validate_retrieval() const {
  check<ConfigError>(retrieval_tokens >= 0, "model.retrieval_tokens must not be negative, got ",
                     retrieval_tokens);
  check<ConfigError>(retrieval_layer >= 0 && retrieval_layer <= layers,
                     "model.retrieval_layer = ", retrieval_layer,
                     " is none of model.layers = ", layers);
  check<ConfigError>(neighbours >= 1 && neighbours <= 256,
                     "model.neighbours must be between 1 and 256, got ", neighbours);
  if (architecture == Architecture::kMemorizingTransformer) return;
  for (const auto& [key, value] :
       {std::pair<const char*, std::int64_t>{"retrieval_tokens", retrieval_tokens},
        {"retrieval_layer", retrieval_layer}})
    check<ConfigError>(value == 0, "model.", key, " = ", value,
                       ", but model.architecture = ", architecture_name(),
                       " has no memory that is searched");
}

inline void ModelConfig::validate_compression() const {
  check<ConfigError>(compressed_tokens >= 0, "model.compressed_tokens must not be negative, got ",
                     compressed_tokens);
  check<ConfigError>(compression_rate >= 1, "model.compression_rate must be at least 1, got ",
                     compression_rate);
  check<ConfigError>(reconstruction_weight >= 0,
                     "model.reconstruction_weight must not be negative, got ",
                     reconstruction_weight);
  if (architecture != Architecture::kCompressiveTransformer) {
    check<ConfigError>(compressed_tokens == 0, "model.compressed_tokens = ", compressed_tokens,
                       ", but model.architecture = ", architecture_name(),
                       " has no compressed memory");
    return;
  }
  check<ConfigError>(cached_tokens() >= segment_tokens, "model.cache_tokens = ", cache_tokens,
                     ", but model.architecture = compressive_transformer compresses "
                     "model.segment_tokens = ",
                     segment_tokens, " of them at a time");
  check<ConfigError>(compression_rate <= segment_tokens,
                     "model.compression_rate = ", compression_rate,
                     " is more than model.segment_tokens = ", segment_tokens);
}

inline void ModelConfig::validate_memory_tokens() const {
  const std::string_view name = architecture_name();
  check<ConfigError>(memory_tokens >= 0, "model.memory_tokens must not be negative, got ",
                     memory_tokens);
  check<ConfigError>(memory_tokens == 0 || has_memory_tokens(),
                     "model.memory_tokens = ", memory_tokens, ", but model.architecture = ", name,
                     " has no memory tokens");
  check<ConfigError>(memory_tokens > 0 || !has_memory_tokens(), "model.architecture = ", name,
                     " needs model.memory_tokens of at least 1, got ", memory_tokens);
  const bool keeps_summaries = architecture == Architecture::kAutoCompressor;
  check<ConfigError>(memory_segments >= 0, "model.memory_segments must not be negative, got ",
                     memory_segments);
  check<ConfigError>(memory_segments == 0 || keeps_summaries,
                     "model.memory_segments = ", memory_segments,
                     ", but model.architecture = ", name, " keeps no summaries");
  check<ConfigError>(memory_segments > 0 || !keeps_summaries, "model.architecture = ", name,
                     " needs model.memory_segments of at least 1, got ", memory_segments);
}

inline ModelConfig ModelConfig::share(int ranks) const {
  ModelConfig part = *this;
  part.d_head = head_width();
  part.heads = heads / ranks;
  part.kv_heads = key_value_heads() / ranks;
  part.feed_forward = inner_width() / ranks;
  part.vocabulary = vocabulary / ranks;
  return part;
}

}  // namespace infini
