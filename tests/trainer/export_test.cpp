#include "data/durable_file.h"
#include "tests/data/fixtures.h"
#include "tests/trainer/pretrained.h"
#include "trainer/checkpoint.h"
#include "trainer/config_writer.h"
#include "trainer/export_model.h"
#include "trainer/pretrained_weights.h"
#include "trainer/tensor_buffers.h"

namespace infini {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

nlohmann::json json_of(const fs::path& path) { return nlohmann::json::parse(read_file(path)); }

// Every tensor of one is in the other, to the byte.
void expect_holds(const fs::path& all, const fs::path& part) {
  const PretrainedWeights here(all), there(part);
  for (const PretrainedWeights::Place& place : there.all()) {
    const PretrainedWeights::Place same = here.find(place.tensor->name);
    ASSERT_TRUE(same) << place.tensor->name;
    EXPECT_EQ(same.tensor->type_text(), place.tensor->type_text()) << place.tensor->name;
    EXPECT_TRUE(std::ranges::equal(same.bytes(), place.bytes())) << place.tensor->name;
  }
}
void expect_same_tensors(const fs::path& a, const fs::path& b) {
  expect_holds(a, b);
  expect_holds(b, a);
}

void expect_same_values(const InfiniTransformer& a, const InfiniTransformer& b) {
  ASSERT_EQ(a.parameters().all().size(), b.parameters().all().size());
  for (const Parameter& parameter : a.parameters().all())
    EXPECT_TRUE(same_bytes(parameter.master, b.parameters()[parameter.name].master))
        << parameter.name;
}

class Export : public testing::TestWithParam<std::string> {
 protected:
  fs::path import(const std::string& to, const std::vector<std::string>& overrides = {}) {
    import_model(pretrained(GetParam()), folder_ / to, overrides);
    return folder_ / to;
  }
  TempFolder folder_;
};

TEST_P(Export, GivesBackWhatWasImported) {
  const fs::path out = folder_ / "out";
  const ExportedModel exported = export_model(import("in"), out);
  expect_same_tensors(out, pretrained(GetParam()));
  const nlohmann::json before = json_of(pretrained(GetParam()) / "config.json"),
                       after = json_of(out / "config.json");
  for (const auto& [key, value] : before.items())
    EXPECT_EQ(after.value(key, nlohmann::json()), value) << key;
  for (const auto& [key, value] : after.items())
    EXPECT_TRUE(before.contains(key)) << key << " is " << value;
  EXPECT_EQ(exported.files, std::vector<std::string>{"model.safetensors"});
  EXPECT_EQ(exported.gates_left_out, 2u);  // one a layer
}

TEST_P(Export, GivesBackTheSameInManyFiles) {
  const fs::path out = folder_ / "out";
  constexpr std::uint64_t kBytes = 2000;
  const ExportedModel exported = export_model(import("in"), out, {.shard_bytes = kBytes});
  expect_same_tensors(out, pretrained(GetParam()));
  EXPECT_GT(exported.files.size(), 2u);
  EXPECT_FALSE(fs::exists(out / "model.safetensors"));
  std::uint64_t total = 0;
  for (const std::string& name : exported.files) {
    const SafetensorsFile file(out / name);
    std::uint64_t bytes = 0;
    for (const StoredTensor& tensor : file.tensors()) bytes += tensor.end - tensor.begin;
    EXPECT_LE(bytes, kBytes);
    total += bytes;
  }
  EXPECT_EQ(json_of(out / "model.safetensors.index.json")["metadata"]["total_size"], total);
}

TEST_P(Export, WithMemoryComesBackAsTheModelItWas) {
  const fs::path in = import("in", {"model.memory=delta", "model.segment_tokens=5",
                                    "model.gate_mean=-1", "model.gate_deviation=2"});
  const fs::path out = folder_ / "out";
  export_model(in, out, {.with_memory = true});
  expect_holds(out, pretrained(GetParam()));  // stock transformers finds all of its own
  EXPECT_EQ(json_of(out / "config.json")["architectures"],
            json_of(pretrained(GetParam()) / "config.json")["architectures"]);
  import_model(out, folder_ / "again");
  const LoadedModel before = load_fp32(in), after = load_fp32(folder_ / "again");
  EXPECT_EQ(config_yaml(before.config.model), config_yaml(after.config.model));
  EXPECT_EQ(config_yaml(before.config.origin), config_yaml(after.config.origin));
  expect_same_values(*before.model, *after.model);

  const std::string page = read_file(out / "README.md");
  const PretrainedWeights weights(out);
  for (const PretrainedWeights::Place& place : weights.all()) {
    std::string name = place.tensor->name;
    if (const std::size_t layer = name.find("layers."); layer != std::string::npos)
      name[layer + 7] = 'I';
    EXPECT_THAT(page, HasSubstr("| `" + name + "` |"));
  }
}

TEST_P(Export, WritesTheTypeThatIsAskedFor) {
  const fs::path in = import("in");
  for (const StoredType type : {StoredType::kFp32, StoredType::kBf16, StoredType::kFp16}) {
    const fs::path out = folder_ / std::string(name_of(type));
    export_model(in, out, {.dtype = type});
    const PretrainedWeights weights(out);
    for (const PretrainedWeights::Place& place : weights.all())
      EXPECT_EQ(place.tensor->type, type) << place.tensor->name;
  }
  // All of these types fit into fp32.
  const fs::path again = folder_ / "again";
  import_model(folder_ / "fp32", again);
  expect_same_values(*load_fp32(in).model, *load_fp32(again).model);
}

INSTANTIATE_TEST_SUITE_P(Families, Export, testing::ValuesIn(kFamilies), family_name);

// A model that was trained here, of which no family has the like.
class ExportOfOurs : public testing::Test {
 protected:
  fs::path saved(const std::vector<std::string>& overrides) {
    std::vector<std::string> all = {"device=cpu",          "model.layers=2",
                                    "model.d_model=16",    "model.heads=2",
                                    "model.vocabulary=20", "model.feed_forward=24"};
    all.insert(all.end(), overrides.begin(), overrides.end());
    const auto config = read_config_text<RunConfig>("seed: 4", "test", all);
    InfiniTransformer model(config.model, DType::kFloat32, Device::kCpu);
    model.parameters().initialise(4);
    TensorBuffers buffers(true);
    for (const Parameter& parameter : model.parameters().all())
      buffers.add(parameter.name, parameter.master);
    return save_checkpoint(folder_.path(), ++saved_,
                           {.buffers = buffers.list(),
                            .owners = buffers.owners(),
                            .position_json = "{}",
                            .config_yaml = config_yaml(config)});
  }
  std::string refusal(const std::vector<std::string>& overrides,
                      const ExportOptions& options = {}) {
    const fs::path checkpoint = saved(overrides);
    return message_of<ConfigError>([&] { export_model(checkpoint, folder_ / "out", options); });
  }

