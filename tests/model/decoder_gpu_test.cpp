// Single tokens by one kernel on a GPU, against the forward pass over whole rows on the CPU.
#ifdef INFINI_CUDA

#include <gtest/gtest.h>

#include <algorithm>

#include "model/batch_decoder.h"
#include "model/decoder.h"
#include "tensor/cuda.h"
#include "tensor/system_memory.h"
#include "tests/model/tiny_model.h"

namespace infini {
namespace {

using Ids = std::vector<std::int32_t>;

constexpr int kVocabulary = 131;

struct Case {
  std::string name;
  int d_model, heads, kv_heads, d_head, feed_forward;
  std::int64_t segment_tokens;
  MemoryRule memory = MemoryRule::kLinear;
  Activation activation = Activation::kGelu;
  bool tied = false;
  FirstSegment first_segment = FirstSegment::kGated;
};

// What a failing test prints of its row.
void PrintTo(const Case& row, std::ostream* out) { *out << row.name; }

const Case kCases[] = {
    {"gelu", 64, 8, 8, 32, 128, 20},
    {"swiglu_of_groups", 96, 8, 2, 64, 160, 13, MemoryRule::kLinear, Activation::kSwiglu, true},
    {"delta", 1056, 8, 8, 128, 2080, 11, MemoryRule::kDelta},
    {"bypass", 64, 8, 1, 64, 96, 9, MemoryRule::kLinear, Activation::kRelu, false,
     FirstSegment::kBypass},
    {"no_memory", 64, 8, 4, 32, 64, 10, MemoryRule::kNone},
    {"long_window", 64, 8, 8, 128, 96, 700, MemoryRule::kDelta, Activation::kSwiglu},
    {"heads_in_turn", 80, 24, 24, 32, 112, 12},  // more than teams of blocks
};

ModelConfig config_of(const Case& form) {
  ModelConfig config;
  config.layers = 3;
  config.d_model = form.d_model;
  config.heads = form.heads;
  config.kv_heads = form.kv_heads;
  config.d_head = form.d_head;
  config.feed_forward = form.feed_forward;
  config.vocabulary = kVocabulary;
  config.segment_tokens = form.segment_tokens;
  config.memory = form.memory;
  config.activation = form.activation;
  config.tied = form.tied;
  config.first_segment = form.first_segment;
  config.gate_deviation = 0.5;
  config.init_deviation = form.d_model > 500 ? 0.05 : 0.15;
  return config;
}

InfiniTransformer model_of(const Case& form, DType dtype, Device device) {
  InfiniTransformer model(config_of(form), dtype, device);
  model.parameters().initialise(2);
  return model;
}

// Two segments and a half, or less where they are long.
Ids ids_of(const Case& form) {
  const std::int64_t tokens = form.segment_tokens * (form.segment_tokens > 100 ? 3 : 5) / 2;
  return random_ids({tokens}, 4, kVocabulary).to_vector<std::int32_t>();
}

Hidden forward_on_cpu(const Case& form, const Ids& ids) {
  const Tensor row = Tensor::of(ids, {1, static_cast<std::int64_t>(ids.size())});
  return hidden_of(model_of(form, DType::kFloat32, Device::kCpu),
                   {.segment_tokens = form.segment_tokens,
                    .tokens = row,
                    .targets = row,
                    .weights = {},
                    .resets = {},
                    .keep = {}});
}

class GpuDecoder : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (!is_available(Device::kCuda)) GTEST_SKIP() << "this machine has no GPU";
  }
};

// The hidden states of chunks of the given sizes in turn against those of the row.
void expect_equal(const Case& form, DType dtype, const std::vector<std::size_t>& sizes,
                  double tolerance) {
  SCOPED_TRACE(text("chunks of ", sizes[0], " tokens in ", dtype));
  const Ids ids = ids_of(form);
  const Hidden whole = forward_on_cpu(form, ids);
  const InfiniTransformer model = model_of(form, dtype, Device::kCuda);
  Decoder decoder(model, SingleTokens::kOneKernel);
  EXPECT_EQ(decoder.has_kernel(), is_hopper());  // other devices go op by op
  double most = 0;
  for (std::size_t begin = 0, n = 0; begin < ids.size(); ++n) {
    const std::size_t count = std::min(sizes[n % sizes.size()], ids.size() - begin);
    const Tensor hidden = decoder.read(std::span(ids).subspan(begin, count));
    begin += count;
    most = std::max(most, relative_error(hidden.to(Device::kCpu),
                                         whole.at(0, static_cast<std::int64_t>(begin) - 1, 1)));
  }
  EXPECT_LE(most, tolerance);
}

