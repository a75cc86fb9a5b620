// evaluate, score and generate, the program's commands, agree with each other and with the model.
#include <algorithm>
#include <numeric>

#include "data/corpus.h"
#include "model/recurrence.h"
#include "tests/trainer/program.h"
#include "trainer/loaded_model.h"
#include "trainer/perplexity.h"

namespace infini {
namespace {

const std::string kBook =
    "There is a memory of all that was read before, and it does not grow.\n"
    "What was written once is read many times; na\xC3\xAFve, but true.\n";

// A model of bytes, trained for a moment in fp64 and far from a uniform guess.
class TrainedOnBytes : public ProgramTest {
 protected:
  void SetUp() override {
    write("corpus/train/a.txt", kBook + kBook + "A first book.\n");
    write("corpus/train/b.txt", "A second book. " + kBook);
    write("corpus/test/c.txt", kBook);
    write("run.yaml",
          "directory: run\n"
          "model: {layers: 1, d_model: 16, heads: 2, segment_tokens: 16, init_deviation: 0.5}\n"
          "data: {source: store, store: data, row_tokens: 32, batch_rows: 2}\n"
          "train: {steps: 5, compute: fp64}\n"
          "evaluate: {segments_at_once: 3}\n");
    expect_done("prepare --input corpus --output data --tokenizer byte");
    expect_done("train run.yaml");
  }
  nlohmann::json evaluated(const std::string& options) {
    expect_done("evaluate run --output figures.json " + options);
    return nlohmann::json::parse(content("figures.json"));
  }
  // What follows the prompt, which is not repeated, without the newline at the end.
  std::string generated(const std::string& prompt, const std::string& options) {
    write("prompt.txt", prompt);
    expect_done("generate run --prompt-file prompt.txt " + options + " > text.txt");
    const std::string all = content("text.txt");
    EXPECT_TRUE(all.ends_with('\n')) << all;
    return all.substr(0, all.size() - 1);
  }
};

TEST_F(TrainedOnBytes, ScoresAddUpToWhatEvaluateReports) {
  for (const std::string memory : {"", "--memory-off "}) {
    expect_done("score run --input corpus/test/c.txt --output scores.jsonl " + memory);
    std::ifstream lines(path("scores.jsonl"));
    double sum = 0;
    std::string written;
    std::size_t count = 0;
    for (std::string line; std::getline(lines, line); ++count) {
      const auto score = nlohmann::json::parse(line);
      EXPECT_EQ(score.at("position"), count);
      EXPECT_EQ(score.at("segment"), count / 16);
      EXPECT_LE(score.at("log_probability").get<double>(), 0);
      sum -= score.at("log_probability").get<double>();
      written += static_cast<char>(score.at("token").get<int>());
    }
    EXPECT_EQ(written, kBook);
    // evaluate also scores the end of text, which score was not given.
    const auto figures =
        evaluated(memory + "evaluate.document_tokens=" + std::to_string(kBook.size()));
    EXPECT_EQ(figures.at("tokens"), count);
    EXPECT_NEAR(sum / figures.at("nll").get<double>(), 1, 1e-12);
  }
}

TEST_F(TrainedOnBytes, EvaluateDividesByTheWordsItIsGiven) {
  const auto counted = evaluated(""), given = evaluated("--words 1000");
  const double nll = counted.at("nll").get<double>();
  EXPECT_EQ(counted.at("words"), (Document{{}, {}, kBook}.words()));
  EXPECT_EQ(given.at("words"), 1000);
  EXPECT_DOUBLE_EQ(given.at("word_perplexity").get<double>(), std::exp(nll / 1000));
  EXPECT_DOUBLE_EQ(given.at("byte_perplexity").get<double>(),
                   std::exp(nll / static_cast<double>(kBook.size())));
  expect_refused("evaluate run --words 1000 evaluate.document_tokens=9", 2,
                 "--words counts whole documents, but evaluate.document_tokens is 9");
  expect_refused("evaluate run --words -1", 2, "--words");
}

TEST_F(TrainedOnBytes, EvaluateReportsTheModelOfTheCheckpoint) {
  LoadedModel loaded = load_model(path("run"));
  const auto store = TokenStore::open(path("data/test.h5"));
  for (const bool memory : {true, false}) {
    loaded.model->use_memory(memory);
    const PerplexityReport report =
        measure_perplexity(*loaded.model, *store, {.segments_at_once = 3});
    const auto figures = evaluated(memory ? "" : "--memory-off");
    EXPECT_EQ(figures, nlohmann::json::parse(perplexity_json(report)));
    EXPECT_EQ(figures.at("bytes"), kBook.size());
    EXPECT_EQ(figures.at("words"), 26);
  }
}

TEST_F(TrainedOnBytes, GenerationAtTemperatureZeroIsTheMostLikelyTokenOfOnePassOverAllText) {
  const std::string prompt = kBook.substr(0, 75);  // four full segments and a part
  const std::string text = generated(prompt, "--temperature 0 --tokens 40");
  ASSERT_FALSE(text.empty());

  const LoadedModel loaded = load_model(path("run"));
  std::vector<std::int32_t> tokens = loaded.tokenizer->encode(prompt + text);
  tokens.insert(tokens.begin(), loaded.tokenizer->end_of_text());
  const auto count = static_cast<std::int64_t>(tokens.size());
  const Rows row{.segment_tokens = 16,
                 .tokens = Tensor::of(tokens, {1, count}),
                 .targets = Tensor::of(tokens, {1, count}),
                 .weights = {},
                 .resets = {},
                 .keep = {}};
  std::vector<std::int32_t> most_likely;
  Recurrence(*loaded.model, {})
      .forward(
          row, empty_memories(loaded.config.model), 3, [&](const Piece&, const Tensor& hidden) {
            const auto logits = loaded.model->logits(hidden).to_vector<double>();
            for (auto at = logits.begin(); at != logits.end(); at += 257)
              most_likely.push_back(static_cast<std::int32_t>(std::max_element(at, at + 257) - at));
          });
  for (std::size_t t = prompt.size(); t + 1 < tokens.size(); ++t)
    EXPECT_EQ(tokens[t + 1], most_likely[t]) << "token " << t + 1;
  if (text.size() < 40) {
    EXPECT_EQ(most_likely.back(), 256);  // stopped at the end of text
  }
}

TEST_F(TrainedOnBytes, TheSameSeedGeneratesTheSameText) {
  const std::string once = generated("There", "--tokens 60 --seed 7");
  EXPECT_EQ(generated("There", "--tokens 60 --seed 7"), once);
  EXPECT_NE(generated("There", "--tokens 60 --seed 8"), once);
  EXPECT_EQ(generated("There", "--tokens 20 --seed 7"), once.substr(0, 20));
}

TEST_F(TrainedOnBytes, GenerationStopsAtTheEndOfText) {
  // So hot that all 257 tokens are about equally likely.
  const std::string text = generated("There", "--temperature 1e9 --top-p 1 --tokens 5000");
  EXPECT_GT(text.size(), 0u);
  EXPECT_LT(text.size(), 5000u);
}

TEST_F(TrainedOnBytes, ImpossibleRequestsAreRefused) {
  expect_refused("generate run --prompt a --prompt-file run.yaml", 2, "not both");
  expect_refused("generate run --top-p 1.5", 2, "1.5");
  expect_refused("generate run --temperature -1", 2, "temperature");
  expect_refused("generate run --tokens -1", 2, "tokens");
  expect_refused("generate run --prompt-file nowhere.txt", 2, "cannot read nowhere.txt");
  expect_refused("score run --input nowhere.txt", 2, "cannot read nowhere.txt");
  write("empty.txt", "");
  expect_refused("score run --input empty.txt", 3, "empty.txt: no text to score");
  expect_refused("score run --input run.yaml --output no/such/folder.jsonl", 2,
                 "cannot write no/such/folder.jsonl");
}

using TrainedOnPasskeys = ProgramTest;

TEST_F(TrainedOnPasskeys, EvaluateRepeatsTheTableAndGenerateWritesWords) {
  write("run.yaml",
        "directory: run\n"
        "model: {layers: 1, d_model: 16, heads: 2, segment_tokens: 80}\n"
        "data: {batch_rows: 1, passkey: {row_segments: [1]}}\n"
        "train: {steps: 1}\n"
        "evaluate: {passkey: {prompts: 1, row_segments: [1]}}\n");
  expect_done("train run.yaml");
  expect_done("evaluate run --output again.json");
  EXPECT_EQ(content("again.json"), content("run/passkey.json"));

  expect_done(
      "generate run --prompt 'The grass is' --temperature 1e9 --top-p 1 --tokens 40 > text.txt");
  std::string text = content("text.txt");
  text.pop_back();
  const LoadedModel loaded = load_model(path("run"));
  EXPECT_EQ(loaded.tokenizer->decode(loaded.tokenizer->encode(text)), text);
}

}  // namespace
}  // namespace infini