  TempFolder folder_;
  std::int64_t saved_ = 0;
};

TEST_F(ExportOfOurs, WritesTheFamilyThatComputesTheSame) {
  const std::pair<const char*, const char*> kFamilyOf[] = {
      {"model.norm_eps=1e-5", "LlamaForCausalLM"},
      {"model.projection_biases=true", "Qwen2ForCausalLM"},
      {"model.head_norms=true", "Qwen3ForCausalLM"}};
  for (const auto& [key, family] : kFamilyOf) {
    const fs::path out = folder_ / family;
    export_model(saved({"model.activation=swiglu", key, "model.rope_scaling.kind=linear",
                        "model.rope_scaling.factor=4"}),
                 out);
    const nlohmann::json json = json_of(out / "config.json");
    EXPECT_EQ(json["architectures"][0], family);
    EXPECT_EQ(json["rope_scaling"]["factor"], 4.0);
    EXPECT_EQ(json["torch_dtype"], "float32");
    import_model(out, folder_ / (std::string(family) + "-again"));
  }
}

TEST_F(ExportOfOurs, RefusesWhatNoFamilyComputes) {
  EXPECT_THAT(refusal({}), HasSubstr("no family of transformers computes this model: "
                                     "model.activation is not swiglu; --with-memory writes it"));
  EXPECT_THAT(refusal({"model.activation=geglu", "model.offset_norms=true"}),
              HasSubstr("model.activation = geglu, offset_norms = true and embedding_scale = 1 "
                        "together"));
  EXPECT_THAT(refusal({"model.activation=swiglu", "model.softmax_scale=d_model"}),
              HasSubstr("model.softmax_scale is not d_head"));
  EXPECT_THAT(
      refusal({"model.activation=swiglu", "model.head_norms=true", "model.projection_biases=true"}),
      HasSubstr("model.head_norms and model.projection_biases together"));
  EXPECT_THAT(
      refusal({"model.architecture=transformer_xl", "model.memory=none"}, {.with_memory = true}),
      HasSubstr("model.architecture = transformer_xl has no form outside this program"));
}

TEST_F(ExportOfOurs, WithMemoryTakesEveryInfiniTransformer) {
  for (const char* activation : {"gelu", "relu", "swiglu", "geglu"}) {
    const fs::path in = saved({text("model.activation=", activation), "model.tied=false"}),
                   out = folder_ / activation, again = folder_ / (std::string(activation) + "2");
    export_model(in, out, {.with_memory = true});
    import_model(out, again);
    const LoadedModel before = load_fp32(in), after = load_fp32(again);
    EXPECT_EQ(config_yaml(before.config.model), config_yaml(after.config.model));
    expect_same_values(*before.model, *after.model);
  }
}

TEST_F(ExportOfOurs, RefusesNumbersThatTheTypeDoesNotHold) {
  const fs::path in = saved({"model.activation=swiglu", "model.init_deviation=40000"});
  EXPECT_THAT(message_of<DataError>(
                  [&] { export_model(in, folder_ / "out", {.dtype = StoredType::kFp16}); }),
              HasSubstr("has numbers too large for fp16; --dtype bf16 or fp32 holds them"));
  EXPECT_FALSE(fs::exists(folder_ / "out" / "config.json"));
  EXPECT_FALSE(fs::exists(folder_ / "out" / "model.safetensors"));
}

TEST_F(ExportOfOurs, LeavesFilesOfOthersAlone) {
  const fs::path in = saved({"model.activation=swiglu"});
  for (const char* name : {"README.md", "tokenizer.model", "tokenizer.json", "a.safetensors"}) {
    const fs::path out = folder_ / text("of-", name);
    put_file(out / name, "mine");
    EXPECT_THAT(message_of<ConfigError>([&] { export_model(in, out, {.with_memory = true}); }),
                HasSubstr(text("holds ", name, " already; give another folder")));
    EXPECT_EQ(read_file(out / name), "mine");
  }
}

TEST_F(ExportOfOurs, LeavesAModelThatIsThereAlone) {
  put_file(folder_ / "out" / "config.json", "{}");
  EXPECT_THAT(refusal({"model.activation=swiglu"}),
              HasSubstr("holds a model already; give another folder"));
}

TEST(StoredType, ComesBackToTheBit) {
  for (const StoredType type : {StoredType::kBf16, StoredType::kFp16}) {
    std::vector<std::uint16_t> all(1 << 16);
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::uint16_t>(i);
    std::vector<float> values(all.size());
    std::vector<std::uint16_t> back(all.size());
    to_floats(type, std::as_bytes(std::span(all)), values);
    EXPECT_TRUE(from_floats(type, values, std::as_writable_bytes(std::span(back))));
    EXPECT_EQ(all, back) << name_of(type);
  }
}

TEST(StoredType, RoundsToTheNearestHalfPrecisionNumber) {
  const std::pair<float, float> kCases[] = {
      {1 + 0x1p-11f, 1},      {1 + 0x1.8p-10f, 1 + 0x1p-9f},   {65519, 65504},
      {0x1p-25f, 0},          {0x1.8p-25f, 0x1p-24f},          {0x1.8p-24f, 0x1p-23f},
      {-0x1p-15f, -0x1p-15f}, {1023.75f * 0x1p-24f, 0x1p-14f}, {3.1415927f, 3.140625f}};
  for (const auto& [value, rounded] : kCases) {
    std::uint16_t bits = 0;
    EXPECT_TRUE(
        from_floats(StoredType::kFp16, {&value, 1}, std::as_writable_bytes(std::span(&bits, 1))));
    float back = 0;
    to_floats(StoredType::kFp16, std::as_bytes(std::span(&bits, 1)), {&back, 1});
    EXPECT_EQ(back, rounded) << value;
  }
  const float large = 65520;
  std::uint16_t bits = 0;
  EXPECT_FALSE(
      from_floats(StoredType::kFp16, {&large, 1}, std::as_writable_bytes(std::span(&bits, 1))));
}

}  // namespace
}  // namespace infini
