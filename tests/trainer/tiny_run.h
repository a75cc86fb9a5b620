// A run that takes milliseconds: two layers, 16 wide, over a store of a few documents.
#pragma once

#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/data/fixtures.h"
#include "tests/relative_error.h"
#include "trainer/config_reader.h"
#include "trainer/training.h"

namespace infini {

// As YAML, for the program and for Training alike; data.store is left to the test. Matrices are
// factored from 16 on, so that Adafactor has all its kinds of state. Documents end and begin inside
// lanes, and the lanes begin a second epoch.
inline const char* const kTinyRun =
    "seed: 3\n"
    "directory: run\n"
    "device: cpu\n"
    "model: {layers: 2, d_model: 16, heads: 2, feed_forward: 32, segment_tokens: 8}\n"
    "data: {source: store, store: data, row_tokens: 16, batch_rows: 4}\n"
    "optim: {learning_rate: 0.05, warmup_steps: 2, adafactor: {factored_from: 16}}\n"
    "train: {steps: 6}\n"
    "checkpoint: {every: 0}\n";

inline std::shared_ptr<const TokenStore> tiny_store(const std::filesystem::path& folder,
                                                    const std::vector<int>& lengths) {
  std::filesystem::create_directories(folder);
  return small_store(folder / "train.h5", lengths);
}
inline const std::vector<int> kTinyLengths = {41, 23, 12, 35, 30, 17, 26};

inline RunConfig tiny_config(const std::vector<std::string>& overrides) {
  return read_config_text<RunConfig>(kTinyRun, "tiny run", overrides);
}

inline Training training_of(const RunConfig& config, std::shared_ptr<const TokenStore> store) {
  auto source = make_source(config.data, config.model.segment_tokens,
                            static_cast<std::uint64_t>(config.seed), config.train.steps, store);
  return Training(config, std::move(source), store->tokenizer().serialise());
}

// Every byte that a checkpoint of this moment would hold.
using Bytes = std::map<std::string, std::vector<char>>;
inline Bytes bytes_of(Training& training) {
  Bytes bytes;
  for (const NamedBuffer& buffer : training.contents().buffers) {
    const char* data = static_cast<const char*>(buffer.data);
    bytes[buffer.name].assign(data, data + buffer.bytes);
  }
  return bytes;
}

// The run's model with these overrides, of bytes and far from a uniform guess.
inline InfiniTransformer far_model_of(const std::vector<std::string>& overrides = {}) {
  ModelConfig config = tiny_config(overrides).model;
  config.vocabulary = 257;
  config.init_deviation = 0.4;
  config.gate_deviation = 1;
  InfiniTransformer model(config, DType::kFloat64, Device::kCpu);
  model.parameters().initialise(5);
  return model;
}

}  // namespace infini
