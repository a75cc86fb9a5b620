// What a model must satisfy.
#include "model/config.h"

#include <cmath>
#include <concepts>

namespace infini {

void ModelConfig::validate() const {
  check_magnitudes();
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
  check<ConfigError>(embedding_scale > 0, "model.embedding_scale must be positive, got ",
                     embedding_scale);
  check<ConfigError>(memory_eps > 0, "model.memory_eps must be positive, got ", memory_eps);
  check<ConfigError>(rope_base > 1, "model.rope_base must be above 1, got ", rope_base);
  validate_architecture();
  check<ConfigError>(gate_deviation >= 0 && init_deviation >= 0,
                     "model: deviations must not be negative");
}

// Beyond these a key is a slip, and products of two would not be numbers.
void ModelConfig::check_magnitudes() const {
  const auto check_member = [](std::string_view name, const auto& value, std::string_view) {
    using Value = std::decay_t<decltype(value)>;
    if constexpr (std::same_as<Value, double>)
      check<ConfigError>(std::isfinite(value), "model.", name, " must be finite, got ", value);
    constexpr std::int64_t most = std::int64_t{1} << (std::same_as<Value, int> ? 22 : 40);
    if constexpr (std::same_as<Value, int> || std::same_as<Value, std::int64_t>)
      check<ConfigError>(value <= most, "model.", name, " must be at most ", most, ", got ", value);
  };
  ModelConfig(*this).visit(check_member);
  const std::int64_t width = std::int64_t{heads} * std::max(1, d_head);
  check<ConfigError>(width <= 1 << 22, "model.heads = ", heads, " of model.d_head = ", d_head,
                     " are ", width, " columns, expected at most ", 1 << 22);
}

void ModelConfig::validate_architecture() const {
  const std::string_view name = architecture_name();
  check<ConfigError>(cache_tokens >= 0, "model.cache_tokens must not be negative, got ",
                     cache_tokens);
  check<ConfigError>(cache_tokens == 0 || keeps_cache(), "model.cache_tokens = ", cache_tokens,
                     ", but model.architecture = ", name, " keeps no cache");
  validate_retrieval();
  validate_compression();
  validate_memory_tokens();
  validate_over_time();
  if (architecture == Architecture::kInfini) return;
  const bool is_local =
      architecture == Architecture::kRmt || architecture == Architecture::kAutoCompressor;
  check<ConfigError>(is_local || !(projection_biases || head_norms), "model.architecture = ", name,
                     " has neither model.projection_biases nor model.head_norms");
  check<ConfigError>(memory == MemoryRule::kNone, "model.architecture = ", name,
                     " has no compressive memory and needs model.memory = none, got ",
                     name_of(memory));
  check<ConfigError>(d_model % 2 == 0 || !has_relative_positions(), "model.architecture = ", name,
                     " has a sine and a cosine of each position: model.d_model must be even, got ",
                     d_model);
}

void ModelConfig::validate_retrieval() const {
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

void ModelConfig::validate_compression() const {
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

void ModelConfig::validate_memory_tokens() const {
  const std::string_view name = architecture_name();
  check<ConfigError>(memory_tokens >= 0, "model.memory_tokens must not be negative, got ",
                     memory_tokens);
  const bool has_vectors = has_memory_tokens() || architecture == Architecture::kTransformerFam;
  check<ConfigError>(memory_tokens == 0 || has_vectors, "model.memory_tokens = ", memory_tokens,
                     ", but model.architecture = ", name, " has no memory tokens");
  check<ConfigError>(memory_tokens > 0 || !has_vectors, "model.architecture = ", name,
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

void ModelConfig::validate_over_time() const {
  check<ConfigError>(ema_size >= 1 && ema_size <= 32,
                     "model.ema_size must be between 1 and 32, got ", ema_size);
  check<ConfigError>(norm_groups >= 0, "model.norm_groups must not be negative, got ", norm_groups);
  if (architecture != Architecture::kMegalodon) {
    check<ConfigError>(norm_groups == 0, "model.norm_groups = ", norm_groups,
                       ", but model.architecture = ", architecture_name(),
                       " has no norm over time");
    return;
  }
  check<ConfigError>(d_model % timestep_groups() == 0, "model.d_model = ", d_model,
                     " is not divisible by model.norm_groups = ", timestep_groups());
  check<ConfigError>(key_value_heads() == heads, "model.kv_heads = ", kv_heads,
                     ", but model.architecture = megalodon makes queries and keys of one "
                     "projection: as many as model.heads = ",
                     heads);
}

}  // namespace infini