TEST_P(GpuDecoder, EqualsTheForwardPassTokenForToken) {
  expect_equal(GetParam(), DType::kFloat32, {1}, 1e-4);
  expect_equal(GetParam(), DType::kFloat32, {3, 1, 1, 2, 1}, 1e-4);
}

TEST_P(GpuDecoder, EqualsTheForwardPassLooselyInShortNumbers) {
  expect_equal(GetParam(), DType::kBFloat16, {1}, 6e-2);
  expect_equal(GetParam(), DType::kBFloat16, {3, 1, 1, 2, 1}, 6e-2);
}

TEST_P(GpuDecoder, ChoosesOnTheDeviceAsOnTheHost) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const InfiniTransformer model = model_of(GetParam(), dtype, Device::kCuda);
    const Ids prompt = ids_of(GetParam());
    Decoder device(model, SingleTokens::kOneKernel), host(model, SingleTokens::kOneKernel);
    host.read(std::span(prompt).first(prompt.size() - 1));
    Ids expected;
    for (int i = 0; i < 30; ++i) {
      const std::int32_t last = i == 0 ? prompt.back() : expected.back();
      const std::vector<float> logits = host.next_logits(std::span(&last, 1));
      expected.push_back(
          static_cast<std::int32_t>(std::ranges::max_element(logits) - logits.begin()));
    }
    Ids chosen = device.generate_greedy(prompt, 11);  // in two parts
    const Ids rest = device.generate_greedy(std::span(&chosen.back(), 1), 19);
    chosen.insert(chosen.end(), rest.begin(), rest.end());
    EXPECT_EQ(device.position(), host.position());
    EXPECT_EQ(chosen, expected);
  }
}

TEST_P(GpuDecoder, GivesTheSameBytesAgain) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const InfiniTransformer model = model_of(GetParam(), dtype, Device::kCuda);
    const auto logits = [&] {
      Decoder decoder(model, SingleTokens::kOneKernel);
      std::vector<std::vector<float>> all;
      for (const std::int32_t id : ids_of(GetParam()))
        all.push_back(decoder.next_logits(std::span(&id, 1)));
      return all;
    };
    const auto first = logits();
    for (int i = 0; i < 3; ++i) EXPECT_EQ(logits(), first);
  }
}

TEST_P(GpuDecoder, GoesOnByItselfInACopy) {
  const InfiniTransformer model = model_of(GetParam(), DType::kBFloat16, Device::kCuda);
  const Ids ids = ids_of(GetParam());
  const auto read = [](Decoder& decoder, std::span<const std::int32_t> tokens) {
    Tensor hidden;
    for (const std::int32_t& id : tokens) hidden = decoder.read(std::span(&id, 1));
    return hidden.to(Device::kCpu);
  };
  Decoder decoder(model, SingleTokens::kOneKernel), alone(model, SingleTokens::kOneKernel);
  const std::size_t split = ids.size() / 2;
  read(decoder, std::span(ids).first(split));
  read(alone, std::span(ids).first(split));
  Decoder copy = decoder;
  Ids other(ids.size() - split, 7);
  read(copy, other);
  const Tensor went_on = read(decoder, std::span(ids).subspan(split));
  EXPECT_TRUE(same_bytes(went_on, read(alone, std::span(ids).subspan(split))));
  EXPECT_FALSE(same_bytes(went_on, read(copy, std::span(ids).subspan(split))));
}

// A state on the CPU, as a file holds it.
DecoderState state_on_cpu(DecoderState state) {
  state.memory = each_part(
      state.memory, [](const MemoryPart&, const Tensor& part) { return part.to(Device::kCpu); });
  for (DecoderState::Window& window : state.windows)
    window = {.qkv = window.qkv.to(Device::kCpu), .rotated = window.rotated.to(Device::kCpu)};
  return state;
}

