// infini generate: samples, stops, states in files, and what it says about itself.
#include <algorithm>
#include <cctype>
#include <set>

#include "data/tokenizer.h"
#include "tests/trainer/program.h"
#include "trainer/generation.h"
#include "trainer/loaded_model.h"

namespace infini {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

const std::string kBook =
    "There is a memory of all that was read before, and it does not grow.\n"
    "What was written once is read many times; it is true, and it is so.\n";

// A model of bytes that was trained for a moment.
class GenerateCommand : public ProgramTest {
 protected:
  void SetUp() override {
    write("corpus/train/a.txt", kBook + kBook);
    write("run.yaml", config("run"));
    write("book.txt", kBook);
    expect_done("prepare --input corpus --output data --tokenizer byte");
    expect_done("train run.yaml");
  }
  static std::string config(const std::string& directory) {
    return "directory: " + directory +
           "\n"
           "device: cpu\n"
           "model: {layers: 2, d_model: 16, heads: 2, segment_tokens: 16, init_deviation: 0.5}\n"
           "data: {source: store, store: data, row_tokens: 32, batch_rows: 2}\n"
           "train: {steps: 3}\n";
  }
  // What stands on stdout.
  std::string said(const std::string& arguments) {
    expect_done("generate " + arguments + " > said.txt");
    return content("said.txt");
  }
  nlohmann::json figures(const std::string& arguments) {
    expect_done("generate " + arguments + " --output figures.json > said.txt");
    return nlohmann::json::parse(content("figures.json"));
  }
};

TEST_F(GenerateCommand, WritesAPromptButNotThatOfAFile) {
  const std::string text = said("run --prompt 'There is' --tokens 30");
  EXPECT_TRUE(text.starts_with("There is") && text.ends_with('\n')) << text;
  write("prompt.txt", "There is");
  EXPECT_EQ("There is" + said("run --prompt-file prompt.txt --tokens 30"), text);
}

TEST_F(GenerateCommand, SamplesAreThoseOfTheLibraryAndTheFirstIsTheOnlyOne) {
  const auto all = figures("run --prompt-file book.txt --samples 5 --tokens 40 --seed 3");
  const std::string shown = content("said.txt");
  const LoadedModel loaded = load_model(path("run"));
  std::vector<std::int32_t> prompt = loaded.tokenizer->encode(kBook);
  prompt.insert(prompt.begin(), loaded.tokenizer->end_of_text());
  Sequence sequence(*loaded.model);
  sequence.give(prompt);
  const auto expected = sample(sequence, 5,
                               {.sampling = {.temperature = 0.8, .top_p = 0.95},
                                .max_tokens = 40,
                                .stop_tokens = {256},
                                .seed = 3});
  ASSERT_EQ(all.at("samples").size(), 5u);
  std::string lines;
  for (std::size_t i = 0; i < 5; ++i) {
    const auto& one = all["samples"][i];
    EXPECT_EQ(one.at("tokens"), expected[i].tokens);
    EXPECT_EQ(one.at("ended_by"), expected[i].tokens.size() == 40 ? "tokens" : "end of text");
    lines += "=== sample " + std::to_string(i + 1) + " of 5 ===\n" +
             loaded.tokenizer->decode(expected[i].tokens) + "\n";
  }
  EXPECT_EQ(shown, lines);
  EXPECT_EQ(said("run --prompt-file book.txt --tokens 40 --seed 3"),
            loaded.tokenizer->decode(expected[0].tokens) + "\n");
  EXPECT_EQ(said("run --prompt-file book.txt --samples 5 --rows-at-once 2 --tokens 40 --seed 3"),
            shown);
}

TEST_F(GenerateCommand, SaysHowFastItWasOnlyWhereAsked) {
  const auto quiet = infini("generate run --prompt-file book.txt --tokens 5 --temperature 0");
  EXPECT_THAT(quiet.said, Not(HasSubstr("tok/s")));
  const auto verbose =
      infini("generate run --prompt-file book.txt --tokens 5 --temperature 0 --verbose");
  EXPECT_THAT(verbose.said,
              ContainsRegex("read 138 tokens in [0-9.]+ s, .* tok/s; wrote [0-9] in [0-9.]+ s, .* "
                            "tok/s; peak .*B\n"));
  const auto statistics =
      figures("run --prompt-file book.txt --tokens 5 --top-k 4").at("statistics");
  EXPECT_EQ(statistics.at("prompt_tokens"), kBook.size() + 1);
  EXPECT_LE(statistics.at("written_tokens"), 5);
  for (const char* name : {"reading_seconds", "reading_tokens_per_second", "writing_seconds",
                           "writing_tokens_per_second", "peak_bytes"})
    EXPECT_GT(statistics.at(name), 0) << name;
}

TEST_F(GenerateCommand, StopsBeforeAText) {
  const std::string all = said("run --prompt It --tokens 60 --seed 4");
  // A letter that it wrote some way in, and where that stands first.
  const auto letter = std::find_if(all.begin() + 8, all.end(),
                                   [](unsigned char byte) { return std::isalnum(byte); });
  ASSERT_NE(letter, all.end());
  const std::string stop(1, *letter);
  const std::string expected = all.substr(0, all.find(stop, 2)) + "\n";
  const std::string arguments = "run --prompt It --tokens 60 --seed 4 --stop ";
  EXPECT_EQ(said(arguments + "nowhere --stop " + stop), expected);
  EXPECT_EQ(figures(arguments + stop).at("samples")[0].at("ended_by"), "stop");
  EXPECT_EQ(said(arguments + "nowhere"), all);
}

TEST_F(GenerateCommand, KeepsATextFromRepeatingItself) {
  const auto tokens = figures("run --prompt It --tokens 150 --temperature 0 --no-repeat-ngram 1")
                          .at("samples")[0]
                          .at("tokens")
                          .get<std::vector<int>>();
  std::set<int> different(tokens.begin(), tokens.end());
  EXPECT_EQ(different.size(), tokens.size());
  EXPECT_GT(tokens.size(), 20u);
  EXPECT_NE(said("run --prompt It --tokens 60 --temperature 0 --repetition-penalty 3"),
            said("run --prompt It --tokens 60 --temperature 0"));
}

TEST_F(GenerateCommand, AStateGoesOnAsIfNothingHadBeenBetween) {
  const std::string whole = said("run --prompt-file book.txt --tokens 50 --seed 9");
  EXPECT_EQ(said("run --prompt-file book.txt --tokens 0 --save-state book.state"), "\n");
  // The book is read once and continued often.
  for (int i = 0; i < 2; ++i)
    EXPECT_EQ(said("run --load-state book.state --tokens 50 --seed 9"), whole);
  // In parts of a text, one after the other in one file.
  write("first.txt", kBook.substr(0, 53));
  write("second.txt", kBook.substr(53));
  said("run --prompt-file first.txt --tokens 0 --save-state parts.state");
  std::string written = said(
      "run --load-state parts.state --prompt-file second.txt --tokens 20 --seed 9 "
      "--save-state parts.state");
  written.pop_back();
  EXPECT_EQ(written + said("run --load-state parts.state --tokens 30 --seed 9"), whole);
  // Samples leave the state after the prompt, which they share.
  said("run --prompt-file book.txt --tokens 9 --samples 3 --save-state shared.state");
  EXPECT_EQ(said("run --load-state shared.state --tokens 50 --seed 9"), whole);
}

TEST_F(GenerateCommand, AStateThatHasEndedNeedsAPrompt) {
  // So hot that the end of text comes soon.
  said("run --prompt It --temperature 1e9 --top-p 1 --tokens 5000 --save-state ended.state");
  expect_refused("generate run --load-state ended.state", 2,
                 "ended.state: its text has come to its end; --prompt gives it something");
  EXPECT_EQ(infini("generate run --load-state ended.state --prompt More --tokens 3").code, 0);
}

TEST_F(GenerateCommand, AStateOfAnotherModelOrADamagedOneIsRefused) {
  said("run --prompt-file book.txt --tokens 0 --save-state book.state");
  write("other.yaml", config("other") + "seed: 8\n");
  expect_done("train other.yaml");
  expect_refused("generate other --load-state book.state", 2,
                 "book.state: was saved with another model: checkpoint ");
  std::string bytes = content("book.state");
  bytes[bytes.size() / 2] ^= 1;
  write("book.state", bytes);
  expect_refused("generate run --load-state book.state", 3, "this state of a text is damaged");
  write("book.state", bytes.substr(0, 1000));
  expect_refused("generate run --load-state book.state", 3,
                 "book.state: is not a complete state of a text");
  expect_refused("generate run --load-state nowhere.state", 3, "nowhere.state: no such state");
}

TEST_F(GenerateCommand, RefusesWhatCannotBe) {
  expect_refused("generate run --samples 0", 2, "samples");
  expect_refused("generate run --repetition-penalty 0", 2,
                 "the repetition penalty must be positive, got 0");
  expect_refused("generate run --no-repeat-ngram -1", 2, "no-repeat-ngram");
  expect_refused("generate run --stop ''", 2, "--stop: an empty text would stop everything");
  expect_refused("generate run --save-state no/such/folder.state", 2,
                 "cannot write no/such/folder.state: there is no folder no/such");
  expect_refused("generate run --output no/such/figures.json", 2,
                 "cannot write no/such/figures.json: there is no folder no/such");
}

}  // namespace
}  // namespace infini
