// Table 4 by one command: a model that reads a corpus, fine-tuned on documents with summaries, and
// ROUGE of what it writes by how much it reads.
#include "data/example_store.h"
#include "tests/trainer/program.h"
#include "tests/trainer/tiny_run.h"
#include "tests/trainer/xml_check.h"
#include "trainer/loaded_model.h"
#include "trainer/summaries.h"

namespace infini {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using Json = nlohmann::json;

// Two documents, the first with two summaries.
void write_examples(const fs::path& file, const std::string& split) {
  const ByteTokenizer bytes;
  ExampleStoreWriter writer(file, bytes, split);
  const auto add = [&](const std::string& name, const std::string& text,
                       const std::vector<std::string>& summaries) {
    const std::int64_t document =
        writer.add_document(name, static_cast<std::int64_t>(text.size()), 9, bytes.encode(text));
    for (const std::string& summary : summaries)
      writer.add_example(document, SummaryLevel::kBook, {.source = "us", .text = summary},
                         bytes.encode(summary));
  };
  add("a", "The grass is green and the sky is blue, there and back again.",
      {"Grass is green.", "The sky is blue."});
  add("b", "A second one, shorter.", {"A short one."});
  writer.finish(7);
}

class Summaries : public ProgramTest {
 protected:
  void SetUp() override {
    write("configs/small/run.yaml", kTinyRun);
    write("configs/small/tuned.yaml",
          "seed: 3\n"
          "device: cpu\n"
          "model: {layers: 2, d_model: 16, heads: 2, feed_forward: 32, segment_tokens: 8}\n"
          "data: {source: examples, store: examples, row_tokens: 96, batch_rows: 2}\n"
          "optim: {kind: adamw, learning_rate: 0.01}\n"
          "train: {steps: 3}\n"
          "checkpoint: {every: 0}\n"
          "evaluate: {summaries: {tokens: 20, temperature: 1, top_p: 1}}\n");
    write("configs/small/table4.yaml",
          "title: Summaries\n"
          "kind: summaries\n"
          "corpora: [{name: bytes, title: Bytes, store: data, examples: examples}]\n"
          "rows:\n"
          "  - {name: read, config: run.yaml, overrides: [evaluate.summaries.tokens=5]}\n"
          "  - {name: tuned, title: Tuned, config: tuned.yaml, from: read}\n"
          "summaries:\n"
          "  document_tokens: [16, 0]\n"
          "  quoted: [{title: BART, values: [36.4, 7.6, 15.3, 16.2]}]\n"
          "figures: [summaries]\n");
    tiny_store(path("data"), kTinyLengths);
    fs::create_directories(path("examples"));
    for (const char* split : {"train", "test"})
      write_examples(path(text("examples/", split, ".h5")), split);
  }
};

TEST_F(Summaries, TableFourIsTrainedWrittenAndScored) {
  expect_done("reproduce table4 --scale small --output out");
  const Json cells = Json::parse(content("out/bytes/tuned/seed-1/result.json")).at("summaries");
  ASSERT_EQ(cells.size(), 4U);
  EXPECT_EQ(cells[0].at("document_tokens"), 16);
  EXPECT_EQ(cells[3].at("memory"), false);
  for (const Json& cell : cells) {
    EXPECT_EQ(cell.at("documents"), 2);
    EXPECT_EQ(cell.at("references"), 3);
  }

  // Its figures are those of the command, from the same texts.
  expect_done(
      "evaluate out/bytes/tuned/seed-1 --metric rouge --output whole.json --texts texts "
      "evaluate.summaries.at_once=1");
  const Json whole = Json::parse(content("whole.json"));
  for (const auto& [key, value] : whole.items()) EXPECT_EQ(cells[2].at(key), value) << key;
  for (const char* document : {"0.txt", "1.txt"})
    EXPECT_EQ(content(text("texts/", document)),
              content(text("out/bytes/tuned/seed-1/summaries/whole/", document)));

  const std::string table = content("out/table.md");
  EXPECT_THAT(table, HasSubstr("| BART, quoted | – | 36.4 | 7.6 | 15.3 | – | 16.2 |"));
  EXPECT_THAT(table, HasSubstr("| Tuned, memory off | 16 |"));
  EXPECT_EQ(xml_fault(content("out/summaries-bytes.svg")), "");

  int calls = 1, code = 75;
  for (; calls < 30 && code == 75; ++calls)
    code = infini("reproduce table4 --scale small --output parts --minutes 0.0001").code;
  EXPECT_EQ(code, 0);
  EXPECT_EQ(content("parts/results.json"), content("out/results.json"));
}

TEST_F(Summaries, AreComparedWithEveryReferenceOfTheirDocument) {
  expect_done("train configs/small/tuned.yaml directory=tuned");
  const LoadedModel loaded = load_model(path("tuned"));
  const ExampleRows examples(ExampleStore::open(path("examples/test.h5")),
                             loaded.config.data.examples);
  EvaluateConfig config = loaded.config.evaluate;
  std::vector<std::string> texts(2);
  const SummaryReport report =
      write_summaries(*loaded.model, examples, config, 5, {}, [&](const WrittenSummary& written) {
        texts[static_cast<std::size_t>(written.document)] = written.text;
      });
  EXPECT_NE(texts[0], texts[1]);
  double sum = 0;
  for (const auto& [reference, text] : {std::pair{"Grass is green.", texts[0]},
                                        {"The sky is blue.", texts[0]},
                                        {"A short one.", texts[1]}})
    sum += rouge(reference, text, true)[0].f;
  EXPECT_DOUBLE_EQ(report.stemmed.rouge[0].mean, sum / 3);
  EXPECT_EQ(report.prompt_tokens,
            examples.row(0, 0).summary_begin + examples.row(2, 0).summary_begin);
  config.summaries.documents = 1;
  const SummaryReport first = write_summaries(*loaded.model, examples, config, 5);
  EXPECT_EQ(first.plain.references, 2);
}

TEST_F(Summaries, RefuseWhatHasNone) {
  expect_done("train configs/small/run.yaml");
  expect_refused("evaluate run --metric rouge --split train", 3, "is a plain corpus");
  expect_refused("evaluate run --metric rouge --store examples evaluate.summaries.top_p=0", 2,
                 "evaluate.summaries.top_p must be above 0 and at most 1, got 0");
  write("configs/small/table4.yaml",
        "kind: summaries\n"
        "corpora: [{name: bytes, store: data}]\n"
        "rows: [{name: read, config: run.yaml}]\n");
  expect_refused("reproduce table4 --scale small", 2,
                 "corpora: bytes has no examples, of which kind summaries is");
}

}  // namespace
}  // namespace infini
