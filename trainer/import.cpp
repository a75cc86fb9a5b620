// infini import: a Hugging Face directory becomes a checkpoint with a memory.
#include <cstdio>
#include <memory>

#include "distributed/world.h"
#include "model/transformer.h"
#include "trainer/commands.h"
#include "trainer/exit_codes.h"
#include "trainer/import_model.h"

namespace infini {
namespace {

struct ImportOptions {
  std::string from, out;
  std::vector<std::string> overrides;
};

int run(const ImportOptions& options) {
  World().require_single("import");
  const ImportedModel imported = import_model(options.from, options.out, options.overrides);
  const ModelConfig& model = imported.config.model;
  for (const std::string& note : imported.notes) std::printf("note: %s\n", note.c_str());
  std::printf(
      "%s: %lld parameters in %s from %zu file%s, %d layers, segments of %lld tokens, %d memories "
      "a layer, %s\n"
      "train it further with init_from=%s\n",
      imported.checkpoint.c_str(), static_cast<long long>(parameter_count(model)),
      std::string(name_of(imported.config.origin.dtype)).c_str(), imported.files,
      imported.files == 1 ? "" : "s", model.layers, static_cast<long long>(model.segment_tokens),
      model.memory == MemoryRule::kNone ? 0 : model.key_value_heads(),
      imported.tokenizer.empty() ? "no tokenizer" : ("with " + imported.tokenizer).c_str(),
      options.out.c_str());
  return kExitDone;
}

}  // namespace

void add_import(CLI::App& app, int& exit_code) {
  const auto options = std::make_shared<ImportOptions>();
  CLI::App* command =
      app.add_subcommand("import", "give a model from a Hugging Face directory a memory");
  command
      ->add_option("from", options->from,
                   "folder with config.json and model.safetensors, in one file or in several, and "
                   "tokenizer.json if there is one")
      ->required();
  command->add_option("out", options->out, "folder for the checkpoint; holds none yet")->required();
  command->add_option("overrides", options->overrides,
                      "key=value on top of what config.json says: model.memory=delta, "
                      "model.segment_tokens=4096, model.gate_mean=-4");
  command->callback([options, &exit_code] { exit_code = run(*options); });
}

}  // namespace infini
