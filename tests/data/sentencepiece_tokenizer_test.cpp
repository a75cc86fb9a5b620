#include "data/sentencepiece_tokenizer.h"

#include <thread>

#include "data/passkey.h"
#include "tensor/error.h"
#include "tests/data/fixtures.h"

namespace infini {
namespace {

using testing::HasSubstr;

std::string training_text() {
  std::string text = passkey_text("9054", 20, 20) + "\n\n";
  for (std::uint64_t seed = 1000; seed < 1100; ++seed) text += random_text(seed, 50, false);
  for (int i = 0; i < 50; ++i)
    text += "The book was on the\r\n    table,\nand the memory of it faded.\n\n";
  return text;
}

const SentencePieceTokenizer& trained() {
  static const auto tokenizer = train_sentencepiece(training_text(), 1000);
  return *tokenizer;
}

TEST(SentencePiece, IsLosslessForAnyUtf8Text) {
  const auto& tokenizer = trained();
  for (const std::string text :
       {"", " ", "\n", "  leading and trailing  ", "a\r\nb\rc\n\n\n\nd", "tab\tand\vodd\f",
        "<0x41><s></s><unk>", "\xE2\x96\x81low line \xE2\x96\x81", "\xC2\xA0nbsp\xE3\x80\x80",
        "\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x9A\x80", "\xEF\xBB\xBF bom",
        "\xEF\xAC\x81 \xC2\xBD a\xCC\x8A"})
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    const std::string text = random_text(seed, 40, false);
    ASSERT_EQ(tokenizer.decode(tokenizer.encode(text)), text) << seed;
  }
}

TEST(SentencePiece, IsLosslessForBytesThatAreNotUtf8) {
  const auto& tokenizer = trained();
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(all)), all);
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    const std::string text = random_text(seed, 40, true);
    ASSERT_EQ(tokenizer.decode(tokenizer.encode(text)), text) << seed;
  }
}

TEST(SentencePiece, GivesWithTheCacheWhatItGivesWithout) {
  const auto& tokenizer = trained();
  const std::string real = training_text();
  EXPECT_EQ(tokenizer.encode(real), tokenizer.encode_without_cache(real));
  for (std::uint64_t seed = 0; seed < 1000; ++seed) {
    const std::string text = random_text(seed, 60, seed % 2);
    ASSERT_EQ(tokenizer.encode(text), tokenizer.encode_without_cache(text)) << seed;
  }
}

TEST(SentencePiece, NeverWritesAControlPieceForText) {
  const auto& tokenizer = trained();
  for (const std::string text : {"</s>", "<unk>", "<s>", " </s> ", "a</s>b"})
    for (const std::int32_t token : tokenizer.encode(text)) {
      EXPECT_NE(token, tokenizer.end_of_text());
      EXPECT_FALSE(tokenizer.decode(std::vector<std::int32_t>{token}).empty());
    }
}

TEST(SentencePiece, LearnsWordsAndLineBreaksAsPieces) {
  const auto& tokenizer = trained();
  EXPECT_EQ(tokenizer.encode(" The grass").size(), 2u);
  EXPECT_EQ(tokenizer.encode("\n\n").size(), 1u);
  EXPECT_EQ(tokenizer.encode(" 9054").size(), 5u) << "digits are single pieces";
}

TEST(SentencePiece, SurvivesSerialisationAndFiles) {
  const TempFolder folder;
  const auto& tokenizer = trained();
  const auto copy = load_tokenizer(tokenizer.serialise(), "copy");
  EXPECT_EQ(copy->hash(), tokenizer.hash());
  EXPECT_EQ(copy->encode("The white book\n"), tokenizer.encode("The white book\n"));
  save_tokenizer(tokenizer, folder / "tokenizer.model");
  EXPECT_EQ(read_tokenizer(folder / "tokenizer.model")->hash(), tokenizer.hash());
}

TEST(SentencePiece, LeavesRareCharactersToBytesWhenTheVocabularyIsSmall) {
  const auto tokenizer = train_sentencepiece(training_text(), kSmallestVocabulary);
  EXPECT_LE(tokenizer->vocabulary(), kSmallestVocabulary);
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const std::string text = random_text(seed, 40, true);
    ASSERT_EQ(tokenizer->decode(tokenizer->encode(text)), text) << seed;
    ASSERT_EQ(tokenizer->encode(text), tokenizer->encode_without_cache(text)) << seed;
  }
}

TEST(SentencePiece, KnowsTheSpaceAlsoOfATextThatHasNone) {
  std::string text;
  for (int i = 0; i < 50; ++i) text += "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往\n";
  const auto tokenizer = train_sentencepiece(text, 400);
  for (const std::string& other : {std::string("天 地  x\n"), text})
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(other)), other);
}

TEST(SentencePiece, TrainsToTheSameModelEveryTime) {
  const std::string text = training_text();
  EXPECT_EQ(train_sentencepiece(text, 700)->hash(), train_sentencepiece(text, 700)->hash());
  EXPECT_NE(train_sentencepiece(text, 700)->hash(), trained().hash());
}

TEST(SentencePiece, MayEncodeOnSeveralThreads) {
  const std::string text = training_text();
  const auto expected = trained().encode(text);
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int k = 0; k < 3; ++k) EXPECT_EQ(trained().encode(text), expected);
    });
}

TEST(SentencePiece, RefusesWhatIsNoModelAndTooSmallAVocabulary) {
  EXPECT_EQ(message_of<DataError>([] { SentencePieceTokenizer("nonsense", "x.model"); }),
            "x.model: is not a SentencePiece model");
  EXPECT_EQ(message_of<DataError>([] { SentencePieceTokenizer("", "x.model"); }),
            "x.model: is not a SentencePiece model");
  EXPECT_THAT(message_of<ConfigError>([] { train_sentencepiece(training_text(), 299); }),
              HasSubstr("a vocabulary of 299 is too small, expected at least 300"));
  EXPECT_THAT(message_of<DataError>([] { train_sentencepiece("", 500); }),
              HasSubstr("no text to train on"));
}

}  // namespace
}  // namespace infini
