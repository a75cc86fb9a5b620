// Bad settings, corpora, stores and checkpoints, given to the program: each has an answer that says
// what is wrong, and an exit code that says whose mistake it was (2 the user's, 3 damaged data).
#include "tests/trainer/program.h"
#include "tests/trainer/tiny_run.h"
#include "trainer/directory_lock.h"

namespace infini {
namespace {

using ::testing::HasSubstr;

class BadSettings : public ProgramTest {
 protected:
  void SetUp() override {
    write("run.yaml", kTinyRun);
    tiny_store(path("data"), kTinyLengths);
  }
};

TEST_F(BadSettings, ThatDoNotFitEachOtherExitWith2BeforeAnythingIsWritten) {
  const auto refused = [&](const std::string& overrides, const std::string& message) {
    expect_refused("train run.yaml " + overrides, 2, message);
  };
  refused("model.segment_tokens=64",
          "model.segment_tokens = 64 is longer than a row, data.row_tokens = 16");
  refused("model.d_model=18 model.heads=4",
          "model.d_model = 18 is not divisible by model.heads = 4; give model.d_head");
  refused("model.kv_heads=3", "model.heads = 2 is not divisible by model.kv_heads = 3");
  refused("model.vocabulary=100", "model.vocabulary is 100, but the data has token ids up to 256");
  refused("train.accumulate=3", "data.batch_rows = 4 is not divisible by train.accumulate = 3");
  refused("data.sampler=lanes data.row_tokens=20", "data.row_tokens must be a multiple");
  refused("data.sampler=lanes data.batch_rows=8", "the store has only 7 documents");
  refused("data.store=elsewhere", "elsewhere/train.h5 does not exist; `infini prepare` makes it");
  refused("data.store=''", "data.store must name the folder of a prepared corpus");
  refused("model.memory=deep", "model.memory is \"deep\", expected linear or delta or none");
  refused("optim.learning_rate=-1", "optim.learning_rate");
  refused("optim.learning_rate=.inf", "optim.learning_rate must be finite, got inf");
  refused("model.d_model=2000000000", "model.d_model must be at most 4194304, got 2000000000");
  refused("model.heads=1000000 model.d_head=1000000",
          "model.heads = 1000000 of model.d_head = 1000000 are 1000000000000 columns");
  refused("model.segment_tokens=4611686018427387904", "model.segment_tokens must be at most");
  refused("data.row_tokens=4611686018427387904", "data.row_tokens must be at most 1099511627776");
  refused("data.source=passkey 'data.passkey.row_segments=[1099511627776]'",
          "data.passkey.row_segments: 1099511627776 segments of 8 tokens are more than");
  refused("model.memory_eps=.inf", "model.memory_eps must be finite, got inf");
  refused("parallel.tensor=65536 parallel.segment=65536",
          "parallel.tensor = 65536 times parallel.segment = 65536 is 4294967296");
  refused("parallel.segment=2000000000",
          "parallel.segment must be from 1 to 1048576, got 2000000000");
  refused("'optim.groups=[{pattern: gate, rate: 1}]'", "unknown key optim.groups[0].rate");
  refused("--resume", "--resume: run holds no checkpoint");
  refused("--stop-after -1", "stop-after");
  refused("directory=", "directory must name where the run writes");
  refused("directory=run.yaml", "directory: cannot make run.yaml: ");
  refused("evaluate.every=2", "data/validation.h5 does not exist");  // not only when it is due
  EXPECT_FALSE(std::filesystem::exists(path("run")));
}

TEST_F(BadSettings, APlaceThatIsNoRunExitsWith2) {
  write("folder/file.txt", "text");
  for (const std::string command : {"evaluate", "score", "generate"}) {
    expect_refused(command + " nowhere", 2, "nowhere: no such checkpoint or run");
    expect_refused(command + " folder", 2,
                   "folder is neither a checkpoint nor a run that holds one");
  }
  expect_done("train run.yaml");
  expect_refused("evaluate run --split tset", 2, "data/tset.h5 does not exist");
  expect_refused("evaluate run --split train model.d_model=32", 2, "a checkpoint of another model");
  expect_refused("evaluate run --split train model.layers=1", 2,
                 "run/checkpoints/step-00000006: has blocks.1.attention.query.weight, which this "
                 "model does not; it is a checkpoint of another model");
}

TEST_F(BadSettings, PreparedStoresAreOfOneCallOfOneProcess) {
  write("corpus/train/a.txt", "One text.");
  write("corpus/test/b.txt", "Another.");
  expect_done("prepare --input corpus --output stores --tokenizer byte");
  expect_done("prepare --input corpus --output stores --tokenizer byte");
  const std::string test = content("stores/test.h5");
  expect_refused("prepare --input corpus/train --output stores --tokenizer byte", 2,
                 "stores: holds test.h5, which is not of this corpus and tokenizer");
  write("stores/tokenizer.json", "{}");
  expect_refused("prepare --input corpus --output stores --tokenizer byte", 2,
                 "stores: holds tokenizer.json, which is not of this corpus");
  const DirectoryLock held = DirectoryLock::take("a test", path("stores"));
  expect_refused("prepare --input corpus --output stores --tokenizer byte", 2,
                 "another process is writing to stores");
  EXPECT_EQ(content("stores/test.h5"), test);
}

class BadText : public ProgramTest {
 protected:
  std::vector<StoredDocument> documents(const std::string& split) const {
    return TokenStore::open(path("data/" + split + ".h5"))->documents();
  }
};

TEST_F(BadText, ThatIsNotThereExitsWith2) {
  expect_refused("prepare --input nowhere --output data", 2, "nowhere: no such corpus");
  expect_refused("prepare --output data", 2, "--input is required");
  EXPECT_FALSE(std::filesystem::exists(path("data")));
}

TEST_F(BadText, OfWhichTheStoreFindsNoRoomExitsWith4) {
  write("corpus/a.txt", std::string(100'000, 'a'));
  const Outcome outcome = shell(
      "trap '' XFSZ; ulimit -f 16; $infini prepare --input corpus --output data --tokenizer byte");
  EXPECT_EQ(outcome.code, 4) << outcome.said;
  EXPECT_THAT(outcome.said, HasSubstr("data/train.h5.tmp: cannot be written"));
  EXPECT_THAT(outcome.said, HasSubstr("File too large"));
  EXPECT_FALSE(std::filesystem::exists(path("data/train.h5")));
}

TEST_F(BadText, WithoutAnyDocumentExitsWith3) {
  write("corpus/readme.md", "not a text of the corpus");
  expect_refused("prepare --input corpus --output data", 3, "corpus: holds no documents");
  write("corpus/a.jsonl", "{\"text\": \"a\"}\n{\"tex\": \"b\"}\n");
  expect_refused("prepare --input corpus --output data --tokenizer byte", 3,
                 "a.jsonl:2: expected a JSON object with a string `text`");
}

TEST_F(BadText, EmptyFilesAreSkippedAndCounted) {
  write("corpus/a.txt", "A text.");
  write("corpus/b.txt", "");
  write("corpus/c.txt", "Another.");
  const Outcome outcome = infini("prepare --input corpus --output data --tokenizer byte");
  EXPECT_EQ(outcome.code, 0) << outcome.said;
  EXPECT_THAT(outcome.said, ::testing::ContainsRegex("train +2 +1 +15"));
  EXPECT_EQ(documents("train").size(), 2u);
}

TEST_F(BadText, BrokenLinesAreNamedOrSkippedAndCounted) {
  write("corpus/a.jsonl",
        "{\"text\": \"One text.\", \"meta\": {\"config\": \"arxiv\"}}\n{\"text\": \"cut\n"
        "{\"text\": \"Another.\", \"meta\": \"{\\\"config\\\": \\\"wiki\\\"}\"}\n");
  const std::string prepare = "prepare --input corpus --output data --tokenizer byte";
  expect_refused(prepare, 3,
                 "corpus/a.jsonl:2: expected a JSON object with a string `text`, got "
                 "'{\"text\": \"cut' (the line ends within it, after 13 bytes)");
  Outcome outcome = infini(prepare + " --broken skip");
  EXPECT_EQ(outcome.code, 0) << outcome.said;
  EXPECT_THAT(outcome.said, ::testing::ContainsRegex("train +2 +1 +17 +3"));
  EXPECT_THAT(outcome.said, HasSubstr("1 broken line; the first: corpus/a.jsonl:2: expected"));
  outcome = infini(prepare + " --broken skip --where config=wiki");
  EXPECT_EQ(outcome.code, 0) << outcome.said;
  EXPECT_THAT(outcome.said, HasSubstr("1 with another `meta` (the first: config=arxiv), 1 broken"));
  ASSERT_EQ(documents("train").size(), 1u);
  EXPECT_EQ(documents("train")[0].words, 1);
  expect_refused(prepare + " --where config", 2, "where: expected key=value, got 'config'");
  expect_refused(prepare + " --broken keep", 2, "--broken: keep not in {refuse,skip}");
}

TEST_F(BadText, InvalidUtf8IsKeptByteForByte) {
  constexpr char literal[] = "caf\xE9 \xFF\xFE\x80 na\xC3\xAFve \xED\xA0\x80\xF0\x9F\x98 \0 end\n";
  const std::string bytes(literal, sizeof literal - 1);  // with the zero in its middle
  std::string book;
  for (int i = 0; i < 300; ++i) book += "The book of line " + std::to_string(i) + ".\n";
  write("corpus/train/a.txt", book + bytes);
  write("corpus/train/b.txt", bytes);
  for (const std::string tokenizer : {"byte", "sentencepiece --vocabulary 300"}) {
    expect_done("prepare --input corpus --output data --tokenizer " + tokenizer);
    const auto store = TokenStore::open(path("data/train.h5"));
    ASSERT_EQ(store->documents().size(), 2u);
    const auto text_of = [&](int d) {
      return store->tokenizer().decode(store->read(store->documents()[d]));
    };
    EXPECT_EQ(text_of(0), book + bytes) << tokenizer;
    EXPECT_EQ(text_of(1), bytes) << tokenizer;
  }
}

TEST_F(BadText, BooksShorterThanARowAreKeptAndPadded) {
  write("run.yaml", kTinyRun);
  tiny_store(path("data"), {5, 200, 9});
  const Outcome outcome = infini("train run.yaml");
  EXPECT_EQ(outcome.code, 0) << outcome.said;
  EXPECT_THAT(outcome.said, HasSubstr("2 documents are shorter than a row and are padded"));
  EXPECT_EQ(metrics("run").size(), 6u);
  for (const nlohmann::json& line : metrics("run")) EXPECT_TRUE(line.at("loss").is_number());
}

// A finished run over a store of bytes.
class BadStore : public ProgramTest {
 protected:
  void SetUp() override {
    write("run.yaml", kTinyRun);
    tiny_store(path("data"), kTinyLengths);
    expect_done("train run.yaml");
  }
  // The same corpus with another tokenizer, of about as many ids.
  void prepare_with_pieces() {
    std::string book;
    for (int i = 0; i < 300; ++i) book += "The book of line " + std::to_string(i) + ".\n";
    write("corpus/a.txt", book);
    expect_done("prepare --input corpus --output pieces --vocabulary 300");
  }
};

TEST_F(BadStore, OfAnotherTokenizerIsRefused) {
  prepare_with_pieces();
  expect_refused("evaluate run --store pieces --split train", 3,
                 "pieces/train.h5: was made with another tokenizer (sentencepiece, ");
  for (const char* vocabulary : {"", " model.vocabulary=600"})
    expect_refused(
        std::string("train run.yaml --resume data.store=pieces train.steps=8") + vocabulary, 2,
        "run/checkpoints/step-00000006 was trained with another tokenizer");
  EXPECT_EQ(metrics("run").size(), 6u);
}

// Says that it is the byte tokenizer, but has more ids.
class TokenizerWithMoreIds final : public Tokenizer {
 public:
  std::vector<std::int32_t> encode(std::string_view) const override { return {}; }
  std::string decode(std::span<const std::int32_t>) const override { return {}; }
  int vocabulary() const override { return 300; }
  std::int32_t end_of_text() const override { return 256; }
  std::string_view kind() const override { return "byte"; }

 protected:
  std::string definition() const override { return {}; }
};

TEST_F(BadStore, WithTokensBeyondItsVocabularyExitsWith3) {
  std::vector<std::int32_t> tokens(100, 7);
  tokens[50] = 280;
  TokenStoreWriter writer(path("data/test.h5"), TokenizerWithMoreIds(), "test");
  writer.add("a", 100, 1, tokens);
  writer.finish(1);
  const std::string message = "test.h5: token id 280 at 51 is beyond the vocabulary of 257";
  expect_refused("evaluate run", 3, message);
  std::filesystem::rename(path("data/test.h5"), path("data/train.h5"));
  expect_refused("train run.yaml data.row_tokens=90", 3, "token id 280 at 51 is beyond");
}

TEST_F(BadStore, CutOrChangedExitsWith3) {
  const std::string good = content("data/train.h5");
  const auto refused = [&](const std::string& bytes, const std::string& message) {
    write("data/train.h5", bytes);
    expect_refused("train run.yaml", 3, message);
    expect_refused("evaluate run --split train", 3, message);
  };
  refused(good.substr(0, good.size() - 1), "data/train.h5: is not a complete token store");
  refused(good.substr(0, good.size() / 2), "data/train.h5: is not a complete token store");
  refused("", "data/train.h5: is not a complete token store");
  std::string flipped = good;
  flipped[good.size() / 2] = static_cast<char>(flipped[good.size() / 2] ^ 16);
  refused(flipped, "data/train.h5: this token store is damaged");
  EXPECT_FALSE(std::filesystem::exists(path("run-2")));
  write("data/train.h5", good);
  expect_done("evaluate run --split train");
}

}  // namespace
}  // namespace infini
