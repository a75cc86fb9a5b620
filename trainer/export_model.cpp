#include "trainer/export_model.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "data/durable_file.h"
#include "data/tokenizer.h"
#include "model/transformer.h"
#include "trainer/checkpoint.h"
#include "trainer/export_page.h"
#include "trainer/loaded_model.h"
#include "trainer/pretrained_config.h"
#include "trainer/pretrained_names.h"
#include "trainer/run_config.h"
#include "trainer/safetensors_writer.h"
#include "trainer/saved_tokenizer.h"
#include "trainer/tensor_buffers.h"

namespace infini {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kElementsAtOnce = std::int64_t{1} << 28;  // 1 GiB of fp32

struct Exported {
  ParameterSpec spec;
  StoredTensor tensor;
};

std::uint64_t bytes_of(const Exported& one) {
  return static_cast<std::uint64_t>(one.spec.shape.size() * bytes_of(one.tensor.type));
}

std::vector<Exported> exported_tensors(const RunConfig& config, const ExportOptions& options) {
  std::vector<Exported> result;
  for (const ParameterSpec& spec : parameter_specs(config.model)) {
    if (is_gate(spec.name) && !options.with_memory) continue;
    Exported one{.spec = spec, .tensor = {}};
    one.tensor.name = pretrained_name(spec.name);
    one.tensor.shape = {spec.shape.begin(), spec.shape.end()};
    one.tensor.type = options.dtype.value_or(config.origin.dtype_of(spec.name));
    if (is_gate(spec.name)) one.tensor.type = StoredType::kFp32;
    result.push_back(one);
  }
  return result;
}

std::vector<std::span<const Exported>> files_of(std::span<const Exported> all,
                                                std::uint64_t shard_bytes) {
  std::vector<std::span<const Exported>> files;
  std::size_t first = 0;
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (i > first && bytes + bytes_of(all[i]) > shard_bytes) {
      files.push_back(all.subspan(first, i - first));
      first = i;
      bytes = 0;
    }
    bytes += bytes_of(all[i]);
  }
  files.push_back(all.subspan(first));
  return files;
}

std::string file_name(std::size_t index, std::size_t count) {
  if (count == 1) return "model.safetensors";
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", index + 1, count);
  return name;
}

// Reads these from the checkpoint and writes them as they are to be stored.
void write_tensors(const Checkpoint& checkpoint, std::span<const Exported> tensors,
                   SafetensorsWriter& writer) {
  TensorBuffers buffers(false);
  for (const Exported& one : tensors)
    buffers.add(one.spec.name, Tensor::empty(one.spec.shape, DType::kFloat32));
  checkpoint.read(buffers.list());
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const Tensor& values = buffers.owners()[i];
    bytes.resize(bytes_of(tensors[i]));
    const bool fits =
        from_floats(tensors[i].tensor.type,
                    {values.data<float>(), static_cast<std::size_t>(values.size())}, bytes);
    check<DataError>(fits, checkpoint.directory().string(), ": ", tensors[i].spec.name,
                     " has numbers too large for ", name_of(tensors[i].tensor.type),
                     "; --dtype bf16 or fp32 holds them");
    writer.write(bytes);
  }
}

void write_file(const Checkpoint& checkpoint, std::span<const Exported> tensors,
                const fs::path& path) {
  std::vector<StoredTensor> listed;
  for (const Exported& one : tensors) listed.push_back(one.tensor);
  SafetensorsWriter writer(path, listed);
  while (!tensors.empty()) {
    std::size_t count = 0;
    for (std::int64_t elements = 0; count < tensors.size() && elements < kElementsAtOnce; ++count)
      elements += tensors[count].spec.shape.size();
    write_tensors(checkpoint, tensors.first(count), writer);
    tensors = tensors.subspan(count);
  }
  writer.finish();
}

// Writes the checkpoint's tokenizer as it came, if it is of a kind that other programs read, and
// returns the file's name.
std::string write_tokenizer(const Checkpoint& checkpoint, const fs::path& out) {
  const std::string saved = saved_tokenizer(checkpoint);
  if (saved.empty()) return {};
  const auto tokenizer = load_tokenizer(saved, checkpoint.directory().string());
  if (tokenizer->kind() == "byte" || tokenizer->kind() == "words") return {};
  const std::string name = tokenizer_file_name(*tokenizer);
  save_tokenizer(*tokenizer, out / name);
  return name;
}

std::string index_of(const std::vector<std::span<const Exported>>& files) {
  nlohmann::ordered_json map;
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < files.size(); ++i)
    for (const Exported& one : files[i]) {
      map[one.tensor.name] = file_name(i, files.size());
      bytes += bytes_of(one);
    }
  const nlohmann::ordered_json root{{"metadata", {{"total_size", bytes}}}, {"weight_map", map}};
  return root.dump(2) + "\n";
}

// Files there that would be overwritten, or be taken for parts of the model later.
void refuse_beside(const fs::path& out, const ExportOptions& options) {
  for (const auto& entry : fs::directory_iterator(out)) {
    const fs::path name = entry.path().filename();
    const bool is_taken = name.extension() == ".safetensors" || name.stem() == "tokenizer" ||
                          name == "model.safetensors.index.json" ||
                          (name == "README.md" && options.with_memory);
    check<ConfigError>(!is_taken, out.string(), ": holds ", name.string(),
                       " already; give another folder");
  }
}

}  // namespace

ExportedModel export_model(const fs::path& path, const fs::path& out,
                           const ExportOptions& options) {
  const Checkpoint checkpoint(checkpoint_directory(path));
  const RunConfig config = config_of(checkpoint);
  const StoredType dtype = options.dtype.value_or(config.origin.dtype);
  check<ConfigError>(config.model.architecture == Architecture::kInfini,
                     "export: model.architecture = ", config.model.architecture_name(),
                     " has no form outside this program");
  const std::string json =
      export_config(config.model, config.origin.config, name_of(dtype), options.with_memory);
  check<ConfigError>(!fs::exists(out / "config.json"), out.string(),
                     ": holds a model already; give another folder");
  fs::create_directories(out);
  refuse_beside(out, options);

  const std::vector<Exported> tensors = exported_tensors(config, options);
  const std::vector<std::span<const Exported>> files = files_of(tensors, options.shard_bytes);
  ExportedModel result{.checkpoint = checkpoint.directory(),
                       .files = {},
                       .tensors = tensors.size(),
                       .gates_left_out = parameter_specs(config.model).size() - tensors.size(),
                       .tokenizer = write_tokenizer(checkpoint, out)};
  for (std::size_t i = 0; i < files.size(); ++i) {
    result.files.push_back(file_name(i, files.size()));
    write_file(checkpoint, files[i], out / result.files.back());
  }
  if (files.size() > 1) infini::write_file(out / "model.safetensors.index.json", index_of(files));
  if (options.with_memory) infini::write_file(out / "README.md", export_page(config.model));
  infini::write_file(out / "config.json", json);  // last: a folder with it is complete
  return result;
}

}  // namespace infini
