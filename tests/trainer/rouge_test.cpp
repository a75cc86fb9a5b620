#include "trainer/rouge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "data/line_reader.h"
#include "trainer/porter_stemmer.h"

namespace infini {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Pairs with nothing, one word, many scripts, the same words over and over, thousands of words and
// many lines, with what rouge_score 0.1.2 says of them, to 12 digits.
TEST(Rouge, IsThatOfTheReferenceProgram) {
  LineReader lines(INFINI_SOURCE_DIR "/tests/trainer/rouge/pairs.jsonl.gz");
  int pairs = 0;
  for (std::string line; lines.next(line); ++pairs) {
    const auto pair = nlohmann::json::parse(line);
    for (const bool stem : {false, true}) {
      const RougeScores scores = rouge(pair.at("reference").get<std::string>(),
                                       pair.at("candidate").get<std::string>(), stem);
      const auto expected = pair.at(stem ? "stemmed" : "plain").get<std::vector<double>>();
      ASSERT_EQ(expected.size(), 3 * scores.size());
      for (std::size_t i = 0; i < scores.size(); ++i) {
        const RougeScore& score = scores[i];
        EXPECT_NEAR(score.precision, expected[3 * i], 1e-9) << line << name_of(kRougeKinds[i]);
        EXPECT_NEAR(score.recall, expected[3 * i + 1], 1e-9) << line << name_of(kRougeKinds[i]);
        EXPECT_NEAR(score.f, expected[3 * i + 2], 1e-9) << line << name_of(kRougeKinds[i]);
      }
    }
  }
  EXPECT_GE(pairs, 2000);
}

TEST(Rouge, WordsAreSmallLettersAndDigits) {
  EXPECT_THAT(rouge_words("The U.S.A.'s 3rd-best na\xC3\xAFve\tidea\n", false),
              ElementsAre("the", "u", "s", "a", "s", "3rd", "best", "na", "ve", "idea"));
  EXPECT_THAT(rouge_words("running runs Flies fly", true),
              ElementsAre("run", "run", "fli", "fly"));  // fly has three letters
  EXPECT_THAT(rouge_words("\xE2\x84\xAA \xC4\xB0stanbul", false), ElementsAre("k", "i", "stanbul"));
  EXPECT_THAT(rouge_words("--- \xF0\x9F\x99\x82", false), IsEmpty());
}

TEST(PorterStem, HasTheLettersOfPorterAndTheWordsOfNltk) {
  const std::pair<const char*, const char*> kStems[] = {{"caresses", "caress"},
                                                        {"ponies", "poni"},
                                                        {"ties", "tie"},
                                                        {"feed", "feed"},
                                                        {"agreed", "agre"},
                                                        {"plastered", "plaster"},
                                                        {"motoring", "motor"},
                                                        {"sing", "sing"},
                                                        {"conflated", "conflat"},
                                                        {"hopping", "hop"},
                                                        {"falling", "fall"},
                                                        {"filing", "file"},
                                                        {"happy", "happi"},
                                                        {"enjoy", "enjoy"},
                                                        {"relational", "relat"},
                                                        {"rational", "ration"},
                                                        {"generalization", "gener"},
                                                        {"oscillators", "oscil"},
                                                        {"adoption", "adopt"},
                                                        {"controlling", "control"},
                                                        {"dying", "die"},
                                                        {"died", "die"},
                                                        {"skies", "sky"},
                                                        {"possibly", "possibl"},
                                                        {"theology", "theolog"},
                                                        {"as", "as"}};
  for (const auto& [word, stem] : kStems) EXPECT_EQ(porter_stem(word), stem) << word;
}

// Table 4 of the paper: ROUGE-1, 2 and L of its six systems, and the overall score it prints.
TEST(Rouge, GeometricMeansOfThePapersTable) {
  const double kRows[][4] = {{36.4, 7.6, 15.3, 16.2}, {38.6, 7.2, 15.6, 16.3},
                             {36.8, 8.3, 15.7, 16.9}, {37.9, 8.2, 16.3, 17.2},
                             {37.9, 8.7, 17.6, 18.0}, {40.0, 8.8, 17.9, 18.5}};
  for (const auto& [one, two, l, overall] : kRows)
    EXPECT_NEAR(rouge_geometric_mean(one, two, l), overall, 0.05 + 1e-9) << overall;
}

TEST(Rouge, BootstrappedMeansLieWhereTheyShould) {
  std::vector<double> values(400);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = i % 2;  // mean 1/2, deviation 1/2
  const Interval interval = bootstrap_mean(values, 1);
  EXPECT_DOUBLE_EQ(interval.mean, 0.5);
  EXPECT_NEAR(interval.low, 0.5 - 1.96 * 0.025, 0.006);
  EXPECT_NEAR(interval.high, 0.5 + 1.96 * 0.025, 0.006);
  const Interval again = bootstrap_mean(values, 1), other = bootstrap_mean(values, 2);
  EXPECT_EQ(again.low, interval.low);
  EXPECT_NE(other.low + other.high, interval.low + interval.high);
  const Interval one = bootstrap_mean({0.25}, 1), none = bootstrap_mean({}, 1);
  EXPECT_EQ(one.low, 0.25);
  EXPECT_EQ(one.high, 0.25);
  EXPECT_EQ(none.mean, 0);
}

}  // namespace
}  // namespace infini
