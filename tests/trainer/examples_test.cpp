// Training on documents with summaries, and what `infini evaluate` says of them.
#include "data/example_source.h"
#include "tests/data/example_fixtures.h"
#include "tests/trainer/program.h"
#include "tests/trainer/tiny_run.h"
#include "trainer/rows.h"
#include "trainer/summary_loss.h"

namespace infini {
namespace {

using ::testing::HasSubstr;

const std::vector<DocumentShape> kShapes = {{40, {3, 5}}, {12, {4}},    {70, {6, 1}}, {3, {2}},
                                            {25, {3, 4}}, {60, {7, 2}}, {8, {2}},     {33, {5}}};

struct Trained {
  double loss = 0;
  std::vector<double> gradients;
  std::vector<std::vector<double>> memories;  // of each layer: matrix, normaliser
};

Trained train(InfiniTransformer& model, const SequenceBatch& batch,
              const RecurrenceOptions& options) {
  model.parameters().zero_gradients();
  const RowsResult result =
      Recurrence(model, options)
          .train(rows_of(batch, 0, batch.rows), empty_memories(model.config()), 1, {.seed = 1});
  Trained trained{.loss = result.loss.to_vector<double>()[0],
                  .gradients = model.parameters().gradients().to_vector<double>(),
                  .memories = {}};
  for (const MemoryState& state : result.memory)
    for (const Tensor& tensor : {state.matrix, state.normalizer})
      trained.memories.push_back(tensor.to_vector<double>());
  return trained;
}

// One example as a row that ends with it.
SequenceBatch alone(const ExampleRows::Row& row, std::int64_t segment) {
  SequenceBatch batch =
      padded_batch(1, static_cast<std::int64_t>(row.tokens.size()) - 1, segment, 0);
  batch.tokens.assign(row.tokens.begin(), row.tokens.end() - 1);
  std::copy(row.tokens.begin() + row.summary_begin, row.tokens.end(),
            batch.targets.begin() + row.summary_begin - 1);
  std::ranges::fill(batch.keep, std::uint8_t{1});
  batch.resets[0] = 1;
  finish_batch(batch);
  return batch;
}

// Losses, gradients and memories of a padded batch are those of its rows by themselves.
TEST(ExampleTraining, LeavesNoTraceOfPadding) {
  const TempFolder folder;
  const auto store = example_store(folder / "train.h5", kShapes);
  const ExamplesConfig config{.prompt = "AB", .sorted_steps = 1};
  const ExampleSource source(store, config, {4, 80, 8}, 5);
  const ExampleRows rows(store, config);
  const SequenceBatch batch = source.batch(0);
  const std::vector<std::int64_t> examples = source.examples_of(0);
  ASSERT_GT(rows.row_tokens(examples.front(), 0), rows.row_tokens(examples.back(), 0) + 16)
      << "a row should end segments before another";

  for (const char* memory : {"linear", "delta"})
    for (const RowSchedule schedule : {RowSchedule::kParallel, RowSchedule::kStreaming}) {
      SCOPED_TRACE(text(memory, ", schedule ", static_cast<int>(schedule)));
      const RecurrenceOptions options{.schedule = schedule, .segments_per_tape = 2};
      InfiniTransformer model = far_model_of({text("model.memory=", memory)});
      const Trained together = train(model, batch, options);
      Trained sum{.loss = 0,
                  .gradients = std::vector<double>(together.gradients.size()),
                  .memories = std::vector<std::vector<double>>(together.memories.size())};
      for (const std::int64_t example : examples) {
        const Trained one = train(model, alone(rows.row(example, 0), 8), options);
        sum.loss += one.loss;
        for (std::size_t i = 0; i < one.gradients.size(); ++i) sum.gradients[i] += one.gradients[i];
        for (std::size_t i = 0; i < one.memories.size(); ++i)
          sum.memories[i].insert(sum.memories[i].end(), one.memories[i].begin(),
                                 one.memories[i].end());
      }
      EXPECT_NEAR(together.loss / sum.loss, 1, 1e-13);
      EXPECT_LE(relative_error(together.gradients, sum.gradients), 1e-12);
      for (std::size_t i = 0; i < sum.memories.size(); ++i)
        EXPECT_LE(relative_error(together.memories[i], sum.memories[i]), 1e-13) << i;
    }
}

const std::vector<std::string> kTinyExamples = {
    "data.source=examples",    "data.store=examples",          "data.row_tokens=80",
    "data.examples.prompt=A",  "data.examples.sorted_steps=2", "optim.kind=adamw",
    "optim.learning_rate=0.01"};

TEST(ExampleTraining, LowersTheLossOfSummaries) {
  const TempFolder folder;
  const auto store = example_store(folder / "train.h5", kShapes);
  std::vector<std::string> overrides = kTinyExamples;
  overrides.push_back("train.steps=60");
  const RunConfig config = tiny_config(overrides);
  Training training = training_of(config, store->documents());
  const ExampleRows rows(store, config.data.examples);
  const double before = measure_summaries(training.model(), rows, {}).all().perplexity();
  for (int step = 0; step < 60; ++step) training.step();
  const double after = measure_summaries(training.model(), rows, {}).all().perplexity();
  EXPECT_GT(before, 150);  // of 257 ids
  EXPECT_LT(after, before / 5);
}

class SummaryLoss : public ::testing::Test {
 protected:
  TempFolder folder_;
  std::shared_ptr<const ExampleStore> store_ = example_store(folder_ / "test.h5", kShapes);
  ExampleRows rows_{store_, {.prompt = "AB", .summary_tokens = 5}};
};

TEST_F(SummaryLoss, IsThatOfTheSummariesByLevel) {
  for (const char* memory : {"linear", "delta"})
    for (const std::int64_t document_tokens : {0, 20}) {
      InfiniTransformer model = far_model_of({text("model.memory=", memory)});
      std::array<SummaryLossReport::Part, 2> direct;
      for (std::int64_t i = 0; i < rows_.size(); ++i) {
        const SequenceBatch row = alone(rows_.row(i, document_tokens), 8);
        auto& part =
            direct[static_cast<std::size_t>(store_->examples()[static_cast<std::size_t>(i)].level)];
        ++part.examples;
        part.tokens += row.scored_tokens;
        part.nll += train(model, row, {}).loss;
      }
      for (const std::int64_t at_once : {1, 3, 100}) {
        const SummaryLossReport report = measure_summaries(
            model, rows_, {.segments_at_once = at_once, .document_tokens = document_tokens});
        for (std::size_t level = 0; level < 2; ++level) {
          EXPECT_EQ(report.levels[level].examples, direct[level].examples);
          EXPECT_EQ(report.levels[level].tokens, direct[level].tokens);
          EXPECT_NEAR(report.levels[level].nll / direct[level].nll, 1, 1e-12)
              << memory << ", " << document_tokens << ", " << at_once;
        }
      }
    }
}

TEST_F(SummaryLoss, OfSharesAddsUpToThatOfAll) {
  const InfiniTransformer model = far_model_of();
  const auto all = measure_summaries(model, rows_, {}).all();
  SummaryLossReport::Part sum;
  for (int share = 0; share < 3; ++share) {
    const auto part = measure_summaries(model, rows_, {.share = share, .shares = 3}).all();
    sum.examples += part.examples;
    sum.tokens += part.tokens;
    sum.nll += part.nll;
  }
  EXPECT_EQ(sum.examples, all.examples);
  EXPECT_EQ(sum.tokens, all.tokens);
  EXPECT_NEAR(sum.nll / all.nll, 1, 1e-12);
}

TEST(SummaryLossMemory, DoesNotGrowWithTheDocument) {
  const TempFolder folder;
  const ModelConfig config{.layers = 1,
                           .d_model = 16,
                           .heads = 2,
                           .feed_forward = 32,
                           .vocabulary = 257,
                           .segment_tokens = 256};
  InfiniTransformer model(config, DType::kFloat32, Device::kCpu);
  model.parameters().initialise(1);
  const auto peak = [&](int tokens) {
    const ExampleRows rows(example_store(folder / text(tokens, ".h5"), {{tokens, {100}}}), {});
    release_cached(Device::kCpu);
    reset_peak(Device::kCpu);
    EXPECT_EQ(measure_summaries(model, rows, {}).read_tokens, tokens + 10 + 100 + 1);
    return static_cast<double>(memory_statistics(Device::kCpu).peak_bytes);
  };
  const double shorter = peak(65'536), longer = peak(500'000);
  EXPECT_NEAR(longer / shorter, 1, 0.05);
}

class ExamplesInTheProgram : public ProgramTest {
 protected:
  void SetUp() override {
    write("run.yaml", kTinyRun);
    for (const char* split : {"train", "validation", "test"})
      example_store(path("examples") / text(split, ".h5"), kShapes);
    tiny_store(path("data"), kTinyLengths);
    for (const std::string& key : kTinyExamples) overrides_ += " " + key;
  }
  std::string overrides_;
};

TEST_F(ExamplesInTheProgram, AreTrainedOnMeasuredAndEvaluated) {
  expect_done("train run.yaml evaluate.every=3" + overrides_);
  int measured = 0;
  for (const nlohmann::json& line : metrics("run"))
    measured += line.contains("validation_summary_perplexity");
  EXPECT_EQ(measured, 2);
  expect_done("evaluate run --output figures.json evaluate.document_tokens=50");
  const auto figures = nlohmann::json::parse(content("figures.json"));
  EXPECT_EQ(figures.at("examples"), 12);
  EXPECT_EQ(figures.at("by_level").at("book").at("examples"), 8);
  EXPECT_EQ(figures.at("by_level").at("chapter").at("examples"), 4);
  EXPECT_EQ(figures.at("tokens"), 3 + 5 + 4 + 6 + 1 + 2 + 3 + 4 + 7 + 2 + 2 + 5 + 12);
  expect_done("evaluate run --memory-off --split validation");
  // The same file is a plain corpus of its documents.
  expect_done("evaluate run data.source=store --output documents.json");
  EXPECT_EQ(nlohmann::json::parse(content("documents.json")).at("documents"), 8);
  expect_done("train run.yaml directory=plain data.store=examples");
  expect_done("evaluate plain data.source=examples");
}

TEST_F(ExamplesInTheProgram, AreRefusedWhereTheyAreNone) {
  expect_refused("train run.yaml" + overrides_ + " data.store=data", 3,
                 "train.h5: is a plain corpus, its documents have no summaries");
  expect_refused("train run.yaml" + overrides_ + " data.sampler=lanes", 2,
                 "data.sampler is lanes, but examples are rows of their own");
  expect_refused("train run.yaml" + overrides_ + " data.row_tokens=84", 2,
                 "data.row_tokens = 84 is not divisible by 1 parts of segments of 8");
  expect_refused("prepare --input data --format booksum --output out", 3,
                 "data: holds no summaries; looked for alignments/");
  expect_refused("prepare --input data --level book --output out", 2,
                 "level chooses among the summaries of format booksum");
}

TEST_F(ExamplesInTheProgram, ArePreparedFromFilesOfWhichSomeAreMissing) {
  write("corpus/books/train.jsonl", "{\"text\": \"A book.\", \"summary\": [\"One.\", \"Two.\"]}\n");
  const Outcome lists =
      infini("prepare --input corpus --format booksum --tokenizer byte --output lists");
  EXPECT_EQ(lists.code, 0) << lists.said;
  EXPECT_THAT(lists.said, HasSubstr("2 examples, 8 tokens of summary; book 2 of 2"));
  write("tree/alignments/book-level-summary-alignments/a_train.jsonl",
        "{\"book_path\": \"a.txt\", \"summary_path\": \"b.json\", \"source\": \"s\"}\n"
        "{\"book_path\": \"a.txt\", \"summary_path\": \"c.json\", \"source\": \"s\"}\n");
  write("tree/a.txt", "A book.");
  write("tree/b.json", "{\"summary\": \"One.\"}");
  const Outcome tree = infini("prepare --input tree --format booksum --tokenizer byte --output t");
  EXPECT_EQ(tree.code, 0) << tree.said;
  EXPECT_THAT(tree.said, HasSubstr("book 1 of 2; 1 missing file, 1 example without them"));
  EXPECT_THAT(tree.said, HasSubstr("missing: c.json"));
  EXPECT_THAT(tree.said, HasSubstr("all listed in t/missing.txt"));
  EXPECT_EQ(content("t/missing.txt"), "train\tc.json\n");
}

}  // namespace
}  // namespace infini
