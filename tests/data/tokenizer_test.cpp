#include "data/tokenizer.h"

#include "data/word_tokenizer.h"
#include "tensor/error.h"
#include "tests/data/fixtures.h"

namespace infini {
namespace {

using testing::HasSubstr;

TEST(ByteTokenizer, IsLosslessForAnyBytes) {
  const ByteTokenizer bytes;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const std::string text = random_text(seed, 60, true);
    EXPECT_EQ(bytes.decode(bytes.encode(text)), text);
  }
  EXPECT_EQ(bytes.decode(std::vector<std::int32_t>{256, 65, 256}), "A");
}

TEST(Tokenizer, SurvivesSerialisation) {
  const TempFolder folder;
  const ByteTokenizer bytes;
  const WordTokenizer words;
  for (const Tokenizer* tokenizer :
       {static_cast<const Tokenizer*>(&bytes), static_cast<const Tokenizer*>(&words)}) {
    EXPECT_EQ(load_tokenizer(tokenizer->serialise(), "copy")->hash(), tokenizer->hash());
    save_tokenizer(*tokenizer, folder / "t");
    EXPECT_EQ(read_tokenizer(folder / "t")->kind(), tokenizer->kind());
  }
  EXPECT_NE(bytes.hash(), words.hash());
  EXPECT_EQ(bytes.hash_text().size(), 16u);
}

TEST(Tokenizer, RefusesForeignBytesAndTokens) {
  EXPECT_EQ(message_of<DataError>([] { load_tokenizer("hello", "a.h5"); }),
            "a.h5: is not a tokenizer of this program");
  EXPECT_EQ(message_of<DataError>([] { load_tokenizer("infini-tokenizer runes\n", "a.h5"); }),
            "a.h5: tokenizer kind 'runes' is unknown, expected byte, words, sentencepiece "
            "or tokenizer.json");
  EXPECT_THAT(
      message_of<DataError>([] { load_tokenizer("infini-tokenizer words\nother\n", "a.h5"); }),
      HasSubstr("are not the passkey words of this build"));
  EXPECT_EQ(message_of<DataError>([] { ByteTokenizer().decode(std::vector<std::int32_t>{257}); }),
            "byte tokenizer: token id 257 is beyond the vocabulary of 257");
}

}  // namespace
}  // namespace infini
