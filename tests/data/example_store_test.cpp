#include "data/example_store.h"

#include "data/durable_file.h"
#include "tensor/error.h"
#include "tests/data/example_fixtures.h"

namespace infini {
namespace {

using testing::HasSubstr;

TEST(ExampleStore, GivesBackWhatWasWritten) {
  const TempFolder folder;
  const auto store = example_store(folder / "a.h5", {{10, {3, 4}}, {5, {2}}});
  ASSERT_EQ(store->examples().size(), 3u);
  ASSERT_EQ(store->documents()->documents().size(), 2u);
  const StoredExample& second = store->examples()[1];
  EXPECT_EQ(second.document, 0);
  EXPECT_EQ(second.level, SummaryLevel::kChapter);
  EXPECT_EQ(second.source, "source 1");
  EXPECT_EQ(store->summary_tokens(second), (std::vector<std::int32_t>{201, 202, 203, 204}));
  EXPECT_EQ(store->summary_text(second), "summary 1 of 0");
  EXPECT_EQ(store->document_tokens(second), 10);
  std::vector<std::int32_t> tokens(3);
  store->read_document(second, 7, tokens);
  EXPECT_EQ(tokens, (std::vector<std::int32_t>{7, 8, 9}));
  EXPECT_THROW(store->read_document(second, 8, tokens), Error);
  EXPECT_EQ(store->document_of(store->examples()[2]).name, "document 1");
}

TEST(ExampleStore, IsAlsoAPlainCorpusOfItsDocuments) {
  const TempFolder folder;
  example_store(folder / "a.h5", {{10, {3, 4}}, {5, {2}}});
  const auto plain = TokenStore::open(folder / "a.h5");
  EXPECT_TRUE(plain->has_examples());
  EXPECT_EQ(plain->tokens(), 10 + 5 + 4);
  EXPECT_EQ(plain->read(plain->documents()[1]),
            (std::vector<std::int32_t>{256, 100, 101, 102, 103, 104, 256}));
}

TEST(ExampleStore, RefusesAPlainCorpusAndDamage) {
  const TempFolder folder;
  small_store(folder / "plain.h5", {10});
  EXPECT_THAT(message_of<DataError>([&] { ExampleStore::open(folder / "plain.h5"); }),
              HasSubstr("plain.h5: is a plain corpus, its documents have no summaries; expected "
                        "examples, which `infini prepare --format booksum` makes"));
  example_store(folder / "a.h5", {{10, {3}}});
  std::string bytes = read_file(folder / "a.h5");
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  put_file(folder / "a.h5", bytes);
  EXPECT_THAT(message_of<DataError>([&] { ExampleStore::open(folder / "a.h5"); }),
              HasSubstr("this token store is damaged"));
}

TEST(ExampleStore, WriterRefusesForeignIdsAndLeavesNothingUnfinished) {
  const TempFolder folder;
  const ByteTokenizer bytes;
  {
    ExampleStoreWriter writer(folder / "a.h5", bytes, "train");
    const std::vector<std::int32_t> good{1, 2}, beyond{257};
    writer.add_document("d", 2, 1, good);
    EXPECT_THROW(writer.add_example(0, SummaryLevel::kBook, {}, beyond), DataError);
    EXPECT_THROW(writer.add_example(1, SummaryLevel::kBook, {}, good), Error);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace infini
