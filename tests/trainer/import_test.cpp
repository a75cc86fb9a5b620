#include "tests/data/fixtures.h"
#include "tests/trainer/pretrained.h"
#include "trainer/import_model.h"

namespace infini {
namespace {

class Import : public testing::TestWithParam<std::string> {
 protected:
  // The family as an import with these keys.
  LoadedModel import(const std::vector<std::string>& overrides = {}) {
    const auto out = folder_.path() / std::to_string(imports_++);
    import_model(pretrained(GetParam()), out, overrides);
    return load_fp32(out);
  }

  TempFolder folder_;
  int imports_ = 0;
};

TEST_P(Import, HasTheLogitsOfTheOriginalInsideASegment) {
  const ReadText original = original_logits(GetParam());
  for (const char* memory : {"linear", "delta", "none"}) {
    const LoadedModel loaded = import({text("model.memory=", memory)});
    EXPECT_LE(relative_error(logits_of(*loaded.model, original.tokens), original.logits), 1e-5)
        << memory;
  }
}

TEST_P(Import, ReadsTokenByTokenWithTheLogitsOfTheOriginal) {
  const ReadText original = original_logits(GetParam());
  const LoadedModel loaded = import();
  Decoder decoder(*loaded.model);
  std::vector<double> logits;
  for (const std::int32_t token : original.tokens)
    for (const float logit : decoder.next_logits({&token, 1})) logits.push_back(logit);
  EXPECT_LE(relative_error(logits, original.logits), 1e-5);
}

// Closed gates read nothing of what the memory holds.
TEST_P(Import, ReadsEverySegmentAsATextOfItsOwn) {
  const ReadText original = original_logits(GetParam());
  const LoadedModel loaded = import({"model.segment_tokens=5"});
  const std::vector<double> whole = logits_of(*loaded.model, original.tokens);
  const auto width = static_cast<std::ptrdiff_t>(loaded.config.model.vocabulary);
  const std::span<const std::int32_t> tokens = original.tokens;
  for (std::size_t first = 0; first < tokens.size(); first += 5) {
    const auto segment = tokens.subspan(first, std::min<std::size_t>(5, tokens.size() - first));
    const auto begin = whole.begin() + static_cast<std::ptrdiff_t>(first) * width;
    const std::vector<double> part(begin,
                                   begin + static_cast<std::ptrdiff_t>(segment.size()) * width);
    EXPECT_LE(relative_error(part, logits_of(*loaded.model, {segment.begin(), segment.end()})),
              1e-5)
        << "segment at " << first;
  }
}

TEST_P(Import, OpensItsGatesWhenAskedTo) {
  const ReadText original = original_logits(GetParam());
  const LoadedModel closed = import({"model.segment_tokens=5"}),
                    open = import({"model.segment_tokens=5", "model.gate_mean=0"});
  const std::vector<double> a = logits_of(*closed.model, original.tokens),
                            b = logits_of(*open.model, original.tokens);
  const auto first = static_cast<std::ptrdiff_t>(5 * closed.config.model.vocabulary);
  EXPECT_EQ(std::vector(a.begin(), a.begin() + first), std::vector(b.begin(), b.begin() + first))
      << "the memory is empty in the first segment, which first_segment=bypass leaves alone";
  EXPECT_GT(relative_error(a, b), 1e-3);
}

INSTANTIATE_TEST_SUITE_P(Families, Import, testing::ValuesIn(kFamilies), family_name);

}  // namespace
}  // namespace infini
