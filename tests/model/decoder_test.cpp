#include "model/decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/model/tiny_model.h"

namespace infini {
namespace {

using testing::ThrowsMessage;
using Ids = std::vector<std::int32_t>;

constexpr std::int64_t kTokens = 33;  // 6 segments of 5 and 3 tokens more

Rows one_row() { return rows_of(kTokens, 5, 1); }
Ids ids_of(const Rows& rows) { return rows.tokens.to_vector<std::int32_t>(); }

// The hidden state after each chunk, chunks of the given sizes in turn.
struct Read {
  std::vector<Tensor> hidden;
  std::vector<std::int64_t> last;  // the token it belongs to
  Memories memory;
};
Read read(Decoder& decoder, const Ids& ids, const std::vector<std::size_t>& sizes) {
  Read result;
  for (std::size_t begin = 0, n = 0; begin < ids.size(); ++n) {
    const std::size_t count = std::min(sizes[n % sizes.size()], ids.size() - begin);
    result.hidden.push_back(decoder.read(std::span(ids).subspan(begin, count)));
    begin += count;
    result.last.push_back(static_cast<std::int64_t>(begin) - 1);
    EXPECT_EQ(decoder.position(), static_cast<std::int64_t>(begin));
  }
  result.memory = decoder.memory();
  return result;
}

const std::vector<std::size_t> kChunks[] = {{1}, {2}, {3, 1}, {5}, {7}, {4, 11, 1, 6}, {12}, {33}};

class Decoding : public testing::TestWithParam<Tiny> {};

TEST_P(Decoding, EqualsTheForwardPassTokenForTokenInAnyChunks) {
  for (const auto& [dtype, tolerance] :
       {std::pair{DType::kFloat64, 1e-12}, std::pair{DType::kFloat32, 2e-5}}) {
    Tiny tiny = GetParam();
    tiny.dtype = dtype;
    const InfiniTransformer model = model_of(tiny);
    const Hidden whole = hidden_of(model, one_row());
    const Memories expected = hidden_of(model, part_of(one_row(), 0, 30)).memory;
    for (const auto& sizes : kChunks) {
      SCOPED_TRACE(text("chunks of ", sizes[0], " tokens in ", dtype));
      Decoder decoder(model);
      const Read got = read(decoder, ids_of(one_row()), sizes);
      for (std::size_t i = 0; i < got.hidden.size(); ++i)
        EXPECT_LE(relative_error(got.hidden[i], whole.at(0, got.last[i], 1)), tolerance)
            << "token " << got.last[i];
      expect_near(got.memory, expected, tolerance);
    }
  }
}

TEST_P(Decoding, GoesOnFromAMemory) {
  const InfiniTransformer model = model_of(GetParam());
  const Memories memory = random_memories(model.config(), 1, DType::kFloat64);
  const Hidden whole = hidden_of(model, one_row(), memory);
  Decoder decoder(model, memory);
  const Read got = read(decoder, ids_of(one_row()), {1, 6});
  for (std::size_t i = 0; i < got.hidden.size(); ++i)
    EXPECT_LE(relative_error(got.hidden[i], whole.at(0, got.last[i], 1)), 1e-12);
  // The memory given is the caller's and stays as it was.
  expect_near(memory, random_memories(model.config(), 1, DType::kFloat64), 0);
}

TEST_P(Decoding, GivesTheLogitsOfTheNextToken) {
  Tiny tiny = GetParam();
  tiny.dtype = DType::kFloat32;
  const InfiniTransformer model = model_of(tiny);
  const Ids ids = ids_of(one_row());
  const auto expected =
      model.logits(hidden_of(model, one_row()).at(0, kTokens - 1, 1).clone()).to_vector<double>();
  for (const std::size_t split : {1, 5, 14, 30, 32}) {
    Decoder decoder(model);
    decoder.read(std::span(ids).first(split));
    const std::vector<float> logits = decoder.next_logits(std::span(ids).subspan(split));
    EXPECT_LE(relative_error({logits.begin(), logits.end()}, expected), 2e-5);
  }
}

TEST_P(Decoding, GoesOnByItselfInACopy) {
  const InfiniTransformer model = model_of(GetParam());
  const Ids ids = ids_of(one_row());
  for (const std::size_t split : {3, 5, 12}) {
    Decoder decoder(model), alone(model);
    decoder.read(std::span(ids).first(split));
    alone.read(std::span(ids).first(split));
    Decoder copy = decoder;
    const Ids other{7, 7, 7, 7, 7, 7, 7};
    copy.read(other);
    const std::span<const std::int32_t> rest = std::span(ids).subspan(split);
    EXPECT_TRUE(same_bytes(decoder.read(rest), alone.read(rest)));
  }
}

TEST_P(Decoding, GoesOnFromAStateToTheLastBit) {
  for (const DType dtype : {DType::kFloat64, DType::kFloat32, DType::kBFloat16}) {
    Tiny tiny = GetParam();
    tiny.dtype = dtype;
    const InfiniTransformer model = model_of(tiny);
    const Ids ids = ids_of(one_row());
    for (const std::size_t split : {3, 5, 12, 30}) {
      Decoder decoder(model);
      decoder.read(std::span(ids).first(split));
      Decoder other(model, decoder.state());
      EXPECT_EQ(other.position(), decoder.position());
      for (const std::int32_t& id : std::span(ids).subspan(split))
        EXPECT_EQ(other.next_logits(std::span(&id, 1)), decoder.next_logits(std::span(&id, 1)));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Decoding, testing::ValuesIn(kTinies), tiny_name);

TEST(Decoder, HoldsNoMoreHoweverMuchItReads) {
  const InfiniTransformer model = model_of({.dtype = DType::kFloat32});
  const Ids ids = random_ids({500}, 1).to_vector<std::int32_t>();
  Decoder decoder(model);
  decoder.read(std::span(ids).first(21));
  const auto held = memory_statistics(Device::kCpu).in_use_bytes;
  decoder.read(std::span(ids).first(200));
  for (const std::int32_t id : ids) decoder.read(std::span(&id, 1));
  EXPECT_EQ(memory_statistics(Device::kCpu).in_use_bytes, held);
}

TEST(Decoder, RefusesNothingToReadAndForeignMemories) {
  const InfiniTransformer model = model_of({});
  Decoder decoder(model);
  EXPECT_THAT([&] { decoder.read({}); },
              ThrowsMessage<Error>("decoder: expected at least one token"));
  EXPECT_THAT([&] { decoder.read(Ids{23}); },
              ThrowsMessage<Error>("embedding: token id 23 in a vocabulary of 23"));
  EXPECT_THAT(
      [&] { Decoder(model, Memories(3)); },
      ThrowsMessage<Error>("decoder: a model of 2 layers was given 3 memories, expected 2"));
}

TEST(Decoder, RefusesStatesOfOtherModels) {
  const InfiniTransformer model = model_of({});
  const auto state_in = [](const Tiny& tiny) {
    const InfiniTransformer other = model_of(tiny);
    Decoder decoder(other);
    decoder.read(Ids{1, 2, 3, 4, 5, 6, 7});
    return decoder.state();
  };
  const auto refusal = [&](const DecoderState& state) {
    try {
      Decoder(model, state);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(refusal(state_in({})), "");
  EXPECT_EQ(refusal(state_in({.kv_heads = 1})),
            "decoder: a state has matrix f64 [1, 1, 6, 6], the model expects f64 [1, 2, 6, 6]");
  EXPECT_EQ(refusal(state_in({.segment_tokens = 6})),
            "decoder: a state has projections f64 [6, 36], the model expects f64 [5, 36]");
  EXPECT_EQ(refusal(state_in({.dtype = DType::kFloat32})),
            "decoder: a state has matrix f32 [1, 2, 6, 6], the model expects f64 [1, 2, 6, 6]");
  EXPECT_EQ(refusal(state_in(
                {.memory = MemoryRule::kNone, .architecture = Architecture::kTransformerXl})),
            "decoder: a state has cached f64 [1, 5, 12], the model expects no such memory");
  DecoderState beyond = state_in({});
  beyond.filled = 5;
  EXPECT_EQ(refusal(beyond),
            "decoder: a state at token 7 has 5 tokens and 0 ids in a segment of 5");
}

}  // namespace
}  // namespace infini
