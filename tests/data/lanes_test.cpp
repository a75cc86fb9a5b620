#include "data/lanes.h"

#include <map>
#include <set>

#include "tests/data/batch_checks.h"
#include "tests/data/fixtures.h"

namespace infini {
namespace {

using testing::HasSubstr;

const std::vector<int> kLengths = {70, 33, 5, 120, 1, 64, 63, 62, 17};

TEST(Lanes, AreAPureFunctionOfStepAndRow) {
  const TempFolder folder;
  const LaneSource source(small_store(folder / "a.h5", kLengths), {3, 16, 8}, 4);
  EXPECT_TRUE(source.carries_memory());
  expect_pure(source, {0, 1, 2, source.steps_per_epoch() - 1, source.steps_per_epoch(), 50});
}

TEST(Lanes, ReadEveryDocumentOnceFromFrontToBackInEveryEpoch) {
  const TempFolder folder;
  const auto store = small_store(folder / "a.h5", kLengths);
  std::set<std::vector<std::int32_t>> epochs;
  for (const int rows : {1, 3, 9}) {
    const LaneSource source(store, {rows, 24, 8}, 4);
    for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
      std::map<std::vector<std::int32_t>, int> read;  // scored stretches between resets
      std::vector<std::int32_t> all;
      for (int row = 0; row < rows; ++row) {
        std::vector<std::int32_t> current;
        const auto finish = [&] {
          if (!current.empty()) ++read[current];
          current.clear();
        };
        for (std::int64_t step = 0; step < source.steps_per_epoch(); ++step) {
          const auto batch = source.batch(epoch * source.steps_per_epoch() + step, row, 1);
          EXPECT_TRUE(step > 0 || batch.resets[0] == 1) << "an epoch starts with a fresh document";
          for (std::size_t t = 0; t < batch.tokens.size(); ++t) {
            if (t % 8 == 0 && batch.resets[t / 8]) finish();
            const bool kept = batch.keep.empty() || batch.keep[t];
            EXPECT_EQ(kept, batch.targets[t] >= 0) << "only padding goes unscored";
            if (!kept) continue;
            if (current.empty()) current.push_back(batch.tokens[t]);
            EXPECT_EQ(batch.tokens[t], current.back()) << "rows go on where they stopped";
            current.push_back(batch.targets[t]);
          }
          all.insert(all.end(), batch.tokens.begin(), batch.tokens.end());
        }
        finish();
      }
      EXPECT_EQ(read.size(), kLengths.size());
      for (const StoredDocument& document : store->documents())
        EXPECT_EQ(read[store->read(document)], 1);
      epochs.insert(all);
    }
  }
  EXPECT_EQ(epochs.size(), 9u) << "epochs must differ";
}

TEST(Lanes, AreBalanced) {
  const TempFolder folder;
  std::vector<int> lengths;
  for (int i = 0; i < 60; ++i) lengths.push_back(50 + 37 * i % 400);
  const LaneSource source(small_store(folder / "a.h5", lengths), {4, 32, 16}, 1);
  EXPECT_LT(source.padding_share(), 0.06);
  EXPECT_THAT(source.description(), HasSubstr("4 lanes through 60 documents"));
}

TEST(Lanes, RefuseMoreRowsThanDocumentsAndCutSegments) {
  const TempFolder folder;
  const auto store = small_store(folder / "a.h5", {30, 40});
  EXPECT_EQ(
      message_of<ConfigError>([&] {
        LaneSource(store, {3, 16, 8}, 1);
      }),
      "lanes: data.batch_rows is 3, but the store has only 2 documents and each row reads its own; "
      "lower it or use crops");
  EXPECT_THAT(message_of<ConfigError>([&] {
                LaneSource(store, {2, 20, 8}, 1);
              }),
              HasSubstr("data.row_tokens must be a multiple of the segment of 8 tokens"));
  EXPECT_THAT(message_of<ConfigError>([&] {
                LaneSource(store, {2, 4, 8}, 1);
              }),
              HasSubstr("a segment of 8 tokens is longer than a row"));
}

}  // namespace
}  // namespace infini
