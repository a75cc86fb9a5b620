#include "data/crops.h"

#include <map>
#include <set>

#include "tests/data/batch_checks.h"
#include "tests/data/fixtures.h"

namespace infini {
namespace {

using testing::HasSubstr;

TEST(Crops, AreAPureFunctionOfStepAndRow) {
  const TempFolder folder;
  expect_pure(CropSource(small_store(folder / "a.h5", {70, 33, 5, 120}), {3, 16, 6}, 4),
              {0, 1, 4, 5, 50});
}

// Where each row of an epoch lies in the store, found by its tokens: documents have their own
// bytes.
TEST(Crops, ScoreEveryTokenAtMostOnceAnEpochAndLeaveLessThanARowOut) {
  const TempFolder folder;
  const std::int64_t T = 8;
  const auto store = small_store(folder / "a.h5", {40, 41, 47, 3, 7});
  const CropSource source(store, {4, T, 4}, 11);
  EXPECT_EQ(source.short_documents(), 1);  // 4 scored tokens; the one of 7 has 8 with its end

  std::set<std::vector<std::int32_t>> epochs;
  for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
    std::map<std::size_t, std::vector<std::int64_t>> begins;  // of rows, by document
    std::vector<std::int32_t> all;
    for (std::int64_t i = 0; i < source.rows_per_epoch(); ++i) {
      const std::int64_t sample = epoch * source.rows_per_epoch() + i;
      const auto row = source.batch(sample / 4, static_cast<int>(sample % 4), 1);
      all.insert(all.end(), row.tokens.begin(), row.tokens.end());
      // A row of n tokens stands in a document where its tokens and targets match.
      std::vector<std::int32_t> wanted(row.tokens.begin(), row.tokens.begin() + row.scored_tokens);
      wanted.push_back(row.targets[static_cast<std::size_t>(row.scored_tokens) - 1]);
      int matches = 0;
      for (std::size_t d = 0; d < store->documents().size(); ++d) {
        const auto tokens = store->read(store->documents()[d]);
        const auto at = std::search(tokens.begin(), tokens.end(), wanted.begin(), wanted.end());
        if (at == tokens.end()) continue;
        begins[d].push_back(at - tokens.begin());
        ++matches;
      }
      EXPECT_EQ(matches, 1);
      EXPECT_TRUE(row.scored_tokens == T || row.scored_tokens == 4);
    }
    EXPECT_EQ(begins.size(), store->documents().size());
    for (auto& [d, places] : begins) {
      std::sort(places.begin(), places.end());
      const std::int64_t scored = store->documents()[d].scored_tokens();
      EXPECT_EQ(static_cast<std::int64_t>(places.size()), std::max<std::int64_t>(scored / T, 1));
      for (std::size_t k = 1; k < places.size(); ++k) EXPECT_EQ(places[k], places[k - 1] + T);
    }
    epochs.insert(all);
  }
  EXPECT_EQ(epochs.size(), 3u) << "epochs must differ";
}

TEST(Crops, PadAShortDocumentWithoutScoringOrKeepingThePadding) {
  const TempFolder folder;
  const CropSource source(small_store(folder / "a.h5", {3}), {1, 10, 4}, 1);
  const SequenceBatch batch = source.batch(0);
  EXPECT_EQ(batch.segments, 3);
  EXPECT_EQ(batch.tokens, (std::vector<std::int32_t>{256, 0, 1, 2, 256, 256, 256, 256, 256, 256}));
  EXPECT_EQ(batch.targets, (std::vector<std::int32_t>{0, 1, 2, 256, -1, -1, -1, -1, -1, -1}));
  EXPECT_EQ(batch.keep, (std::vector<std::uint8_t>{1, 1, 1, 1, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(batch.resets, (std::vector<std::uint8_t>{1, 0, 0}));
  EXPECT_EQ(batch.scored_tokens, 4);
  EXPECT_EQ(batch.total_weight, 4);
  EXPECT_THAT(source.description(), HasSubstr("1 documents are shorter than a row and are padded"));
}

TEST(Crops, RefuseImpossibleShapesAndEmptyStores) {
  const TempFolder folder;
  const auto store = small_store(folder / "a.h5", {30});
  EXPECT_EQ(message_of<ConfigError>([&] {
              CropSource(store, {1, 16, 32}, 1);
            }),
            "a segment of 32 tokens is longer than a row: data.row_tokens is 16");
  EXPECT_THAT(message_of<ConfigError>([&] {
                CropSource(store, {0, 16, 4}, 1);
              }),
              HasSubstr("data.batch_rows must be at least 1, got 0"));
  const auto empty = small_store(folder / "b.h5", {});
  EXPECT_THAT(message_of<DataError>([&] {
                CropSource(empty, {1, 16, 4}, 1);
              }),
              HasSubstr("b.h5: the store holds no documents"));
}

}  // namespace
}  // namespace infini
