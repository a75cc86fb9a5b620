// infini export: a checkpoint becomes a Hugging Face directory.
#include <cstdio>
#include <map>
#include <memory>

#include "distributed/world.h"
#include "tensor/enum_names.h"
#include "trainer/commands.h"
#include "trainer/exit_codes.h"
#include "trainer/export_model.h"
#include "trainer/option_checks.h"

namespace infini {
namespace {

struct ExportCommand {
  std::string path, out, dtype;
  ExportOptions options;
};

int run(ExportCommand command) {
  World().require_single("export");
  if (const auto dtype = value_of<StoredType>(command.dtype)) command.options.dtype = *dtype;
  const ExportedModel exported = export_model(command.path, command.out, command.options);
  std::printf("%s: %zu tensors in %zu file%s%s%s%s\n", command.out.c_str(), exported.tensors,
              exported.files.size(), exported.files.size() == 1 ? "" : "s",
              exported.tokenizer.empty() ? "" : " and ", exported.tokenizer.c_str(),
              exported.gates_left_out > 0
                  ? ", gates left out: outside this program it reads a text without its memory"
                  : "");
  return kExitDone;
}

}  // namespace

void add_export(CLI::App& app, int& exit_code) {
  const auto options = std::make_shared<ExportCommand>();
  CLI::App* command =
      app.add_subcommand("export", "write a checkpoint as a Hugging Face directory");
  command
      ->add_option("checkpoint", options->path, "a checkpoint, or a run whose newest one is taken")
      ->required();
  command->add_option("out", options->out, "folder that holds no model yet")->required();
  command->add_flag("--with-memory", options->options.with_memory,
                    "gates and our keys too, with a page on the names; infini import reads it");
  command
      ->add_option("--shard-bytes", options->options.shard_bytes,
                   "a file is not larger, unless one tensor is; 500MB, 5GB")
      ->capture_default_str()
      ->transform(CLI::AsSizeValue(true))
      ->check(at_least(1));
  command
      ->add_option("--dtype", options->dtype,
                   "fp32, bf16 or fp16; without it as the model was imported, else fp32")
      ->check(CLI::IsMember({"fp32", "bf16", "fp16"}));
  command->callback([options, &exit_code] { exit_code = run(*options); });
}

}  // namespace infini
