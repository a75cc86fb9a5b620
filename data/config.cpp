#include "data/config.h"

#include <algorithm>
#include <filesystem>

#include "data/crops.h"
#include "data/example_source.h"
#include "data/lanes.h"
#include "data/passkey_source.h"

namespace infini {
namespace {

// Beyond it a key is a slip.
constexpr int kMostRows = 1 << 20;

template <class Size>
void check_size(const char* key, Size value, Size most) {
  check<ConfigError>(value >= 1, "data.", key, " must be at least 1, got ", value);
  check<ConfigError>(value <= most, "data.", key, " must be at most ", most, ", got ", value);
}

}  // namespace

void PasskeyConfig::validate() const {
  check<ConfigError>(digits >= 1 && digits <= 18, "data.passkey.digits must be in 1..18, got ",
                     digits);
  check<ConfigError>(!row_segments.empty() || !row_tokens.empty(),
                     "data.passkey.row_segments must name at least one length");
  for (const std::int64_t segments : row_segments)
    check_size("passkey.row_segments", segments, kMostTokens);
  for (const std::int64_t length : row_tokens)
    check_size("passkey.row_tokens", length, kMostTokens);
  const auto share = [](const char* name, double value) {
    check<ConfigError>(value >= 0 && value <= 1, "data.passkey.", name, " must be in 0..1, got ",
                       value);
  };
  share("short_share", short_share);
  share("growing_share", growing_share);
  share("ends_share", ends_share);
  share("answer_share", answer_share);
  check<ConfigError>(filler_weight >= 0 && filler_weight <= 1e6,
                     "data.passkey.filler_weight must not be negative, got ", filler_weight);
  if (!packed) return;
  check<ConfigError>(row_tokens.empty(),
                     "data.passkey.packed: prompts that stand side by side are of whole segments; "
                     "expected row_segments, not row_tokens");
  const std::int64_t longest = std::ranges::max(row_segments);
  for (const std::int64_t segments : row_segments)
    check<ConfigError>(longest % segments == 0, "data.passkey.packed: prompts of ", segments,
                       " segments do not fill rows of ", longest);
}

std::vector<std::int64_t> PasskeyConfig::prompt_lengths(std::int64_t segment_tokens) const {
  std::vector<std::int64_t> lengths = row_tokens;
  if (lengths.empty())
    for (const std::int64_t segments : row_segments) {
      check<ConfigError>(segments <= kMostTokens / segment_tokens,
                         "data.passkey.row_segments: ", segments, " segments of ", segment_tokens,
                         " tokens are more than ", kMostTokens, " tokens");
      lengths.push_back(segments * segment_tokens);
    }
  std::ranges::sort(lengths);
  return lengths;
}

std::vector<std::int64_t> PasskeyConfig::row_lengths(std::int64_t segment_tokens) const {
  const std::vector<std::int64_t> prompts = prompt_lengths(segment_tokens);
  return packed ? std::vector{prompts.back()} : prompts;
}

void ExamplesConfig::validate() const {
  check<ConfigError>(document_tokens >= 0,
                     "data.examples.document_tokens must not be negative, got ", document_tokens);
  check<ConfigError>(summary_tokens >= 1, "data.examples.summary_tokens must be at least 1, got ",
                     summary_tokens);
  check<ConfigError>(sorted_steps >= 1, "data.examples.sorted_steps must be at least 1, got ",
                     sorted_steps);
}

void DataConfig::validate() const {
  check_size("batch_rows", batch_rows, kMostRows);
  check_size("row_tokens", row_tokens, kMostTokens);
  check<ConfigError>(source == DataKind::kPasskey || !store.empty(),
                     "data.store must name the folder of a prepared corpus when data.source is ",
                     source == DataKind::kStore ? "store" : "examples",
                     " (make one with `infini prepare`)");
  check<ConfigError>(source != DataKind::kExamples || sampler == Sampler::kCrops,
                     "data.sampler is lanes, but examples are rows of their own: data.source = "
                     "examples takes crops");
  passkey.validate();
  examples.validate();
}

std::int64_t DataConfig::longest_row_tokens(std::int64_t segment_tokens) const {
  return source == DataKind::kPasskey ? passkey.row_lengths(segment_tokens).back() : row_tokens;
}

std::shared_ptr<const TokenStore> open_store(const DataConfig& config, const std::string& split) {
  const std::filesystem::path path = std::filesystem::path(config.store) / (split + ".h5");
  check<ConfigError>(std::filesystem::exists(path), "data.store: ", path.string(),
                     " does not exist; `infini prepare` makes it from a corpus");
  return TokenStore::open(path);
}

std::unique_ptr<BatchSource> make_source(const DataConfig& config, std::int64_t segment_tokens,
                                         std::uint64_t seed, std::int64_t total_steps,
                                         std::shared_ptr<const TokenStore> store, int row_parts) {
  config.validate();
  if (config.source == DataKind::kPasskey)
    return std::make_unique<PasskeySource>(config.passkey, config.batch_rows, segment_tokens, seed,
                                           total_steps);
  if (!store) store = open_store(config);
  const RowShape shape{config.batch_rows, config.row_tokens, segment_tokens};
  if (config.source == DataKind::kExamples)
    return std::make_unique<ExampleSource>(ExampleStore::of(store), config.examples, shape, seed,
                                           row_parts);
  if (config.sampler == Sampler::kLanes) return std::make_unique<LaneSource>(store, shape, seed);
  return std::make_unique<CropSource>(store, shape, seed);
}

}  // namespace infini
