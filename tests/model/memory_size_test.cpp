// The memory sizes that the Infini-attention paper prints, from the models themselves.
#include "model/memory_size.h"

#include <gtest/gtest.h>

#include "tests/model/tiny_model.h"

namespace infini {
namespace {

// 12 layers, 8 heads of 128, segments of 2048 tokens.
ModelConfig paper(Architecture architecture, MemoryRule memory = MemoryRule::kNone) {
  ModelConfig config;
  config.architecture = architecture;
  config.memory = memory;
  config.layers = 12;
  config.d_model = 1024;
  config.heads = 8;
  config.segment_tokens = 2048;
  config.vocabulary = 32128;
  return config;
}

TEST(MemorySize, IsThatOfThePapersTable) {
  EXPECT_EQ(memory_numbers(paper(Architecture::kInfini, MemoryRule::kLinear)), 1585152);
  EXPECT_EQ(memory_numbers(paper(Architecture::kInfini, MemoryRule::kDelta)), 1585152);
  EXPECT_EQ(memory_numbers(paper(Architecture::kInfini)), 0);
  EXPECT_EQ(memory_numbers(paper(Architecture::kTransformerXl)), 50331648);
  ModelConfig memorizing = paper(Architecture::kMemorizingTransformer);
  memorizing.retrieval_tokens = 65000;
  EXPECT_EQ(memory_numbers(memorizing), 183451648);
  ModelConfig compressive = paper(Architecture::kCompressiveTransformer);
  compressive.compressed_tokens = 1024;
  EXPECT_EQ(memory_numbers(compressive), 1024 * (1024 + 2048) * 12);
  ModelConfig rmt = paper(Architecture::kRmt);
  rmt.memory_tokens = 100;
  EXPECT_EQ(memory_numbers(rmt), 2457600);
  ModelConfig fed_back = paper(Architecture::kTransformerFam);
  fed_back.memory_tokens = 64;
  EXPECT_EQ(memory_numbers(fed_back), 50331648 + 64 * 1024 * 12);
  EXPECT_EQ(memory_numbers(paper(Architecture::kMegalodon)), (2 * 16 * 1024 + 2 * 8 + 1) * 12);
  ModelConfig summaries = paper(Architecture::kAutoCompressor);
  summaries.memory_tokens = 50;
  summaries.memory_segments = 15;
  EXPECT_EQ(memory_numbers(summaries), 50 * 16 * 1024 * 12);
}

// What is held and what is counted: a cache holds the tokens and not their keys and values; vectors
// of the model count in every layer, with those that a segment writes.
TEST(MemorySize, IsWhatAModelHolds) {
  for (const Tiny& tiny : kTinies) {
    const ModelConfig config = config_of(tiny);
    std::int64_t held = 0;
    for (const MemoryState& state : zero_memories(config, 1, DType::kFloat32, Device::kCpu)) {
      for (const Tensor& part :
           {state.matrix, state.normalizer, state.pairs, state.window, state.feedback,
            state.averages, state.norm_moments, state.norm_tokens})
        if (part) held += part.size();
      if (state.compressed) {
        held += state.compressed.size() + state.cached.size();
        continue;
      }
      if (state.vectors)
        held +=
            (state.vectors.shape()[1] + config.written_tokens()) * config.d_model * config.layers;
      if (state.cached)
        held += state.cached.shape()[1] * 2 * config.key_value_heads() * config.head_width();
    }
    EXPECT_EQ(memory_numbers(config), held) << name_of(tiny);
  }
}

}  // namespace
}  // namespace infini
