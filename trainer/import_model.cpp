#include "trainer/import_model.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "data/tokenizer.h"
#include "model/transformer.h"
#include "trainer/checkpoint.h"
#include "trainer/config_writer.h"
#include "trainer/guarded_json.h"
#include "trainer/pretrained_config.h"
#include "trainer/pretrained_names.h"
#include "trainer/pretrained_weights.h"
#include "trainer/saved_tokenizer.h"
#include "trainer/tensor_buffers.h"

namespace infini {
namespace {

namespace fs = std::filesystem;
using Place = PretrainedWeights::Place;

constexpr std::int64_t kShardElements = std::int64_t{1} << 28;  // 1 GiB of fp32
constexpr const char* kHead = "lm_head.weight";
constexpr const char* kEmbedding = "model.embed_tokens.weight";

// A parameter and where its values come from; no place: they are drawn.
struct Source {
  ParameterSpec spec;
  Place place;
};

std::vector<Source> sources_of(const ModelConfig& model, const PretrainedWeights& weights) {
  std::vector<Source> sources;
  for (const ParameterSpec& spec : parameter_specs(model)) {
    const std::string name = pretrained_name(spec.name);
    const Place place = weights.find(name);
    if (!place && !is_gate(spec.name))
      throw DataError(text(weights.list().string(), ": tensor ", name,
                           ": is missing, the model of config.json has it"));
    if (place && Shape(place.tensor->shape) != spec.shape)
      throw DataError(text(place.file->path().string(), ": tensor ", name, ": is ",
                           place.tensor->type_text(), ", the model of config.json has ",
                           spec.shape));
    sources.push_back({.spec = spec, .place = place});
  }
  return sources;
}

bool same_bytes(const Place& a, const Place& b) {
  return a && b && std::ranges::equal(a.bytes(), b.bytes());
}

// What is there must be the model's, but for what follows from the rest.
void refuse_unused(const ModelConfig& model, const PretrainedWeights& weights,
                   const std::vector<Source>& sources, std::vector<std::string>& notes) {
  std::set<const StoredTensor*> used;
  for (const Source& source : sources) used.insert(source.place.tensor);
  bool dropped_gates = false;
  for (const Place& place : weights.all()) {
    if (used.contains(place.tensor)) continue;
    const std::string& name = place.tensor->name;
    if (name.ends_with(".rotary_emb.inv_freq")) continue;  // follows from rope_theta
    if (name == kHead && model.tied && same_bytes(place, weights.find(kEmbedding))) continue;
    if (name.ends_with(".self_attn.gate") && model.memory == MemoryRule::kNone) {
      dropped_gates = true;
      continue;
    }
    throw DataError(text(place.file->path().string(), ": tensor ", shown(name),
                         name == kHead && model.tied
                             ? ": differs from the embedding, but config.json ties them"
                             : ": is none of the model that config.json describes"));
  }
  if (dropped_gates) notes.push_back("gates were left out: model.memory is none");
}

// The type of most weights, and the tensors of another.
OriginConfig origin_of(const std::string& json, const std::vector<Source>& sources) {
  std::map<StoredType, std::int64_t> elements;
  for (const Source& source : sources)
    if (source.place && !is_gate(source.spec.name))
      elements[source.place.tensor->type] += source.spec.shape.size();
  OriginConfig origin{.config = json};
  origin.dtype =
      std::ranges::max_element(elements, {}, [](const auto& entry) { return entry.second; })->first;
  for (const Source& source : sources)
    if (source.place && !is_gate(source.spec.name) && source.place.tensor->type != origin.dtype)
      origin.other_dtypes.push_back(
          text(source.spec.name, "=", name_of(source.place.tensor->type)));
  return origin;
}

// What an import is to evaluate, generate and init_from: the configuration of its run.
// Weights in bf16 are computed with in bf16.
RunConfig run_config(const PretrainedConfig& pretrained, const PretrainedWeights& weights,
                     const fs::path& out, const std::vector<std::string>& overrides) {
  RunConfig config;
  const Place embedding = weights.find(kEmbedding);
  if (embedding && embedding.tensor->type == StoredType::kBf16)
    config.train.compute = Compute::kBf16;
  config.directory = out.string();
  config.model = pretrained.model;
  config.data.row_tokens = std::max(config.data.row_tokens, config.model.segment_tokens);
  return read_config_text<RunConfig>(config_yaml(config), "import", overrides);
}

void note_what_changes(const PretrainedConfig& pretrained, const ModelConfig& model,
                       std::vector<std::string>& notes) {
  const auto differs = [&](const char* key, std::int64_t limit) {
    notes.push_back(text("model.segment_tokens = ", model.segment_tokens, " is more than ", key,
                         " = ", limit, ": inside a segment this is not the original model"));
  };
  if (pretrained.window > 0 && model.segment_tokens > pretrained.window)
    differs("sliding_window", pretrained.window);
  else if (pretrained.window > 0)
    notes.push_back(text("sliding_window = ", pretrained.window,
                         " is not reached: attention sees segments of ", model.segment_tokens));
  if (!pretrained.has_memory && model.segment_tokens > pretrained.positions)
    differs("max_position_embeddings", pretrained.positions);
}

// Gates that no file has, by name.
std::map<std::string, Tensor> drawn_gates(const std::vector<Source>& sources, std::int64_t seed) {
  std::vector<ParameterSpec> specs;
  for (const Source& source : sources)
    if (!source.place) specs.push_back(source.spec);
  std::map<std::string, Tensor> gates;
  if (specs.empty()) return gates;
  Parameters parameters(specs, DType::kFloat32, Device::kCpu);
  parameters.initialise(static_cast<std::uint64_t>(seed));
  for (const Parameter& parameter : parameters.all())
    gates[parameter.name] = parameter.master.clone();
  return gates;
}

Tensor values_of(const Source& source) {
  const Tensor values = Tensor::empty(source.spec.shape, DType::kFloat32);
  to_floats(source.place.tensor->type, source.place.bytes(),
            {values.data<float>(), static_cast<std::size_t>(values.size())});
  return values;
}

struct FoundTokenizer {
  std::string file, serialised;  // both empty: none
};

// The first file that this program reads; what is wrong with those before it becomes a note.
FoundTokenizer find_tokenizer(const fs::path& from, const ModelConfig& model,
                              std::vector<std::string>& notes) {
  for (const char* file : {"tokenizer.json", "tokenizer.model"}) {
    if (!fs::exists(from / file)) continue;
    try {
      const std::unique_ptr<Tokenizer> tokenizer = read_tokenizer(from / file);
      check<DataError>(tokenizer->vocabulary() <= model.vocabulary, (from / file).string(),
                       ": has ", tokenizer->vocabulary(), " tokens, the model of config.json has ",
                       model.vocabulary);
      return {.file = file, .serialised = tokenizer->serialise()};
    } catch (const DataError& error) {
      notes.push_back(text("left out: ", error.what()));
    }
  }
  return {};
}

// Sources in runs of about a shard each.
std::vector<std::span<const Source>> shards_of(std::span<const Source> sources) {
  std::vector<std::span<const Source>> shards;
  std::size_t first = 0;
  std::int64_t elements = 0;
  for (std::size_t i = 0; i < sources.size(); ++i) {
    elements += sources[i].spec.shape.size();
    if (elements < kShardElements && i + 1 < sources.size()) continue;
    shards.push_back(sources.subspan(first, i + 1 - first));
    first = i + 1;
    elements = 0;
  }
  return shards;
}

}  // namespace

ImportedModel import_model(const fs::path& from, const fs::path& out,
                           const std::vector<std::string>& overrides) {
  const PretrainedConfig pretrained = read_pretrained_config(from);
  check<ConfigError>(!fs::exists(out / "checkpoints"), out.string(),
                     ": holds a run or an import already; give another folder");
  const PretrainedWeights weights(from);
  ImportedModel result{.config = run_config(pretrained, weights, out, overrides),
                       .checkpoint = {},
                       .files = weights.files(),
                       .tokenizer = {},
                       .notes = pretrained.notes};
  const ModelConfig& model = result.config.model;
  check<ConfigError>(model.architecture == Architecture::kInfini,
                     "import: model.architecture = ", model.architecture_name(),
                     " cannot begin with the weights of a Hugging Face directory, expected infini");
  const std::vector<Source> sources = sources_of(model, weights);
  refuse_unused(model, weights, sources, result.notes);
  note_what_changes(pretrained, model, result.notes);
  result.config.origin = origin_of(pretrained.json, sources);

  FoundTokenizer tokenizer = find_tokenizer(from, model, result.notes);
  result.tokenizer = tokenizer.file;
  const std::map<std::string, Tensor> gates = drawn_gates(sources, result.config.seed);
  const std::vector<std::span<const Source>> shards = shards_of(sources);
  const auto contents = [&](int shard) {
    TensorBuffers buffers(true);
    for (const Source& source : shards[static_cast<std::size_t>(shard)])
      buffers.add(source.spec.name, source.place ? values_of(source) : gates.at(source.spec.name));
    CheckpointContents held{.buffers = buffers.list(),
                            .owners = buffers.owners(),
                            .position_json = nlohmann::json{{"step", 0}, {"imported", true}}.dump(),
                            .config_yaml = config_yaml(result.config)};
    if (shard == 0 && !tokenizer.serialised.empty())
      held.buffers.push_back(tokenizer_buffer(tokenizer.serialised));
    return held;
  };
  result.checkpoint = save_checkpoint_in_shards(out, 0, static_cast<int>(shards.size()), contents);
  return result;
}

}  // namespace infini
