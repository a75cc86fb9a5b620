// infini passkey says of a model what evaluate says, at any length and place.
#include "data/word_tokenizer.h"
#include "tests/trainer/program.h"
#include "tests/trainer/xml_check.h"
#include "trainer/loaded_model.h"
#include "trainer/passkey_scores.h"

namespace infini {
namespace {

using ::testing::HasSubstr;

// Trained for a moment: it names some digits, by chance.
class PasskeyCommand : public ProgramTest {
 protected:
  void SetUp() override {
    write("run.yaml",
          "directory: run\n"
          "model: {layers: 1, d_model: 16, heads: 2, segment_tokens: 32, init_deviation: 0.5}\n"
          "data: {source: passkey, batch_rows: 4, passkey: {digits: 2, row_segments: [4]}}\n"
          "optim: {kind: adamw, learning_rate: 0.01, warmup_steps: 2}\n"
          "train: {steps: 12}\n"
          "evaluate: {segments_at_once: 3, passkey: {row_segments: [4, 8], prompts: 30}}\n");
    expect_done("train run.yaml");
  }
  nlohmann::json cells(const std::string& options) {
    expect_done("passkey run --output cells.json " + options);
    return nlohmann::json::parse(content("cells.json")).at("cells");
  }
};

TEST_F(PasskeyCommand, SaysWhatEvaluateSays) {
  expect_done("evaluate run --output table.json");
  const auto table = nlohmann::json::parse(content("table.json"));
  const auto measured = cells("--lengths 128,256 --prompts 30");
  ASSERT_EQ(measured.size(), table.size());
  int right = 0;
  for (std::size_t i = 0; i < table.size(); ++i) {
    EXPECT_EQ(measured[i].at("tokens"), 32 * table[i].at("segments").get<int>());
    EXPECT_EQ(measured[i].at("place"), table[i].at("position"));
    for (const char* key : {"memory", "prompts", "exact", "digits", "right_digits"})
      EXPECT_EQ(measured[i].at(key), table[i].at(key)) << key << " of " << table[i];
    right += measured[i].at("right_digits").get<int>();
  }
  EXPECT_GT(right, 0);
}

TEST_F(PasskeyCommand, ScoresDoNotDependOnHowPromptsAreCut) {
  const LoadedModel loaded = load_model(path("run"));
  const WordTokenizer words;
  const PasskeyWriter writer(words, 2);
  std::vector<PasskeyPrompt> prompts;
  for (int i = 0; i < 23; ++i) prompts.push_back(writer.evaluation(1, 301, 0.3, i));
  const PasskeyScore whole = score_passkeys(*loaded.model, prompts, 100);
  EXPECT_EQ(whole.prompts, 23);
  EXPECT_EQ(whole.digits, 46);
  EXPECT_GT(whole.right_digits, 0);
  EXPECT_LT(whole.right_digits, 46);
  for (const std::int64_t at_once : {1, 2, 7}) {
    const PasskeyScore cut = score_passkeys(*loaded.model, prompts, at_once);
    EXPECT_EQ(cut.exact, whole.exact) << at_once;
    EXPECT_EQ(cut.right_digits, whole.right_digits) << at_once;
  }
}

// Pre-trained on a corpus, then fine-tuned on prompts in the same tokens.
TEST_F(PasskeyCommand, FineTunesAModelInItsOwnTokens) {
  write("corpus/train/a.txt", "There and back again. 0123456789 What is the pass key?\n");
  write("lm.yaml",
        "directory: lm\n"
        "model: {layers: 1, d_model: 16, heads: 2, segment_tokens: 32}\n"
        "data: {source: store, store: data, row_tokens: 32, batch_rows: 2}\n"
        "train: {steps: 2}\n");
  expect_done("prepare --input corpus --output data --tokenizer byte");
  expect_done("train lm.yaml");
  write("tune.yaml",
        "init_from: lm\n"
        "directory: tuned\n"
        "data: {source: passkey, batch_rows: 2, passkey: {tokenizer: data/tokenizer.model, "
        "digits: 2, row_segments: [16]}}\n"
        "train: {steps: 2}\n"
        "evaluate: {passkey: {prompts: 2}}\n");
  expect_done("train tune.yaml");
  const LoadedModel lm = load_model(path("lm")), tuned = load_model(path("tuned"));
  EXPECT_EQ(tuned.tokenizer->hash(), lm.tokenizer->hash());
  expect_done("passkey tuned --lengths 512 --prompts 2");
  expect_refused("train tune.yaml directory=other data.passkey.tokenizer=nowhere", 2,
                 "data.passkey.tokenizer: nowhere does not exist");
}

TEST_F(PasskeyCommand, DrawsAMapOfDepths) {
  const auto measured =
      cells("--lengths 100,1K --depths 5 --prompts 3 --memory on --figure map.svg");
  ASSERT_EQ(measured.size(), 10u);
  EXPECT_EQ(measured[0].at("place"), "0%");
  EXPECT_EQ(measured[4].at("place"), "100%");
  EXPECT_EQ(measured[5].at("tokens"), 1024);
  const std::string map = content("map.svg");
  EXPECT_EQ(xml_fault(map), "");
  for (const char* words : {">Exact matches<", ">1K<", ">75%<", ">place of the key<"})
    EXPECT_THAT(map, HasSubstr(words));
}

TEST_F(PasskeyCommand, RefusesWhatItCannotAsk) {
  expect_refused("passkey run --lengths 32Q", 2,
                 "--lengths: 32Q is no length; expected tokens, as 4096, 32K or 1M");
  expect_refused("passkey run --lengths 9999999M", 2, "--lengths: 9999999M is no length");
  expect_refused("passkey run --lengths 20", 2,
                 "passkey: a row of 20 tokens is too short, task, key, question and answer alone");
  expect_refused("passkey run --positions begin", 2, "begin not in {start,middle,end}");
  expect_refused("passkey run --depths 3 --positions end", 2, "excludes");
  expect_refused("passkey nowhere", 2, "nowhere");
}

}  // namespace
}  // namespace infini
