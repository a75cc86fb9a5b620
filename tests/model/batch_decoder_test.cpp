// Sequences that go on as rows of one batch, against each by itself.
#include "model/batch_decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/model/tiny_model.h"

namespace infini {
namespace {

using testing::ThrowsMessage;
using Ids = std::vector<std::int32_t>;

Ids some_ids(std::int64_t count, std::uint32_t site) {
  return random_ids({count}, site).to_vector<std::int32_t>();
}

// Decoders that have read texts of these lengths, each another one.
std::vector<Decoder> decoders_of(const InfiniTransformer& model,
                                 const std::vector<std::int64_t>& lengths) {
  std::vector<Decoder> decoders;
  decoders.reserve(lengths.size());
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    decoders.emplace_back(model);
    if (lengths[i] > 0) decoders[i].read(some_ids(lengths[i], static_cast<std::uint32_t>(10 + i)));
  }
  return decoders;
}

std::vector<const Decoder*> pointers(const std::vector<Decoder>& decoders) {
  std::vector<const Decoder*> rows;
  for (const Decoder& decoder : decoders) rows.push_back(&decoder);
  return rows;
}

// Both go on by the same tokens and foretell the same.
void expect_together(BatchDecoder& batch, std::vector<Decoder*> alone, int steps,
                     std::uint32_t site) {
  for (int step = 0; step < steps; ++step) {
    const Ids next = some_ids(batch.rows(), site + static_cast<std::uint32_t>(step));
    const Tensor logits = batch.next_logits(next);
    for (std::int64_t b = 0; b < batch.rows(); ++b) {
      const std::vector<float> expected =
          alone[static_cast<std::size_t>(b)]->next_logits(std::span(next).subspan(b, 1));
      const std::vector<double> got = logits.slice(b, 1).to_vector<double>();
      EXPECT_LE(relative_error(got, {expected.begin(), expected.end()}), 1e-6)
          << "row " << b << ", step " << step;
    }
  }
}

class DecodingInBatches : public testing::TestWithParam<Tiny> {};

TEST_P(DecodingInBatches, EqualsEachRowByItselfThroughManySegments) {
  const InfiniTransformer model = model_of(GetParam());
  for (const std::int64_t read : {0, 3, 10, 23}) {
    SCOPED_TRACE(text("after ", read, " tokens"));
    std::vector<Decoder> alone = decoders_of(model, {read, read, read});
    BatchDecoder batch(pointers(alone));
    expect_together(batch, {&alone[0], &alone[1], &alone[2]}, 13, 100);
  }
}

TEST_P(DecodingInBatches, CopiesOfOneTextGoOnByThemselves) {
  const InfiniTransformer model = model_of(GetParam());
  const Decoder read = decoders_of(model, {13}).front();
  BatchDecoder batch(std::vector<const Decoder*>(4, &read));
  Decoder a = read, b = read, c = read, d = read;
  expect_together(batch, {&a, &b, &c, &d}, 9, 200);
  EXPECT_EQ(read.position(), 13);
}

TEST_P(DecodingInBatches, RowsMayLeaveAndChangePlaces) {
  const InfiniTransformer model = model_of(GetParam());
  std::vector<Decoder> alone = decoders_of(model, {8, 8, 8, 8});
  BatchDecoder batch(pointers(alone));
  expect_together(batch, {&alone[0], &alone[1], &alone[2], &alone[3]}, 4, 300);
  batch.keep(std::vector<std::int64_t>{3, 1, 2});
  expect_together(batch, {&alone[3], &alone[1], &alone[2]}, 7, 400);
  batch.keep(std::vector<std::int64_t>{1});
  expect_together(batch, {&alone[1]}, 6, 500);
}

INSTANTIATE_TEST_SUITE_P(Models, DecodingInBatches, testing::ValuesIn(kTinies), tiny_name);

class DecodingAtAnyPlaces : public testing::TestWithParam<Tiny> {};

TEST_P(DecodingAtAnyPlaces, EqualsEachRowByItself) {
  const InfiniTransformer model = model_of(GetParam());
  std::vector<Decoder> alone = decoders_of(model, {0, 4, 19, 19, 11, 5});
  BatchDecoder batch(pointers(alone));
  std::vector<Decoder*> rows;
  for (Decoder& decoder : alone) rows.push_back(&decoder);
  expect_together(batch, rows, 17, 600);
}

INSTANTIATE_TEST_SUITE_P(Models, DecodingAtAnyPlaces, testing::ValuesIn(shared_tinies()),
                         tiny_name);

TEST(BatchDecoder, RefusesRowsThatCannotGoOnTogether) {
  const InfiniTransformer infini = model_of({}), other = model_of({}, 2);
  const InfiniTransformer xl =
      model_of({.memory = MemoryRule::kNone, .architecture = Architecture::kTransformerXl});
  const std::vector<Decoder> here = decoders_of(infini, {4, 11}), there = decoders_of(other, {4}),
                             cached = decoders_of(xl, {3, 4, 8});
  EXPECT_TRUE(BatchDecoder::can_join(here[0], here[1]));
  EXPECT_FALSE(BatchDecoder::can_join(here[0], there[0]));
  EXPECT_FALSE(BatchDecoder::can_join(cached[0], cached[1]));  // other places of a segment
  EXPECT_FALSE(BatchDecoder::can_join(cached[0], cached[2]));  // one without a memory
  EXPECT_THAT([&] { BatchDecoder{pointers(cached)}; },
              ThrowsMessage<Error>("batch decoder: a row at token 4 cannot go on beside one at "
                                   "token 3"));
  EXPECT_THAT([&] { BatchDecoder{std::vector<const Decoder*>{}}; },
              ThrowsMessage<Error>("batch decoder: no rows"));
  BatchDecoder batch(pointers(here));
  EXPECT_THAT([&] { batch.next_logits(Ids{1}); },
              ThrowsMessage<Error>("batch decoder: 1 tokens for 2 rows"));
  EXPECT_THAT(
      [&] {
        batch.keep(std::vector<std::int64_t>{1, 0});
      },
      ThrowsMessage<Error>("batch decoder: row 1 cannot take the place of row 0 of 2"));
}

}  // namespace
}  // namespace infini
