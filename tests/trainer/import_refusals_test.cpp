// What is not imported is refused in words, quickly, and without much memory.
#include <sys/resource.h>
#include <sys/wait.h>

#include "tests/trainer/pretrained.h"
#include "tests/trainer/program.h"
#include "trainer/pretrained_config.h"
#include "trainer/pretrained_weights.h"
#include "trainer/safetensors_writer.h"

namespace infini {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// Sanitizers multiply both.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr double kMostSeconds = 60, kMostMegabytes = 4000;
#else
constexpr double kMostSeconds = 1, kMostMegabytes = 100;
#endif

class ImportRefusals : public ProgramTest {
 protected:
  void SetUp() override { fs::copy(pretrained("llama"), path("model")); }

  void change(const std::string& key, const nlohmann::json& value) {
    nlohmann::json json = nlohmann::json::parse(content("model/config.json"));
    if (value.is_discarded())
      json.erase(key);
    else
      json[key] = value;
    write("model/config.json", json.dump());
  }
  template <class E>
  std::string refusal(const std::vector<std::string>& overrides = {}) {
    std::string message =
        message_of<E>([&] { import_model(path("model"), path("out"), overrides); });
    EXPECT_FALSE(fs::exists(path("out")));
    return message;
  }
  // The message when this key of config.json has this value.
  std::string refusal_of(const std::string& key, const nlohmann::json& value) {
    const std::string before = content("model/config.json");
    change(key, value);
    std::string message = refusal<ConfigError>();
    write("model/config.json", before);
    EXPECT_THAT(message, HasSubstr(path("model/config.json").string() + ": "));
    return message;
  }
  // The weights again, after `edit` has had the list of tensors: what stays is written as it was.
  template <class Edit>
  void rewrite(Edit edit) {
    const PretrainedWeights weights(pretrained("llama"));
    std::vector<StoredTensor> tensors;
    for (const auto& place : weights.all()) tensors.push_back(*place.tensor);
    edit(tensors);
    SafetensorsWriter writer(path("model/model.safetensors"), tensors);
    for (const StoredTensor& tensor : tensors) {
      std::uint64_t bytes = static_cast<std::uint64_t>(bytes_of(tensor.type));
      for (const std::int64_t extent : tensor.shape) bytes *= static_cast<std::uint64_t>(extent);
      writer.write(std::vector<std::byte>(bytes));
    }
    writer.finish();
  }

