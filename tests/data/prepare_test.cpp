#include "data/prepare.h"

#include <chrono>
#include <thread>

#include "data/durable_file.h"
#include "data/passkey.h"
#include "data/token_store.h"
#include "tensor/error.h"
#include "tests/data/compressed_files.h"
#include "tests/data/fixtures.h"

namespace infini {
namespace {

using testing::HasSubstr;

void put_corpus(const TempFolder& folder) {
  for (std::uint64_t i = 0; i < 30; ++i)
    put_file(folder / ("corpus/train/" + std::to_string(i) + ".txt"),
             passkey_text(std::to_string(i), static_cast<std::int64_t>(i), 2) +
                 random_text(i, 40, true));
  put_file(folder / "corpus/train/empty.txt", "");
  put_file(folder / "corpus/validation/v.txt", "The book of memory.\n");
}

PrepareOptions options(const TempFolder& folder, const std::string& output, int threads) {
  return {.corpus = folder / "corpus",
          .output = folder / output,
          .vocabulary = 600,
          .threads = threads};
}

TEST(Prepare, StoresEveryDocumentLosslessly) {
  const TempFolder folder;
  put_corpus(folder);
  int calls = 0;
  const auto report = prepare(options(folder, "out", 2), [&](const PrepareProgress&) { ++calls; });
  EXPECT_GT(calls, 30);
  ASSERT_EQ(report.splits.size(), 2u);
  EXPECT_EQ(report.splits[0].documents, 30);
  EXPECT_EQ(report.splits[0].read.empty, 1);
  EXPECT_EQ(report.splits[1].words, 4);

  const auto store = TokenStore::open(folder / "out/train.h5");
  EXPECT_EQ(store->tokenizer().hash(), read_tokenizer(folder / "out/tokenizer.model")->hash());
  EXPECT_EQ(store->documents().size(), 30u);
  EXPECT_EQ(store->tokens(), report.splits[0].tokens + 2 * 30);
  EXPECT_EQ(store->bytes(), report.splits[0].bytes);
  EXPECT_EQ(store->words(), report.splits[0].words);
  for (const StoredDocument& document : store->documents()) {
    const std::string text = read_file(folder / ("corpus/" + document.name));
    EXPECT_EQ(store->tokenizer().decode(store->read(document)), text) << document.name;
    EXPECT_EQ(document.bytes, static_cast<std::int64_t>(text.size()));
  }
}

TEST(Prepare, WritesTheSameBytesWhateverTheThreadsAndTheTime) {
  const TempFolder folder;
  put_corpus(folder);
  prepare(options(folder, "one", 1));
  std::this_thread::sleep_for(
      std::chrono::milliseconds(1100));  // no time stamps of a second's resolution
  prepare(options(folder, "two", 2));
  for (const char* name : {"train.h5", "validation.h5", "tokenizer.model"})
    EXPECT_EQ(hash_file(folder / "one" / name), hash_file(folder / "two" / name)) << name;
}

TEST(Prepare, WritesTheSameBytesWhateverTheCompression) {
  const TempFolder folder;
  std::vector<std::string> lines;
  for (std::uint64_t i = 0; i < 40; ++i)
    lines.push_back("{\"meta\": {\"arxiv_id\": \"" + std::to_string(i) +
                    "\"}, \"text\": " + json_string(random_text(i, 80, i % 2)) + "}\n");
  const std::string whole = std::accumulate(lines.begin(), lines.end(), std::string());
  put_file(folder / "plain/a.jsonl", whole);
  put_file(folder / "no-end/a.jsonl", whole.substr(0, whole.size() - 1));
  put_file(folder / "gz/a.jsonl.gz", gzip(whole));
  put_file(folder / "zst/a.jsonl.zst", zstd(whole));
  std::string members, frames, odd;
  for (const std::string& line : lines) {
    members += gzip(line.substr(0, line.size() / 2)) + gzip(line.substr(line.size() / 2));
    frames += zstd(line.substr(0, line.size() / 3)) + zstd(line.substr(line.size() / 3));
    odd += "\r\n" + line.substr(0, line.size() - 1) + " \r\n";
  }
  put_file(folder / "members/a.jsonl.gz", members);
  put_file(folder / "frames/a.jsonl.zst", frames);
  put_file(folder / "odd/a.json", odd);
  for (std::size_t i = 0; i < lines.size(); ++i)  // a file each, their names in order
    put_file(folder / ("files/" + std::to_string(100 + i) + (i % 2 ? ".jsonl.gz" : ".jsonl.zst")),
             i % 2 ? gzip(lines[i]) : zstd(lines[i]));
  const auto hash = [&](const std::string& corpus) {
    prepare({.corpus = folder / corpus,
             .output = folder / "out",
             .tokenizer = TokenizerKind::kByte,
             .threads = 2});
    return hash_file(folder / "out/train.h5");
  };
  const std::uint64_t plain = hash("plain");
  EXPECT_EQ(TokenStore::open(folder / "out/train.h5")->documents()[39].name, "39");
  for (const char* corpus : {"no-end", "gz", "zst", "members", "frames", "odd", "files"})
    EXPECT_EQ(hash(corpus), plain) << corpus;
}

TEST(Prepare, SaysWhyNoDocumentIsLeft) {
  const TempFolder folder;
  put_file(folder / "corpus/a.jsonl",
           "{\"text\": \"a\", \"meta\": {\"config\": \"wiki\"}}\n{\"text\": \"\"}\n");
  auto rules = options(folder, "out", 1);
  rules.where = {"config=arxiv"};
  for (const auto kind : {TokenizerKind::kByte, TokenizerKind::kSentencePiece}) {
    rules.tokenizer = kind;
    EXPECT_EQ(message_of<DataError>([&] { prepare(rules); }),
              "prepare: no document of the train split is left: 2 with another `meta` (the first: "
              "config=wiki)");
  }
  rules.where = {"config=arxiv", "config=wiki"};
  EXPECT_THAT(message_of<ConfigError>([&] { prepare(rules); }),
              HasSubstr("where: config is asked for twice"));
}

TEST(Prepare, TakesAGivenTokenizerAndBytes) {
  const TempFolder folder;
  put_corpus(folder);
  prepare(options(folder, "one", 1));
  auto again = options(folder, "two", 1);
  again.tokenizer_file = folder / "one/tokenizer.model";
  EXPECT_EQ(prepare(again).tokenizer_hash,
            TokenStore::open(folder / "one/train.h5")->tokenizer().hash_text());
  auto bytes = options(folder, "three", 1);
  bytes.tokenizer = TokenizerKind::kByte;
  EXPECT_EQ(prepare(bytes).splits[0].bytes_per_token(), 1);
}

TEST(Prepare, RefusesWhatCannotBePrepared) {
  const TempFolder folder;
  EXPECT_THAT(message_of<DataError>([&] { prepare(options(folder, "out", 1)); }),
              HasSubstr("corpus: no such corpus"));
  put_file(folder / "corpus/a.txt", "");
  auto bytes = options(folder, "out", 1);
  bytes.tokenizer = TokenizerKind::kByte;
  EXPECT_EQ(message_of<DataError>([&] { prepare(bytes); }),
            "prepare: no document of the train split is left: 1 without text");
  EXPECT_FALSE(std::filesystem::exists(folder / "out/train.h5"));
  EXPECT_THAT(message_of<ConfigError>([&] { prepare({.output = "x"}); }),
              HasSubstr("corpus must name a folder or a file"));
  put_file(folder / "corpus/a.jsonl", "{\"text\": \"a\"}\n{\n");
  bytes.format = CorpusFormat::kJsonl;
  EXPECT_THAT(message_of<DataError>([&] { prepare(bytes); }),
              HasSubstr("a.jsonl:2: expected a JSON object"));
}

}  // namespace
}  // namespace infini
