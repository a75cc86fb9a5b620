#include "data/token_store.h"

#include "data/durable_file.h"
#include "data/seal.h"
#include "data/word_tokenizer.h"
#include "tensor/error.h"
#include "tests/data/fixtures.h"

namespace infini {
namespace {

using testing::AnyOf;
using testing::HasSubstr;

TEST(TokenStore, ReturnsDocumentsBetweenEndsOfText) {
  const TempFolder folder;
  const auto store = small_store(folder / "a.h5", {3, 0, 5});
  ASSERT_EQ(store->documents().size(), 3u);
  EXPECT_EQ(store->tokens(), 14);
  EXPECT_EQ(store->bytes(), 8);
  EXPECT_EQ(store->words(), 3);
  EXPECT_EQ(store->split(), "train");
  EXPECT_EQ(store->vocabulary(), 257);
  EXPECT_EQ(store->source_hash(), 7u);
  EXPECT_EQ(store->documents()[2].name, "document 2");
  EXPECT_EQ(store->documents()[2].begin, 7);
  EXPECT_EQ(store->read(store->documents()[0]), (std::vector<std::int32_t>{256, 0, 1, 2, 256}));
  EXPECT_EQ(store->read(store->documents()[1]), (std::vector<std::int32_t>{256, 256}));
  std::vector<std::int32_t> across(4);
  store->read(3, across);
  EXPECT_EQ(across, (std::vector<std::int32_t>{2, 256, 256, 256}));
}

TEST(TokenStore, HoldsManyDocumentsAndTokens) {
  const TempFolder folder;
  std::vector<int> lengths;
  for (int i = 0; i < 9000; ++i) lengths.push_back(i % 300);
  const auto store = small_store(folder / "a.h5", lengths);
  ASSERT_EQ(store->documents().size(), lengths.size());
  EXPECT_EQ(store->documents().back().name, "document 8999");
  for (std::size_t d = 0; d < lengths.size(); d += 777) {
    const auto tokens = store->read(store->documents()[d]);
    ASSERT_EQ(tokens.size(), static_cast<std::size_t>(lengths[d]) + 2);
    EXPECT_EQ(tokens.back(), 256);
    EXPECT_TRUE(lengths[d] == 0 || tokens[1] == static_cast<std::int32_t>(100 * d % 256));
  }
}

TEST(TokenStore, DetectsEveryFlippedBit) {
  const TempFolder folder;
  const auto path = folder / "a.h5";
  small_store(path, {300, 20, 700});
  const std::string good = read_file(path);
  const RandomKey stream{3, 0, 0};
  for (std::uint64_t i = 0; i < 400; ++i) {
    std::string bad = good;
    // Both ends of the file, where HDF5's own header and the seal stand, and anywhere else.
    const std::size_t at = i < 100   ? i
                           : i < 164 ? good.size() - 1 - (i - 100)
                                     : stream.below(2 * i, good.size());
    bad[at] = static_cast<char>(bad[at] ^ 1 << stream.below(2 * i + 1, 8));
    put_file(path, bad);
    EXPECT_THAT(message_of<DataError>([&] { TokenStore::open(path); }),
                AnyOf(HasSubstr("a.h5: this token store is damaged: its "),
                      HasSubstr("seal at its end is missing")))
        << at;
  }
  put_file(path, good);
  EXPECT_EQ(TokenStore::open(path)->tokens(), 1026);
}

TEST(TokenStore, DetectsEveryTruncationAndAddition) {
  const TempFolder folder;
  const auto path = folder / "a.h5";
  small_store(path, {300, 20, 700});
  const std::string good = read_file(path);
  for (std::size_t size = 0; size < good.size();
       size += size < 64 || good.size() - size < 99 ? 1 : 97) {
    put_file(path, good.substr(0, size));
    EXPECT_THAT(message_of<DataError>([&] { TokenStore::open(path); }),
                HasSubstr("is not a complete token store"))
        << size;
  }
  put_file(path, good + "x");
  EXPECT_THAT(message_of<DataError>([&] { TokenStore::open(path); }),
              HasSubstr("is not a complete token store"));
  EXPECT_THAT(message_of<DataError>([&] { TokenStore::open(folder / "none.h5"); }),
              HasSubstr("none.h5: no such token store"));
}

TEST(TokenStore, RefusesOtherVersionsOtherFilesAndOtherTokenizers) {
  const TempFolder folder;
  const auto store = small_store(folder / "a.h5", {3});
  EXPECT_NO_THROW(store->require_tokenizer(ByteTokenizer(), "the checkpoint"));
  EXPECT_THAT(
      message_of<DataError>([&] { store->require_tokenizer(WordTokenizer(), "the checkpoint"); }),
      HasSubstr("was made with another tokenizer (byte, 257 ids, hash " +
                ByteTokenizer().hash_text() + ") than the checkpoint (words, "));

  const auto other = folder / "other.h5";
  const auto write = [&](const char* format, std::int64_t version) {
    Hdf5File file = Hdf5File::create(other);
    file.set_attribute("/", "format", format);
    file.set_attribute("/", "version", version);
    file.close();
    write_seal(other);
  };
  write("infini-token-store", 2);
  EXPECT_THAT(message_of<DataError>([&] { TokenStore::open(other); }),
              HasSubstr("token store version 2, this build reads 1"));
  write("something", 1);
  EXPECT_THAT(message_of<DataError>([&] { TokenStore::open(other); }),
              HasSubstr("is not a token store"));
}

TEST(TokenStore, RefusesTokensBeyondTheVocabulary) {
  const TempFolder folder;
  TokenStoreWriter writer(folder / "a.h5", ByteTokenizer(), "train");
  EXPECT_THAT(message_of<DataError>([&] {
                writer.add("x", 1, 1, std::vector<std::int32_t>{1, 257});
              }),
              HasSubstr("token id 257 is beyond the vocabulary of 257"));
}

TEST(TokenStore, LeavesNothingBehindWithoutFinish) {
  const TempFolder folder;
  { TokenStoreWriter writer(folder / "a.h5", ByteTokenizer(), "train"); }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace infini