  // What a run of the program took. Of the processor: what else the machine does is not counted.
  struct Cost {
    int code = 0;
    double seconds = 0, megabytes = 0;
  };
  Cost run_program(const std::vector<std::string>& arguments) {
    const std::string binary = INFINI_BINARY, said = path("said");
    std::vector<char*> words{const_cast<char*>("infini")};
    for (const std::string& argument : arguments)
      words.push_back(const_cast<char*>(argument.c_str()));
    words.push_back(nullptr);
    const pid_t child = fork();
    if (child == 0) {
      if (!std::freopen(said.c_str(), "w", stdout) || dup2(1, 2) < 0) _exit(99);
      execv(binary.c_str(), words.data());
      _exit(99);
    }
    int status = 0;
    rusage used{};
    EXPECT_EQ(wait4(child, &status, 0, &used), child);
    const auto seconds = [](const timeval& time) {
      return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
    };
    return {.code = WEXITSTATUS(status),
            .seconds = seconds(used.ru_utime) + seconds(used.ru_stime),
            .megabytes = static_cast<double>(used.ru_maxrss) / 1024};
  }
  // The program itself, as a user meets it, beside what it takes to start: a build for GPUs maps
  // hundreds of megabytes of libraries.
  void expect_refused_at_once(const std::string& message) {
    const Cost start = run_program({"import", "--help"});
    ASSERT_EQ(start.code, 0);
    const Cost cost = run_program({"import", path("model"), path("out")});
    EXPECT_EQ(cost.code, 3) << content("said");
    EXPECT_THAT(content("said"), HasSubstr(message));
    EXPECT_LT(cost.seconds - start.seconds, kMostSeconds);
    EXPECT_LT(cost.megabytes - start.megabytes, kMostMegabytes);
    EXPECT_FALSE(fs::exists(path("out")));
  }
  // A header of these bytes, by whoever writes them to the stream after its length.
  template <class Write>
  void write_header(Write write_bytes) {
    std::ofstream file(path("model/model.safetensors"), std::ios::binary);
    file.write("\0\0\0\0\0\0\0\0", 8);
    write_bytes(file);
    const std::uint64_t length = static_cast<std::uint64_t>(file.tellp()) - 8;
    file.seekp(0);
    file.write(reinterpret_cast<const char*>(&length), 8);
  }
};

const nlohmann::json kGone(nlohmann::json::value_t::discarded);

TEST_F(ImportRefusals, NameWhatConfigJsonSays) {
  EXPECT_THAT(refusal_of("architectures", {"GPT2LMHeadModel"}),
              HasSubstr("unknown architecture GPT2LMHeadModel; known are LlamaForCausalLM, "
                        "MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM"));
  EXPECT_THAT(refusal_of("architectures", kGone), HasSubstr("architectures names no model"));
  EXPECT_THAT(refusal_of("hidden_size", kGone), HasSubstr("has no hidden_size"));
  EXPECT_THAT(refusal_of("hidden_size", "wide"),
              HasSubstr("hidden_size is \"wide\", expected a whole number from 1 to 1073741824"));
  EXPECT_THAT(refusal_of("hidden_size", -1), HasSubstr("hidden_size is -1, expected"));
  EXPECT_THAT(refusal_of("num_hidden_layers", 1'000'000'000),
              HasSubstr("num_hidden_layers is 1000000000, at most 10000 are read"));
  EXPECT_THAT(refusal_of("hidden_act", "gelu"),
              HasSubstr("hidden_act is \"gelu\", this build computes only \"silu\""));
  EXPECT_THAT(refusal_of("attention_bias", true), HasSubstr("attention_bias is true, this build"));
  EXPECT_THAT(refusal_of("mlp_bias", true), HasSubstr("mlp_bias is true, this build"));
  EXPECT_THAT(refusal_of("quantization_config", {{"bits", 4}}),
              HasSubstr("has a quantization_config; only weights in fp32, bf16 or fp16"));
  EXPECT_THAT(refusal_of("tie_word_embeddings", 1),
              HasSubstr("tie_word_embeddings is 1, expected"));
  EXPECT_THAT(refusal_of("head_dim", 7), HasSubstr("head width must be even and positive, got 7"));
  EXPECT_THAT(refusal_of("rope_scaling", {{"rope_type", "yarn"}, {"factor", 4}}),
              HasSubstr("rope scaling of type yarn, this build computes default, linear, dynamic "
                        "and llama3"));
  EXPECT_THAT(refusal_of("rope_scaling", {{"type", "linear"}}),
              HasSubstr("its rope scaling has no number factor"));
  EXPECT_THAT(refusal_of("rope_parameters", {{"partial_rotary_factor", 0.5}}),
              HasSubstr("partial_rotary_factor is not 1: this build turns whole heads"));
  EXPECT_THAT(refusal_of("rope_parameters", {{"full_attention", {{"rope_type", "default"}}}}),
              HasSubstr("has rope parameters by kind of layer (full_attention)"));
}

// Read or refused in words, whatever stands where.
TEST_F(ImportRefusals, SurviveEveryValueOfEveryKey) {
  const nlohmann::json whole = nlohmann::json::parse(content("model/config.json"));
  const nlohmann::json values[] = {nullptr,
                                   0,
                                   1,
                                   -1,
                                   2.5,
                                   1e300,
                                   -1e300,
                                   true,
                                   "",
                                   "text",
                                   nlohmann::json::array(),
                                   nlohmann::json::object(),
                                   nlohmann::json::array({1, "a"}),
                                   {{"rope_type", 3}},
                                   {{"rope_type", "llama3"}, {"factor", 0}},
                                   {{"layers", "many"}},
                                   18446744073709551615u};
  const auto survives = [&](const nlohmann::json& changed) {
    write("model/config.json", changed.dump());
    try {
      read_pretrained_config(path("model"));
    } catch (const ConfigError&) {
    } catch (const DataError&) {
    } catch (const std::exception& error) {
      ADD_FAILURE() << changed.dump() << ": " << error.what();
    }
  };
  std::vector<std::string> keys = {"infini",         "rope_scaling",       "rope_theta",
                                   "sliding_window", "use_sliding_window", "quantization_config"};
  for (const auto& [key, value] : whole.items()) keys.push_back(key);
  for (const std::string& key : keys)
    for (const nlohmann::json& value : values) {
      nlohmann::json changed = whole;
      changed[key] = value;
      survives(changed);
      changed = whole;
      changed["rope_parameters"][key] = value;
      survives(changed);
    }
}

TEST_F(ImportRefusals, NameFilesThatAreNoConfig) {
  write("model/config.json", "{\"architectures\": [");
  EXPECT_THAT(refusal<DataError>(), HasSubstr("config.json: is not a JSON object"));
  write("model/config.json", std::string(100'000, '['));
  EXPECT_THAT(refusal<DataError>(), HasSubstr("config.json: is nested more than 16 levels deep"));
  write("model/config.json", std::string(300'000, ' '));
  EXPECT_THAT(refusal<DataError>(), HasSubstr("has 300000 bytes, at most 262144 are read"));
  fs::remove(path("model/config.json"));
  EXPECT_THAT(refusal<ConfigError>(), HasSubstr("holds no config.json; expected a Hugging Face"));
  fs::remove_all(path("model"));
  EXPECT_THAT(refusal<ConfigError>(), HasSubstr("model: no such folder"));
}

TEST_F(ImportRefusals, NameTheTensorThatIsMissingOrTooMuch) {
  const std::string file = path("model/model.safetensors");
  rewrite([](auto& tensors) {
    std::erase_if(tensors, [](const StoredTensor& tensor) {
      return tensor.name == "model.layers.1.mlp.up_proj.weight";
    });
  });
  EXPECT_THAT(refusal<DataError>(),
              HasSubstr(file + ": tensor model.layers.1.mlp.up_proj.weight: is missing, the model "
                               "of config.json has it"));
  rewrite([](auto& tensors) { tensors.push_back({.name = "model.extra", .shape = {2}}); });
  EXPECT_THAT(refusal<DataError>(), HasSubstr(file + ": tensor model.extra: is none of the model "
                                                     "that config.json describes"));
  rewrite([](auto& tensors) { std::swap(tensors.front().shape[0], tensors.front().shape[1]); });
  EXPECT_THAT(refusal<DataError>(), HasSubstr(file + ": tensor lm_head.weight: is bf16 [12, 29], "
                                                     "the model of config.json has [29, 12]"));
  // What follows from the rest may lie beside it.
  rewrite([](auto& tensors) {
    tensors.push_back({.name = "model.layers.0.self_attn.rotary_emb.inv_freq", .shape = {4}});
  });
  EXPECT_NO_THROW(import_model(path("model"), path("kept")));
}

TEST_F(ImportRefusals, NameAHeadThatIsNotTheEmbeddingItIsTiedTo) {
  change("tie_word_embeddings", true);
  EXPECT_THAT(refusal<DataError>(),
              HasSubstr("tensor lm_head.weight: differs from the embedding, but config.json ties"));
  rewrite([](auto&) {});  // all zeros
  EXPECT_NO_THROW(import_model(path("model"), path("kept")));
}

TEST_F(ImportRefusals, NameKeysThatDoNotExistAndFoldersThatAreTaken) {
  EXPECT_THAT(refusal<ConfigError>({"model.segment_token=4"}),
              HasSubstr("did you mean segment_tokens?"));
  import_model(path("model"), path("taken"));
  EXPECT_THAT(message_of<ConfigError>([&] { import_model(path("model"), path("taken")); }),
              HasSubstr("taken: holds a run or an import already; give another folder"));
}

TEST_F(ImportRefusals, CostLittleWhateverTheHeader) {
  const std::string file = path("model/model.safetensors");
  write("model/model.safetensors", std::string(7, '\0') + "\x80{}");
  expect_refused_at_once(file + ": a header of 9223372036854775808 bytes");

  write_header([](std::ofstream& out) {  // 10 million entries
    out << "{\"n0\":{}";
    for (int i = 1; i < 10'000'000; ++i) out << ",\"\":{}";
    out << "}";
  });
  expect_refused_at_once(file + ": tensor n0: expected dtype, shape and data_offsets");

  const auto entries = [](int count) {
    return [count](std::ofstream& out) {
      std::string text = "{";
      for (int i = 0; i < count; ++i)
        text += (i ? ",\"" : "\"") + std::to_string(i) +
                "\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}";
      out << text << "}";
    };
  };
  write_header(entries(10'000'000));
  expect_refused_at_once(file + ": a header of ");
  write_header(entries(1'600'000));
  expect_refused_at_once(file + ": tensor 100000: its header has more than 100000 tensors");

  write_header([](std::ofstream& out) {
    out << "{\"__metadata__\":{\"\":\"\"";
    for (int i = 0; i < 14'000'000; ++i) out << ",\"\":\"\"";
    out << "}}";
  });
  expect_refused_at_once(file + ": tensor __metadata__: more than 100000 texts");

  for (const char* run : {" ", "[", "{\"a\":", "\"", "{\"a", "1", "{\"a\":{\"shape\":["}) {
    write_header([&](std::ofstream& out) {
      const std::string_view piece(run);
      std::string text = piece.size() > 1 ? std::string(piece) : "";
      while (text.size() < 99'000'000) text += piece.back();
      out << text;
    });
    expect_refused_at_once(file + ": ");
  }
}

TEST_F(ImportRefusals, CostLittleWhateverTheIndex) {
  fs::remove(path("model/model.safetensors"));
  {  // not held any more when the program starts: what starts it counts as its memory
    std::string index = "{\"weight_map\": {";
    for (int i = 0; i < 1'500'000; ++i)
      index += (i ? ",\"" : "\"") + std::to_string(i) + "\":\"m.safetensors\"";
    write("model/model.safetensors.index.json", index + "}}");
  }
  expect_refused_at_once(path("model/model.safetensors.index.json").string() +
                         ": tensor 100000: more than 100000 tensors");
}

// Older files say the same in other words.
TEST(PretrainedConfig, ReadsWhatOlderVersionsWrote) {
  const TempFolder folder;
  const auto read = [&](const nlohmann::json& changes) {
    nlohmann::json json{{"architectures", {"LlamaForCausalLM"}},
                        {"model_type", "llama"},
                        {"hidden_size", 4096},
                        {"intermediate_size", 14336},
                        {"num_hidden_layers", 32},
                        {"num_attention_heads", 32},
                        {"num_key_value_heads", 8},
                        {"vocab_size", 128256},
                        {"rms_norm_eps", 1e-5},
                        {"max_position_embeddings", 131072},
                        {"rope_theta", 500000.0},
                        {"torch_dtype", "bfloat16"}};
    json.merge_patch(changes);
    put_file(folder / "config.json", json.dump());
    return read_pretrained_config(folder.path());
  };
  const ModelConfig llama = read({{"rope_scaling",
                                   {{"factor", 8.0},
                                    {"low_freq_factor", 1.0},
                                    {"high_freq_factor", 4.0},
                                    {"original_max_position_embeddings", 8192},
                                    {"rope_type", "llama3"}}}})
                                .model;
  EXPECT_EQ(llama.rope_base, 500000);
  EXPECT_EQ(llama.rope_scaling.kind, RotaryScaling::Kind::kLlama3);
  EXPECT_EQ(llama.rope_scaling.original_tokens, 8192);
  EXPECT_EQ(llama.segment_tokens, 2048);
  EXPECT_EQ(llama.head_width(), 128);
  EXPECT_FALSE(llama.tied);
  EXPECT_EQ(parameter_count(llama), 8'030'261'248 + 32 * 32);  // Llama 3.1 8B, and gates
  EXPECT_EQ(read({{"rope_scaling", {{"type", "linear"}, {"factor", 2}}}}).model.rope_scaling.factor,
            2);
  EXPECT_EQ(read({{"num_key_value_heads", nullptr}}).model.kv_heads, 32);
  EXPECT_EQ(read({{"rope_scaling", nullptr}, {"rope_theta", nullptr}}).model.rope_base, 10000);

  const PretrainedConfig dynamic = read({{"rope_scaling", {{"type", "dynamic"}, {"factor", 2}}}});
  EXPECT_EQ(dynamic.model.rope_scaling.kind, RotaryScaling::Kind::kNone);
  EXPECT_THAT(dynamic.notes[0], HasSubstr("dynamic rope scaling acts beyond 131072 positions"));

  const nlohmann::json mistral{{"architectures", {"MistralForCausalLM"}}};
  EXPECT_EQ(read(mistral).window, 4096);
  EXPECT_EQ(read({{"architectures", {"MistralForCausalLM"}}, {"sliding_window", 1024}})
                .model.segment_tokens,
            1024);
  const nlohmann::json qwen{{"architectures", {"Qwen2ForCausalLM"}},
                            {"use_sliding_window", false},
                            {"sliding_window", 1024}};
  EXPECT_EQ(read(qwen).window, 0);
  EXPECT_TRUE(read(qwen).model.projection_biases);
}

}  // namespace
}  // namespace infini
