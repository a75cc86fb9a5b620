// A trained model with everything needed to use it, from one checkpoint.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "data/tokenizer.h"
#include "model/transformer.h"
#include "trainer/checkpoint.h"
#include "trainer/run_config.h"

namespace infini {

struct LoadedModel {
  RunConfig config;  // the resolved configuration of the run that saved it
  std::filesystem::path checkpoint;
  std::int64_t step = 0;
  std::string identity;  // 16 hexadecimal digits that name every byte of the checkpoint
  std::unique_ptr<InfiniTransformer> model;
  std::unique_ptr<Tokenizer> tokenizer;
};

// `path` is a checkpoint or the directory of a run, whose newest checkpoint is taken. Overrides are
// "key=value" on top of the saved configuration. Throws ConfigError when there is none, DataError
// when it is damaged.
LoadedModel load_model(const std::filesystem::path& path,
                       const std::vector<std::string>& overrides = {});

// The checkpoint that `path` names in the same way.
std::filesystem::path checkpoint_directory(const std::filesystem::path& path);

// The configuration of the run that saved it, with "key=value" on top.
RunConfig config_of(const Checkpoint& checkpoint, const std::vector<std::string>& overrides = {});

// ConfigError, beginning with `where`, if a model of `saved` has parameters, gates aside, that one
// of `model` has no place for: half of a model computes something, and nobody meant it.
void check_takes_all(const ModelConfig& model, const ModelConfig& saved, const std::string& where);

}  // namespace infini
