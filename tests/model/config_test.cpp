#include "model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "tests/model/tiny_model.h"

namespace infini {
namespace {

TEST(ModelConfig, FillsInWhatIsLeftOpen) {
  ModelConfig config;
  config.d_model = 64;
  config.heads = 4;
  EXPECT_EQ(config.key_value_heads(), 4);
  EXPECT_EQ(config.head_width(), 16);
  EXPECT_EQ(config.inner_width(), 256);
  config.kv_heads = 2;
  config.d_head = 10;
  config.feed_forward = 100;
  config.validate();
  EXPECT_EQ(config.key_value_heads(), 2);
  EXPECT_EQ(config.head_width(), 10);
  EXPECT_EQ(config.inner_width(), 100);
}

TEST(ModelConfig, RefusesWhatNoModelHas) {
  const auto refusal = [](const std::function<void(ModelConfig&)>& change) -> std::string {
    ModelConfig config;
    change(config);
    try {
      config.validate();
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "nothing was refused";
  };
  EXPECT_EQ(refusal([](ModelConfig& c) { c.layers = 0; }),
            "model.layers must be at least 1, got 0");
  EXPECT_EQ(refusal([](ModelConfig& c) { c.d_model = 250; }),
            "model.d_model = 250 is not divisible by model.heads = 4; give model.d_head or another "
            "width");
  EXPECT_EQ(refusal([](ModelConfig& c) { c.kv_heads = 3; }),
            "model.heads = 4 is not divisible by model.kv_heads = 3");
  EXPECT_EQ(refusal([](ModelConfig& c) { c.d_head = 5; }),
            "the head width must be even and positive, got 5");
  EXPECT_EQ(refusal([](ModelConfig& c) { c.heads = 0; }), "model.heads must be at least 1, got 0");
  EXPECT_EQ(refusal([](ModelConfig& c) { c.segment_tokens = 0; }),
            "model.segment_tokens must be at least 1, got 0");
  EXPECT_EQ(refusal([](ModelConfig& c) { c.memory_eps = 0; }),
            "model.memory_eps must be positive, got 0");
  EXPECT_EQ(refusal([](ModelConfig& c) { c.rope_base = 1; }),
            "model.rope_base must be above 1, got 1");
  const auto xl = [](ModelConfig& c) { c.architecture = Architecture::kTransformerXl; };
  EXPECT_EQ(refusal(xl),
            "model.architecture = transformer_xl has no compressive memory and needs model.memory "
            "= none, got linear");
  EXPECT_EQ(refusal([&](ModelConfig& c) {
              xl(c);
              c.memory = MemoryRule::kNone;
              c.d_model = 255;
              c.d_head = 64;
            }),
            "model.architecture = transformer_xl has a sine and a cosine of each position: "
            "model.d_model must be even, got 255");
  const auto memorizing = [](ModelConfig& c) {
    c.architecture = Architecture::kMemorizingTransformer;
    c.memory = MemoryRule::kNone;
  };
  EXPECT_EQ(refusal(memorizing), "nothing was refused");
  EXPECT_EQ(refusal([&](ModelConfig& c) {
              memorizing(c);
              c.memory = MemoryRule::kDelta;
            }),
            "model.architecture = memorizing_transformer has no compressive memory and needs "
            "model.memory = none, got delta");
  EXPECT_EQ(refusal([&](ModelConfig& c) {
              memorizing(c);
              c.retrieval_tokens = -1;
            }),
            "model.retrieval_tokens must not be negative, got -1");
  EXPECT_EQ(refusal([&](ModelConfig& c) {
              memorizing(c);
              c.retrieval_layer = 5;
            }),
            "model.retrieval_layer = 5 is none of model.layers = 4");
  EXPECT_EQ(refusal([&](ModelConfig& c) {
              memorizing(c);
              c.neighbours = 257;
            }),
            "model.neighbours must be between 1 and 256, got 257");
  EXPECT_EQ(refusal([](ModelConfig& c) { c.retrieval_tokens = 5; }),
            "model.retrieval_tokens = 5, but model.architecture = infini has no memory that is "
            "searched");
  EXPECT_EQ(
      refusal([&](ModelConfig& c) {
        xl(c);
        c.retrieval_layer = 2;
      }),
      "model.retrieval_layer = 2, but model.architecture = transformer_xl has no memory that is "
      "searched");
  const auto compressive = [](ModelConfig& c) {
    c.architecture = Architecture::kCompressiveTransformer;
    c.memory = MemoryRule::kNone;
  };
  EXPECT_EQ(refusal(compressive), "nothing was refused");
  EXPECT_EQ(refusal([&](ModelConfig& c) {
              compressive(c);
              c.cache_tokens = 100;
            }),
            "model.cache_tokens = 100, but model.architecture = compressive_transformer compresses "
            "model.segment_tokens = 256 of them at a time");
  EXPECT_EQ(refusal([&](ModelConfig& c) {
              compressive(c);
              c.compression_rate = 257;
            }),
            "model.compression_rate = 257 is more than model.segment_tokens = 256");
  EXPECT_EQ(refusal([&](ModelConfig& c) {
              compressive(c);
              c.compression_rate = 0;
            }),
            "model.compression_rate must be at least 1, got 0");
  EXPECT_EQ(refusal([&](ModelConfig& c) {
              compressive(c);
              c.reconstruction_weight = -1;
            }),
            "model.reconstruction_weight must not be negative, got -1");
  EXPECT_EQ(refusal([&](ModelConfig& c) {
              memorizing(c);
              c.compressed_tokens = 5;
            }),
            "model.compressed_tokens = 5, but model.architecture = memorizing_transformer has no "
            "compressed memory");
  EXPECT_EQ(refusal([](ModelConfig& c) { c.cache_tokens = 5; }),
            "model.cache_tokens = 5, but model.architecture = infini keeps no cache");
  EXPECT_EQ(refusal([&](ModelConfig& c) {
              xl(c);
              c.memory = MemoryRule::kNone;
            }),
            "nothing was refused");
  const auto rmt = [](ModelConfig& c) {
    c.architecture = Architecture::kRmt;
    c.memory_tokens = 10;
    c.memory = MemoryRule::kNone;
  };
  EXPECT_EQ(refusal(rmt), "nothing was refused");
  EXPECT_EQ(refusal([&](ModelConfig& c) {
              rmt(c);
              c.memory = MemoryRule::kDelta;
            }),
            "model.architecture = rmt has no compressive memory and needs model.memory = none, got "
            "delta");
  EXPECT_EQ(refusal([&](ModelConfig& c) {
              rmt(c);
              c.memory_tokens = 0;
            }),
            "model.architecture = rmt needs model.memory_tokens of at least 1, got 0");
  EXPECT_EQ(refusal([&](ModelConfig& c) {
              rmt(c);
              c.cache_tokens = 5;
            }),
            "model.cache_tokens = 5, but model.architecture = rmt keeps no cache");
  EXPECT_EQ(refusal([&](ModelConfig& c) {
              rmt(c);
              c.memory_segments = 2;
            }),
            "model.memory_segments = 2, but model.architecture = rmt keeps no summaries");
  const auto compressor = [&](ModelConfig& c) {
    rmt(c);
    c.architecture = Architecture::kAutoCompressor;
    c.memory_segments = 3;
  };
  EXPECT_EQ(refusal(compressor), "nothing was refused");
  EXPECT_EQ(
      refusal([&](ModelConfig& c) {
        compressor(c);
        c.memory_segments = 0;
      }),
      "model.architecture = auto_compressor needs model.memory_segments of at least 1, got 0");
  EXPECT_EQ(refusal([&](ModelConfig& c) {
              compressor(c);
              c.memory_tokens = 0;
            }),
            "model.architecture = auto_compressor needs model.memory_tokens of at least 1, got 0");
  const auto fam = [&](ModelConfig& c) {
    rmt(c);
    c.architecture = Architecture::kTransformerFam;
    c.cache_tokens = 5;
  };
  EXPECT_EQ(refusal(fam), "nothing was refused");
  EXPECT_EQ(refusal([&](ModelConfig& c) {
              fam(c);
              c.memory_tokens = 0;
            }),
            "model.architecture = transformer_fam needs model.memory_tokens of at least 1, got 0");
  EXPECT_EQ(refusal([&](ModelConfig& c) {
              fam(c);
              c.memory = MemoryRule::kLinear;
            }),
            "model.architecture = transformer_fam has no compressive memory and needs model.memory "
            "= none, got linear");
  EXPECT_EQ(refusal([&](ModelConfig& c) {
              fam(c);
              c.memory_segments = 2;
            }),
            "model.memory_segments = 2, but model.architecture = transformer_fam keeps no "
            "summaries");
  const auto megalodon = [](ModelConfig& c) {
    c.architecture = Architecture::kMegalodon;
    c.memory = MemoryRule::kNone;
  };
  EXPECT_EQ(refusal(megalodon), "nothing was refused");
  EXPECT_EQ(refusal([&](ModelConfig& c) {
              megalodon(c);
              c.memory = MemoryRule::kLinear;
            }),
            "model.architecture = megalodon has no compressive memory and needs model.memory = "
            "none, got linear");
  EXPECT_EQ(refusal([&](ModelConfig& c) {
              megalodon(c);
              c.ema_size = 33;
            }),
            "model.ema_size must be between 1 and 32, got 33");
  EXPECT_EQ(refusal([&](ModelConfig& c) {
              megalodon(c);
              c.norm_groups = 3;
            }),
            "model.d_model = 256 is not divisible by model.norm_groups = 3");
  EXPECT_EQ(refusal([&](ModelConfig& c) {
              megalodon(c);
              c.norm_groups = -1;
            }),
            "model.norm_groups must not be negative, got -1");
  EXPECT_EQ(refusal([&](ModelConfig& c) {
              megalodon(c);
              c.kv_heads = 2;
            }),
            "model.kv_heads = 2, but model.architecture = megalodon makes queries and keys of one "
            "projection: as many as model.heads = 4");
  EXPECT_EQ(refusal([](ModelConfig& c) { c.norm_groups = 2; }),
            "model.norm_groups = 2, but model.architecture = infini has no norm over time");
  EXPECT_EQ(refusal([](ModelConfig& c) { c.memory_tokens = 5; }),
            "model.memory_tokens = 5, but model.architecture = infini has no memory tokens");
  EXPECT_EQ(refusal([](ModelConfig&) {}), "nothing was refused");
}

std::string names_of(const ModelConfig& config) {
  std::string names;
  for (const ParameterSpec& spec : parameter_specs(config))
    names += text(spec.name, spec.shape, " ");
  return names;
}

TEST(ParameterSpecs, ListEveryParameterBlockByBlock) {
  EXPECT_EQ(names_of(config_of({.kv_heads = 1, .layers = 1})),
            "embedding.weight[23, 12] blocks.0.attention.query.weight[12, 12] "
            "blocks.0.attention.key.weight[6, 12] blocks.0.attention.value.weight[6, 12] "
            "blocks.0.attention.output.weight[12, 12] blocks.0.attention.gate[2] "
            "blocks.0.feed_forward.up.weight[16, 12] blocks.0.feed_forward.down.weight[12, 16] "
            "blocks.0.attention_norm.weight[12] blocks.0.feed_forward_norm.weight[12] "
            "final_norm.weight[12] head.weight[23, 12] ");
}

TEST(ParameterSpecs, FollowTheChoicesOfTheConfig) {
  const auto has = [](const Tiny& tiny, const char* name) {
    return names_of(config_of(tiny)).find(name) != std::string::npos;
  };
  EXPECT_FALSE(has({.memory = MemoryRule::kNone}, "attention.gate"));
  EXPECT_TRUE(has({.memory = MemoryRule::kDelta}, "attention.gate"));
  EXPECT_TRUE(has({.activation = Activation::kSwiglu}, "feed_forward.gate.weight"));
  EXPECT_FALSE(has({.tied = true}, "head.weight"));
  ModelConfig unknown;
  EXPECT_THAT([&] { parameter_specs(unknown); },
              testing::ThrowsMessage<ConfigError>("model.vocabulary is not known yet"));
}

TEST(InfiniTransformer, StartsWithOpenGatesAndPlainNorms) {
  Tiny tiny{.layers = 3};
  tiny.gate_mean = 2;
  const InfiniTransformer model = model_of(tiny);
  for (const Parameter& parameter : model.parameters().all()) {
    const std::vector<double> values = parameter.value.to_vector<double>();
    if (parameter.name.ends_with("norm.weight")) {
      EXPECT_THAT(values, testing::Each(1)) << parameter.name;
    }
    if (parameter.name.ends_with("attention.gate")) {
      EXPECT_THAT(values, testing::Each(testing::Gt(0)));
    }
  }
}

TEST(InfiniTransformer, KeepsNormsAndGatesInFullPrecision) {
  const InfiniTransformer model = model_of({.dtype = DType::kBFloat16});
  for (const Parameter& parameter : model.parameters().all())
    EXPECT_EQ(parameter.value.dtype(),
              parameter.name.find("norm") != std::string::npos || parameter.name.ends_with("gate")
                  ? DType::kFloat32
                  : DType::kBFloat16)
        << parameter.name;
}

}  // namespace
}  // namespace infini
