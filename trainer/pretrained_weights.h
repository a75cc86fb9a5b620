// The weights of a Hugging Face directory: model.safetensors, or the files that
// model.safetensors.index.json names.
#pragma once

#include <filesystem>
#include <vector>

#include "trainer/safetensors.h"

namespace infini {

class PretrainedWeights {
 public:
  // Throws DataError where index and files do not say the same, ConfigError where there are none.
  explicit PretrainedWeights(const std::filesystem::path& directory);

  struct Place {
    const SafetensorsFile* file = nullptr;
    const StoredTensor* tensor = nullptr;

    explicit operator bool() const { return tensor != nullptr; }
    std::span<const std::byte> bytes() const { return file->bytes(*tensor); }
  };
  Place find(const std::string& name) const;
  std::vector<Place> all() const;
  std::size_t files() const { return files_.size(); }
  // The file that messages name when a tensor is in none: the only one, or the index.
  const std::filesystem::path& list() const { return list_; }

 private:
  std::filesystem::path list_;
  std::vector<SafetensorsFile> files_;
};

}  // namespace infini
