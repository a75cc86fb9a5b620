// The shape of an Infini-Transformer, or of a system it is compared to, and every choice the papers
// leave open.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>
#include <utility>

#include "model/rope_config.h"
#include "tensor/enum_names.h"
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
  kAutoCompressor,
  kTransformerFam,
  kMegalodon
};
constexpr std::array<std::pair<std::string_view, Architecture>, 8> enum_names(Architecture) {
  return {{{"infini", Architecture::kInfini},
           {"transformer_xl", Architecture::kTransformerXl},
           {"memorizing_transformer", Architecture::kMemorizingTransformer},
           {"compressive_transformer", Architecture::kCompressiveTransformer},
           {"rmt", Architecture::kRmt},
           {"auto_compressor", Architecture::kAutoCompressor},
           {"transformer_fam", Architecture::kTransformerFam},
           {"megalodon", Architecture::kMegalodon}}};
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

enum class Activation { kGelu, kRelu, kSwiglu, kGeglu };
constexpr std::array<std::pair<std::string_view, Activation>, 4> enum_names(Activation) {
  return {{{"gelu", Activation::kGelu},
           {"relu", Activation::kRelu},
           {"swiglu", Activation::kSwiglu},
           {"geglu", Activation::kGeglu}}};
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
  int ema_size = 16;
  int norm_groups = 0;
  MemoryRule memory = MemoryRule::kLinear;
  Activation activation = Activation::kGelu;
  bool tied = true;
  bool projection_biases = false;
  bool head_norms = false;
  bool offset_norms = false;
  double embedding_scale = 1;
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
        "the same over summaries of the segments before it; transformer_fam: attention over the "
        "segment, a cache of tokens before it and memory_tokens that each block carries and renews "
        "after every segment; megalodon: local attention after complex moving averages and a norm "
        "over time, both of all of a document; all but infini need memory=none");
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
    field("cache_tokens", cache_tokens,
          "tokens before a segment that transformer_xl, memorizing_transformer, "
          "compressive_transformer and transformer_fam keep and read, which may change between "
          "training and evaluation; 0: segment_tokens");
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
          "vectors that rmt reads before the tokens of a segment and writes after them, that "
          "auto_compressor writes as the summary of a segment, or that each block of "
          "transformer_fam carries");
    field("memory_segments", memory_segments,
          "segments whose summaries auto_compressor reads, the newest ones");
    field("ema_size", ema_size, "complex moving averages of each channel of megalodon");
    field(
        "norm_groups", norm_groups,
        "groups of channels that megalodon's norm over time takes the statistics of; 0: as many as "
        "heads");
    field("memory", memory,
          "linear: add what a segment holds; delta: add what the memory does not hold yet; none: "
          "local attention only");
    field("activation", activation, "gelu (tanh form), relu, swiglu, or geglu of the same gelu");
    field("tied", tied, "one matrix for the embedding and the output");
    field("projection_biases", projection_biases,
          "whether what queries, keys and values are projected to has a learned bias, as in Qwen2");
    field("head_norms", head_norms,
          "RMSNorm of every query and key head before positions and memory, as in Qwen3");
    field("offset_norms", offset_norms,
          "norms of the stream multiply by 1 + their weight, which begins at 0, as in Gemma");
    field("embedding_scale", embedding_scale,
          "what rows of the embedding are multiplied by where tokens come in; Gemma: the square "
          "root of d_model");
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

  void validate() const;

  int key_value_heads() const { return kv_heads ? kv_heads : heads; }
  int head_width() const { return d_head ? d_head : d_model / heads; }
  int inner_width() const { return feed_forward ? feed_forward : 4 * d_model; }

  // Whether the feed-forward part multiplies one projection by the activation of another.
  bool has_gated_activation() const {
    return activation == Activation::kSwiglu || activation == Activation::kGeglu;
  }

  // Whether attention has relative positions and reads a cache of tokens.
  bool has_relative_positions() const {
    return architecture == Architecture::kTransformerXl ||
           architecture == Architecture::kMemorizingTransformer ||
           architecture == Architecture::kCompressiveTransformer;
  }
  bool keeps_cache() const {
    return has_relative_positions() || architecture == Architecture::kTransformerFam;
  }
  // Tokens before a segment that its attention reads besides the segment; 0 for others.
  std::int64_t cached_tokens() const {
    if (!keeps_cache()) return 0;
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
  // Vectors that each block carries from segment to segment, see feedback_attention.h; 0 for
  // others.
  std::int64_t feedback_tokens() const {
    return architecture == Architecture::kTransformerFam ? memory_tokens : 0;
  }
  // Groups of channels that are normalised over time, see timestep_norm.h; 0 for others.
  int timestep_groups() const {
    if (architecture != Architecture::kMegalodon) return 0;
    return norm_groups ? norm_groups : heads;
  }
  bool normalises_over_time() const { return timestep_groups() > 0; }
  // Positions that blocks see where a segment has so many tokens.
  std::int64_t positions(std::int64_t tokens) const {
    return read_tokens() + tokens + written_tokens();
  }
  std::string_view architecture_name() const { return name_of(architecture); }
  void check_magnitudes() const;
  void validate_architecture() const;
  void validate_retrieval() const;
  void validate_compression() const;
  void validate_memory_tokens() const;
  void validate_over_time() const;

  // What each of `ranks` that share every block has of the model: heads, each with its memory,
  // feed-forward columns and token ids, which `ranks` must divide.
  ModelConfig share(int ranks) const;
};

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
