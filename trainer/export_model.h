// A checkpoint as a Hugging Face directory.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "trainer/stored_type.h"

namespace infini {

struct ExportOptions {
  // Off: the family's own weights alone, which stock transformers loads; gates are left out. On:
  // all weights, our keys in config.json, and a page on the names.
  bool with_memory = false;
  std::uint64_t shard_bytes = 5'000'000'000;  // of a file, where a tensor is not larger
  std::optional<StoredType> dtype = {};       // none: as the model was imported, else fp32
};

struct ExportedModel {
  std::filesystem::path checkpoint;
  std::vector<std::string> files;  // of weights
  std::size_t tensors = 0, gates_left_out = 0;
  std::string tokenizer;  // its file; empty: none that other programs read
};

// `path` is a checkpoint or a run, whose newest one is taken. Throws ConfigError naming the key
// where no family computes the model, DataError where the checkpoint is damaged or a weight does
// not fit the type, DeviceError where the disk does not take it.
ExportedModel export_model(const std::filesystem::path& path, const std::filesystem::path& out,
                           const ExportOptions& options = {});

}  // namespace infini
