// The tokenizer of a Hugging Face directory goes with the model, in and out again.
#include "data/sentencepiece_tokenizer.h"
#include "tests/data/json_tokenizer_fixtures.h"
#include "tests/trainer/pretrained.h"
#include "tests/trainer/program.h"
#include "trainer/config_writer.h"
#include "trainer/export_model.h"
#include "trainer/tensor_buffers.h"

namespace infini {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// A model of 400 token ids in model/, without a tokenizer.
class ImportTokenizer : public ProgramTest {
 protected:
  void SetUp() override {
    const auto config = read_config_text<RunConfig>(
        "seed: 4", "test",
        {"device=cpu", "model.layers=1", "model.d_model=16", "model.heads=2",
         "model.vocabulary=400", "model.feed_forward=24", "model.activation=swiglu"});
    InfiniTransformer model(config.model, DType::kFloat32, Device::kCpu);
    model.parameters().initialise(4);
    TensorBuffers buffers(true);
    for (const Parameter& parameter : model.parameters().all())
      buffers.add(parameter.name, parameter.master);
    save_checkpoint(path("ours"), 1,
                    {.buffers = buffers.list(),
                     .owners = buffers.owners(),
                     .position_json = "{}",
                     .config_yaml = config_yaml(config)});
    EXPECT_EQ(export_model(path("ours"), path("model")).tokenizer, "");
  }
  // Spaced as no program writes it, so that only a copy is equal.
  static std::string odd_json() { return plain_tokenizer_json().dump(1, '\t') + "\n \n"; }
};

TEST_F(ImportTokenizer, ComesBackToTheByte) {
  write("model/tokenizer.json", odd_json());
  const ImportedModel imported = import_model(path("model"), path("in"));
  EXPECT_EQ(imported.tokenizer, "tokenizer.json");
  EXPECT_THAT(imported.notes, IsEmpty());
  const LoadedModel loaded = load_fp32(path("in"));
  ASSERT_TRUE(loaded.tokenizer);
  EXPECT_THAT(loaded.tokenizer->encode(" the"), ElementsAre(258));
  for (const bool with_memory : {false, true}) {
    const fs::path out = path(with_memory ? "all" : "plain");
    EXPECT_EQ(export_model(path("in"), out, {.with_memory = with_memory}).tokenizer,
              "tokenizer.json");
    EXPECT_EQ(read_file(out / "tokenizer.json"), odd_json());
  }
}

TEST_F(ImportTokenizer, IsWhatTheCommandsUse) {
  write("model/tokenizer.json", odd_json());
  const Outcome imported = infini("import model in model.segment_tokens=16");
  EXPECT_EQ(imported.code, 0);
  EXPECT_THAT(imported.said, HasSubstr("1 layers, segments of 16 tokens, 2 memories a layer, with "
                                       "tokenizer.json\n"));
  for (const char* seed : {"1", "2", "3"})  // most draw an id that no token has
    expect_done(std::string("generate in --prompt the --temperature 9 --tokens 100 --seed ") +
                seed);
  write("some.txt", "the thin inn");
  const Outcome scored = infini("score in --input some.txt");
  EXPECT_EQ(scored.code, 0) << scored.said;
  EXPECT_THAT(scored.said, HasSubstr("\"text\":\"in\""));

  write("corpus/train/a.txt", std::string(400, 'x') + " the inn");
  expect_done("prepare --input corpus --output data --tokenizer model/tokenizer.json");
  expect_done("prepare --input corpus --output bytes --tokenizer byte");
  write("tune.yaml",
        "{init_from: in, directory: run, device: cpu, data: {source: store, store: data, "
        "batch_rows: 1, row_tokens: 32}, train: {steps: 2}}");
  expect_refused("train tune.yaml data.store=bytes", 2,
                 "was trained with another tokenizer than the data has");
  expect_done("train tune.yaml");
  const Outcome exported = infini("export run out");
  EXPECT_THAT(exported.said, HasSubstr("in 1 file and tokenizer.json"));
  EXPECT_EQ(content("out/tokenizer.json"), odd_json());
}

TEST_F(ImportTokenizer, IsLeftOutWithANoteWhenItIsNotRead) {
  nlohmann::json unigram = plain_tokenizer_json();
  unigram["model"]["type"] = "Unigram";
  write("model/tokenizer.json", unigram.dump());
  const ImportedModel imported = import_model(path("model"), path("in"));
  EXPECT_EQ(imported.tokenizer, "");
  EXPECT_THAT(imported.notes, ElementsAre(text("left out: ", path("model/tokenizer.json").string(),
                                               ": model.type is \"Unigram\", expected BPE")));
  EXPECT_FALSE(load_fp32(path("in")).tokenizer);
  EXPECT_EQ(export_model(path("in"), path("out")).tokenizer, "");
  EXPECT_FALSE(fs::exists(path("out/tokenizer.json")));

  const Outcome said = infini("import model again");
  EXPECT_EQ(said.code, 0);
  EXPECT_THAT(said.said, HasSubstr("note: left out: model/tokenizer.json: model.type is"));
  EXPECT_THAT(said.said, HasSubstr("no tokenizer\n"));
}

TEST_F(ImportTokenizer, IsLeftOutWhenItHasMoreTokensThanTheModel) {
  fs::copy(pretrained("llama"), path("llama"));
  write("llama/tokenizer.json", odd_json());
  const ImportedModel imported = import_model(path("llama"), path("in"));
  EXPECT_EQ(imported.tokenizer, "");
  EXPECT_THAT(imported.notes,
              testing::Contains(HasSubstr("has 261 tokens, the model of config.json has 29")));
}

TEST_F(ImportTokenizer, MayBeASentencePieceModel) {
  std::string sample;
  for (std::uint64_t seed = 0; seed < 100; ++seed) sample += random_text(seed, 50, false);
  const auto pieces = train_sentencepiece(sample, 350);
  save_tokenizer(*pieces, path("model/tokenizer.model"));
  EXPECT_EQ(import_model(path("model"), path("in")).tokenizer, "tokenizer.model");
  EXPECT_EQ(load_fp32(path("in")).tokenizer->hash(), pieces->hash());
  EXPECT_EQ(export_model(path("in"), path("out")).tokenizer, "tokenizer.model");
  EXPECT_EQ(content("out/tokenizer.model"), pieces->model());

  write("model/tokenizer.json", "{}");  // not read, so the other one is
  const ImportedModel second = import_model(path("model"), path("second"));
  EXPECT_EQ(second.tokenizer, "tokenizer.model");
  EXPECT_THAT(second.notes, ElementsAre(HasSubstr("tokenizer.json: model is missing")));
}

}  // namespace
}  // namespace infini
