#include "trainer/pretrained_weights.h"

#include <map>
#include <set>
#include <string_view>

#include "tensor/error.h"
#include "trainer/guarded_json.h"

namespace infini {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr std::uint64_t kMostIndexBytes = 50'000'000;
constexpr std::size_t kMostTensors = 100'000;
constexpr std::size_t kMostNameBytes = 256;
constexpr std::size_t kMostFiles = 1000;

using FilesOfTensors = std::map<std::string, std::string>;

// {"metadata": {...}, "weight_map": {"tensor": "file", ...}}
class IndexEvents final : public JsonEvents {
 public:
  explicit IndexEvents(std::string who) : who_(std::move(who)) {}

  FilesOfTensors take() {
    check<DataError>(has_map_, who_, ": has no weight_map");
    return std::move(files_);
  }

  void begin_object() override {
    if (++depth_ == 2 && key_ == "weight_map") in_map_ = has_map_ = true;
    if (in_map_ && depth_ > 2) refuse();
  }
  void end_object() override {
    if (--depth_ < 2) in_map_ = false;
  }
  void begin_array() override { begin_object(); }
  void end_array() override { end_object(); }
  void key(const std::string& name) override {
    key_ = name;
    if (in_map_ && (name.size() > kMostNameBytes || files_.size() >= kMostTensors))
      throw DataError(infini::text(who_, ": tensor ", shown(name),
                                   name.size() > kMostNameBytes
                                       ? ": its name is too long"
                                       : infini::text(": more than ", kMostTensors, " tensors")));
  }
  void text(const std::string& file) override {
    if (!in_map_) return;
    const bool plain = !file.empty() && file.size() <= kMostNameBytes && file[0] != '.' &&
                       file.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
    if (!plain)
      throw DataError(infini::text(who_, ": tensor ", shown(key_), ": is said to be in ",
                                   shown(file), ", which is no name of a file beside it"));
    if (!files_.emplace(key_, file).second)
      throw DataError(infini::text(who_, ": tensor ", shown(key_), ": is there twice"));
  }
  void number(std::uint64_t) override { other(""); }
  void other(const std::string&) override {
    if (in_map_) refuse();
  }

 private:
  [[noreturn]] void refuse() const {
    throw DataError(
        infini::text(who_, ": tensor ", shown(key_), ": expected the name of its file"));
  }

  std::string who_, key_;
  int depth_ = 0;
  bool in_map_ = false, has_map_ = false;
  FilesOfTensors files_;
};

FilesOfTensors read_index(const fs::path& path) {
  const std::uintmax_t bytes = fs::file_size(path);
  check<DataError>(bytes <= kMostIndexBytes, path.string(), ": has ", bytes, " bytes, at most ",
                   kMostIndexBytes, " are read");
  IndexEvents events(path.string());
  stream_json(path, 0, bytes, events);
  return events.take();
}

}  // namespace

PretrainedWeights::PretrainedWeights(const fs::path& directory) : list_(directory / kSingle) {
  if (fs::exists(list_)) {
    files_.emplace_back(list_);
    return;
  }
  list_ = directory / kIndex;
  check<ConfigError>(fs::exists(list_), directory.string(), ": holds neither ", kSingle, " nor ",
                     kIndex,
                     fs::exists(directory / "pytorch_model.bin") ||
                             fs::exists(directory / "pytorch_model.bin.index.json")
                         ? "; pytorch_model.bin is not read, save the model as safetensors"
                         : "");
  const FilesOfTensors places = read_index(list_);
  std::set<std::string> names;
  for (const auto& [tensor, file] : places) names.insert(file);
  check<DataError>(names.size() <= kMostFiles, list_.string(), ": names ", names.size(),
                   " files, at most ", kMostFiles, " are read");
  for (const std::string& name : names) {
    const SafetensorsFile& file = files_.emplace_back(directory / name);
    for (const StoredTensor& tensor : file.tensors()) {
      const auto place = places.find(tensor.name);
      if (place == places.end() || place->second != name)
        throw DataError(text(file.path().string(), ": tensor ", shown(tensor.name),
                             ": is there, but ", list_.string(), " does not say so"));
    }
  }
  for (const auto& [tensor, name] : places)
    if (!find(tensor))
      throw DataError(text((directory / name).string(), ": tensor ", shown(tensor),
                           ": is missing, ", list_.string(), " says it is there"));
}

PretrainedWeights::Place PretrainedWeights::find(const std::string& name) const {
  for (const SafetensorsFile& file : files_)
    if (const StoredTensor* tensor = file.find(name)) return {.file = &file, .tensor = tensor};
  return {};
}

std::vector<PretrainedWeights::Place> PretrainedWeights::all() const {
  std::vector<Place> places;
  for (const SafetensorsFile& file : files_)
    for (const StoredTensor& tensor : file.tensors())
      places.push_back({.file = &file, .tensor = &tensor});
  return places;
}

}  // namespace infini
