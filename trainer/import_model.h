// A model from a Hugging Face directory as a checkpoint of ours.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "trainer/run_config.h"

namespace infini {

struct ImportedModel {
  RunConfig config;
  std::filesystem::path checkpoint;
  std::size_t files = 0;           // of weights
  std::string tokenizer;           // the file it came from; empty: none
  std::vector<std::string> notes;  // what the user should know
};

// Writes <out>/checkpoints/step-00000000: every weight as it is, in fp32, and gates as
// model.gate_mean and model.gate_deviation say, which start closed. `overrides` are "key=value" on
// top of the configuration that follows from config.json. tokenizer.json, or else tokenizer.model,
// becomes the checkpoint's tokenizer; one that this program does not read, or with more tokens than
// the model has, is left out with a note. Nothing is written when anything else is wrong:
// ConfigError or DataError naming file and tensor.
ImportedModel import_model(const std::filesystem::path& from, const std::filesystem::path& out,
                           const std::vector<std::string>& overrides = {});

}  // namespace infini
