#include "data/example_rows.h"

#include "tensor/error.h"
#include "tests/data/example_fixtures.h"

namespace infini {
namespace {

using Tokens = std::vector<std::int32_t>;

class RowsOfExamples : public ::testing::Test {
 protected:
  ExampleRows rows(const ExamplesConfig& config) const { return ExampleRows(store_, config); }
  TempFolder folder_;
  std::shared_ptr<const ExampleStore> store_ = example_store(folder_ / "a.h5", {{7, {3, 2}}});
};

TEST_F(RowsOfExamples, AreDocumentPromptAndSummary) {
  const ExampleRows whole = rows({.prompt = "AB"});
  const ExampleRows::Row row = whole.row(0, 0);
  EXPECT_EQ(row.tokens, (Tokens{256, 0, 1, 2, 3, 4, 5, 6, 65, 66, 200, 201, 202, 256}));
  EXPECT_EQ(row.summary_begin, 10);
  EXPECT_EQ(whole.learned_tokens(0), 4);
  EXPECT_EQ(whole.prompt(0, 0), Tokens(row.tokens.begin(), row.tokens.begin() + 10));
  EXPECT_EQ(whole.reference(1), "summary 1 of 0");
  EXPECT_EQ(whole.row(1, 0).tokens.back(), 256);
  EXPECT_THROW(whole.row(2, 0), Error);
}

TEST_F(RowsOfExamples, CutTheEndOrTheMiddleOfADocument) {
  EXPECT_EQ(rows({.prompt = "A"}).prompt(0, 4), (Tokens{256, 0, 1, 2, 3, 65}));
  const ExampleRows middle = rows({.prompt = "A", .cut = DocumentCut::kMiddle});
  EXPECT_EQ(middle.prompt(0, 4), (Tokens{256, 0, 1, 5, 6, 65}));
  EXPECT_EQ(middle.prompt(0, 5), (Tokens{256, 0, 1, 2, 5, 6, 65}));
  EXPECT_EQ(middle.prompt(0, 1), (Tokens{256, 0, 65}));
  for (const std::int64_t limit : {7, 8, 0})
    EXPECT_EQ(middle.prompt(0, limit), (Tokens{256, 0, 1, 2, 3, 4, 5, 6, 65})) << limit;
}

TEST_F(RowsOfExamples, CutASummaryWithoutAnEnd) {
  EXPECT_EQ(rows({.prompt = "", .summary_tokens = 2}).row(0, 1).tokens, (Tokens{256, 0, 200, 201}));
  EXPECT_EQ(rows({.prompt = "", .summary_tokens = 3}).row(0, 1).tokens,
            (Tokens{256, 0, 200, 201, 202, 256}));
}

TEST_F(RowsOfExamples, KnowTheirLengthBeforeTheyAreRead) {
  for (const std::int64_t summary : {1, 2, 3, 100})
    for (const std::int64_t limit : {0, 1, 6, 7, 8})
      for (const std::int64_t example : {0, 1}) {
        const ExampleRows all = rows({.summary_tokens = summary});
        EXPECT_EQ(all.row_tokens(example, limit),
                  static_cast<std::int64_t>(all.row(example, limit).tokens.size()));
      }
}

}  // namespace
}  // namespace infini
