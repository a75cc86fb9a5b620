#include "trainer/loaded_model.h"

#include <set>

#include "data/durable_file.h"
#include "tensor/ops/product.h"
#include "trainer/config_reader.h"
#include "trainer/saved_tokenizer.h"
#include "trainer/tensor_buffers.h"

namespace infini {

std::filesystem::path checkpoint_directory(const std::filesystem::path& path) {
  check<ConfigError>(std::filesystem::is_directory(path), path.string(),
                     ": no such checkpoint or run");
  if (std::filesystem::exists(path / "manifest.json")) return path;
  const std::optional<Checkpoint> latest = find_latest(path);
  check<ConfigError>(latest.has_value(), path.string(),
                     " is neither a checkpoint nor a run that holds one");
  return latest->directory();
}

RunConfig config_of(const Checkpoint& checkpoint, const std::vector<std::string>& overrides) {
  return read_config_text<RunConfig>(checkpoint.config_yaml(),
                                     (checkpoint.directory() / "config.yaml").string(), overrides);
}

void check_takes_all(const ModelConfig& model, const ModelConfig& saved, const std::string& where) {
  std::set<std::string> here;
  for (const ParameterSpec& spec : parameter_specs(model)) here.insert(spec.name);
  for (const ParameterSpec& spec : parameter_specs(saved))
    check<ConfigError>(here.contains(spec.name) || is_gate(spec.name), where, ": has ", spec.name,
                       ", which this model does not; it is a checkpoint of another model");
}

LoadedModel load_model(const std::filesystem::path& path,
                       const std::vector<std::string>& overrides) {
  const Checkpoint checkpoint(checkpoint_directory(path));
  LoadedModel loaded;
  loaded.checkpoint = checkpoint.directory();
  loaded.step = checkpoint.step();
  // The manifest holds the hashes of all files.
  loaded.identity = hash_digits(hash_file(checkpoint.directory() / "manifest.json"));
  loaded.config = config_of(checkpoint, overrides);
  if (!overrides.empty())
    check_takes_all(loaded.config.model, config_of(checkpoint).model, loaded.checkpoint.string());
  loaded.model = std::make_unique<InfiniTransformer>(loaded.config.model,
                                                     dtype_of_compute(loaded.config.train.compute),
                                                     device_of(loaded.config.device));
  allow_tf32(loaded.config.train.compute == Compute::kTf32);
  TensorBuffers buffers(false);
  for (const Parameter& parameter : loaded.model->parameters().all())
    buffers.add(parameter.name, parameter.master);
  checkpoint.read(buffers.list());
  buffers.put_back();
  loaded.model->parameters().refresh_values();
  const std::string tokenizer = saved_tokenizer(checkpoint);
  if (!tokenizer.empty())
    loaded.tokenizer = load_tokenizer(tokenizer, checkpoint.directory().string());
  return loaded;
}

}  // namespace infini
