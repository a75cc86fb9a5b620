#include "data/example_source.h"

#include <map>
#include <set>

#include "tests/data/batch_checks.h"
#include "tests/data/example_fixtures.h"

namespace infini {
namespace {

using testing::HasSubstr;

const std::vector<DocumentShape> kShapes = {{40, {3, 5}}, {12, {4}}, {90, {6, 1, 2}}, {3, {2}},
                                            {25, {3}},    {60, {7}}, {8, {2, 2}}};

TEST(ExampleSource, IsAPureFunctionOfStepAndRow) {
  const TempFolder folder;
  const auto store = example_store(folder / "a.h5", kShapes);
  expect_pure(ExampleSource(store, {.sorted_steps = 2}, {3, 64, 8}, 4), {0, 1, 3, 4, 50});
}

TEST(ExampleSource, GoesThroughEveryExampleOnceAnEpochInAnotherOrder) {
  const TempFolder folder;
  const auto store = example_store(folder / "a.h5", kShapes);
  for (const std::int64_t sorted : {1, 2, 3, 16}) {
    const ExampleSource source(store, {.sorted_steps = sorted}, {3, 64, 8}, 4);
    ASSERT_EQ(source.steps_per_epoch(), 4);  // 11 examples
    std::set<std::vector<std::int64_t>> epochs;
    for (std::int64_t epoch = 0; epoch < 5; ++epoch) {
      std::vector<std::int64_t> order;
      for (std::int64_t s = 0; s < 4; ++s)
        for (const std::int64_t example : source.examples_of(4 * epoch + s))
          order.push_back(example);
      EXPECT_EQ(std::set(order.begin(), order.end()).size(), 11u);
      EXPECT_EQ(order.size(), 11u);
      epochs.insert(order);
    }
    EXPECT_EQ(epochs.size(), 5u) << "epochs must differ";
  }
}

TEST(ExampleSource, ScoresTheSummaryAloneAndKeepsNoPadding) {
  const TempFolder folder;
  const auto store = example_store(folder / "a.h5", {{9, {2}}, {3, {1}}});
  const ExampleSource source(store, {.prompt = "A"}, {2, 16, 4}, 1);
  const SequenceBatch batch = source.batch(0);  // longest first
  EXPECT_EQ(batch.row_tokens, 16);              // 13 tokens are read, 4 segments
  EXPECT_EQ(batch.tokens,
            (std::vector<std::int32_t>{256, 0,   1,   2,   3,   4,   5,   6,   7,   8,  65,
                                       200, 201, 256, 256, 256, 256, 100, 101, 102, 65, 201,
                                       256, 256, 256, 256, 256, 256, 256, 256, 256, 256}));
  EXPECT_EQ(batch.targets,
            (std::vector<std::int32_t>{-1,  -1,  -1, -1, -1, -1, -1, -1, -1, -1,  200,
                                       201, 256, -1, -1, -1, -1, -1, -1, -1, 201, 256,
                                       -1,  -1,  -1, -1, -1, -1, -1, -1, -1, -1}));
  EXPECT_EQ(batch.keep,
            (std::vector<std::uint8_t>{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0,
                                       1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(batch.resets, (std::vector<std::uint8_t>{1, 0, 0, 0, 1, 0, 0, 0}));
  EXPECT_EQ(batch.scored_tokens, 5);
  EXPECT_EQ(batch.total_weight, 5);
}

TEST(ExampleSource, PutsExamplesOfLikeLengthInOneStep) {
  const TempFolder folder;
  std::vector<DocumentShape> shapes;
  for (int i = 0; i < 64; ++i) shapes.push_back({.tokens = 1 + 37 * i % 200, .summaries = {2}});
  const auto store = example_store(folder / "a.h5", shapes);
  const auto padding = [&](std::int64_t sorted) {
    const ExampleSource source(store, {.sorted_steps = sorted}, {4, 256, 8}, 9);
    std::int64_t padded = 0;
    std::vector<std::int64_t> lengths;
    for (std::int64_t step = 0; step < 16; ++step) {
      const SequenceBatch batch = source.batch(step);
      padded += std::ranges::count(batch.keep, 0);
      lengths.push_back(batch.row_tokens);
    }
    EXPECT_FALSE(std::ranges::is_sorted(lengths, std::greater())) << "steps come in random order";
    return padded;
  };
  EXPECT_LT(padding(16), padding(1) / 5);
  EXPECT_LT(padding(4), padding(1));
}

TEST(ExampleSource, CutsDocumentsToRowsOfWholeParts) {
  const TempFolder folder;
  const auto store = example_store(folder / "a.h5", kShapes);
  for (const int parts : {1, 2, 4}) {
    const ExampleSource source(store, {.prompt = "A"}, {3, 32, 4}, 4, parts);
    std::int64_t longest = 0;
    for (std::int64_t step = 0; step < 4; ++step) {
      const SequenceBatch batch = source.batch(step);
      EXPECT_EQ(batch.row_tokens % (4 * parts), 0);
      longest = std::max(longest, batch.row_tokens);
    }
    EXPECT_EQ(longest, 32);
    EXPECT_THAT(source.description(), HasSubstr("6 documents are longer than fits and lose their "
                                                "end"));
  }
  const ExampleSource few(store, {.prompt = "A", .document_tokens = 2}, {3, 32, 4}, 4);
  for (std::int64_t step = 0; step < 4; ++step) EXPECT_LE(few.batch(step).row_tokens, 12);
}

TEST(ExampleSource, FillsTheLastStepOfAnEpochWithPadding) {
  const TempFolder folder;
  const auto store = example_store(folder / "a.h5", {{9, {2}}, {3, {1}}, {30, {1}}});
  const ExampleSource source(store, {}, {2, 64, 4}, 1);
  int lacking = 0;
  for (std::int64_t step = 0; step < 2; ++step) {
    const SequenceBatch batch = source.batch(step);
    if (source.examples_of(step).size() == 2) continue;
    ++lacking;
    for (std::int64_t t = batch.row_tokens; t < 2 * batch.row_tokens; ++t) {
      EXPECT_EQ(batch.targets[static_cast<std::size_t>(t)], -1);
      EXPECT_EQ(batch.keep[static_cast<std::size_t>(t)], 0);
    }
  }
  EXPECT_EQ(lacking, 1);
}

TEST(ExampleSource, RefusesRowsWithoutRoom) {
  const TempFolder folder;
  const auto store = example_store(folder / "a.h5", {{9, {30}}});
  EXPECT_EQ(message_of<ConfigError>([&] {
              ExampleSource(store, {}, {2, 32, 4}, 1);
            }),
            "data.row_tokens = 32 has no room for a document before a prompt of 10 tokens and a "
            "summary of 31; data.examples.summary_tokens cuts summaries");
  ExampleSource(store, {.summary_tokens = 21}, {2, 32, 4}, 1);
  EXPECT_THAT(message_of<ConfigError>([&] {
                ExampleSource(store, {.summary_tokens = 9}, {2, 30, 4}, 1);
              }),
              HasSubstr("data.row_tokens = 30 is not divisible by 1 parts of segments of 4"));
  const DataConfig lanes{.source = DataKind::kExamples, .store = "x", .sampler = Sampler::kLanes};
  EXPECT_THAT(message_of<ConfigError>([&] { lanes.validate(); }),
              HasSubstr("data.sampler is lanes, but examples are rows of their own"));
}

}  // namespace
}  // namespace infini