TEST_P(GpuDecoder, GoesOnFromAStateToTheLastBit) {
  for (const SingleTokens how : {SingleTokens::kOneKernel, SingleTokens::kOpByOp}) {
    const InfiniTransformer model = model_of(GetParam(), DType::kBFloat16, Device::kCuda);
    const Ids ids = ids_of(GetParam());
    const std::size_t split = ids.size() / 2;
    Decoder decoder(model, how);
    decoder.read(std::span(ids).first(split));
    Decoder other(model, state_on_cpu(decoder.state()), how);
    EXPECT_EQ(other.position(), decoder.position());
    for (const std::int32_t& id : std::span(ids).subspan(split))
      EXPECT_EQ(other.next_logits(std::span(&id, 1)), decoder.next_logits(std::span(&id, 1)));
  }
}

TEST_P(GpuDecoder, GoesOnInABatchAsByItself) {
  const InfiniTransformer model = model_of(GetParam(), DType::kFloat32, Device::kCuda);
  const Ids ids = ids_of(GetParam());
  const std::size_t split = ids.size() / 2;
  Decoder here(model, SingleTokens::kOpByOp), there(model, SingleTokens::kOpByOp);
  here.read(std::span(ids).first(split));
  there.read(std::span(ids).first(3));
  BatchDecoder batch(std::vector<const Decoder*>{&here, &there, &here});
  Decoder third = here;
  for (std::size_t i = split; i < ids.size(); ++i) {
    const Ids next{ids[i], ids[i - split], 7};
    const std::vector<float> logits = batch.next_logits(next).to_vector<float>();
    std::vector<float> expected;
    for (Decoder* decoder : {&here, &there, &third}) {
      const std::size_t row = expected.size() / kVocabulary;
      const std::vector<float> alone = decoder->next_logits(std::span(next).subspan(row, 1));
      expected.insert(expected.end(), alone.begin(), alone.end());
    }
    EXPECT_LE(relative_error({logits.begin(), logits.end()}, {expected.begin(), expected.end()}),
              1e-4)
        << "token " << i;
  }
}

TEST_P(GpuDecoder, GoesOpByOpWhereAsked) {
  const InfiniTransformer model = model_of(GetParam(), DType::kBFloat16, Device::kCuda);
  EXPECT_FALSE(Decoder(model, SingleTokens::kOpByOp).has_kernel());
  EXPECT_EQ(Decoder(model).has_kernel(), is_hopper());
}

// What the kernel does not know, op by op the decoder does.
TEST(GpuDecoderOpByOp, ReadsBiasesNormsOfHeadsAndWhatGemmaHas) {
  if (!is_available(Device::kCuda)) GTEST_SKIP() << "this machine has no GPU";
  using Change = void (*)(ModelConfig&);
  for (const Change change : {
           Change([](ModelConfig& config) { config.projection_biases = true; }),
           Change([](ModelConfig& config) { config.head_norms = true; }),
           Change([](ModelConfig& config) { config.offset_norms = true; }),
           Change([](ModelConfig& config) { config.embedding_scale = 3; }),
           Change([](ModelConfig& config) { config.activation = Activation::kGeglu; }),
       }) {
    ModelConfig config = config_of(kCases[1]);
    change(config);
    InfiniTransformer here(config, DType::kFloat32, Device::kCpu),
        there(config, DType::kFloat32, Device::kCuda);
    for (InfiniTransformer* model : {&here, &there}) model->parameters().initialise(2);
    Decoder on_cpu(here), on_gpu(there);
    EXPECT_FALSE(on_gpu.has_kernel());
    for (const std::int32_t& id : ids_of(kCases[1])) {
      const Tensor expected = on_cpu.read(std::span(&id, 1));
      EXPECT_LE(relative_error(on_gpu.read(std::span(&id, 1)).to(Device::kCpu), expected), 1e-4);
    }
  }
}

std::string case_name(const testing::TestParamInfo<Case>& tested) { return tested.param.name; }
INSTANTIATE_TEST_SUITE_P(GpuCases, GpuDecoder, testing::ValuesIn(kCases), case_name);

}  // namespace
}  // namespace infini

#endif  // INFINI_CUDA
