// infini passkey: how often a trained model names a number hidden in prompts of any length.
#include "data/passkey.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>

#include "distributed/world.h"
#include "tensor/enum_names.h"
#include "trainer/commands.h"
#include "trainer/exit_codes.h"
#include "trainer/figures.h"
#include "trainer/loaded_model.h"
#include "trainer/option_checks.h"
#include "trainer/passkey_scores.h"
#include "trainer/progress.h"
#include "trainer/text_file.h"

namespace infini {
namespace {

using Json = nlohmann::ordered_json;

struct PasskeyOptions {
  std::string path;
  std::vector<std::string> overrides;
  std::vector<std::string> lengths = {"32K", "128K", "256K", "512K", "1M"};
  std::vector<std::string> positions = {"start", "middle", "end"};
  std::string memory = "both";
  int depths = 0, prompts = 20, digits = 0;
  std::int64_t seed = 1;
  std::string output, figure;
};

// "4096", "32K" or "1M", in units of 1024.
std::int64_t length_of(const std::string& length) {
  std::int64_t number = 0;
  const auto [end, fault] = std::from_chars(length.data(), length.data() + length.size(), number);
  const std::string unit(end, length.data() + length.size());
  const int shift = unit == "K" ? 10 : unit == "M" ? 20 : 0;
  check<ConfigError>(fault == std::errc() && (unit.empty() || shift > 0) && number >= 1 &&
                         number <= (std::int64_t{1} << 40) >> shift,
                     "--lengths: ", length, " is no length; expected tokens, as 4096, 32K or 1M");
  return number << shift;
}

// Where keys stand.
struct Place {
  std::string name;
  std::function<PasskeyPrompt(const PasskeyWriter&, std::int64_t tokens, std::int64_t index)>
      prompt;
};

std::vector<Place> places_of(const PasskeyOptions& options) {
  const auto seed = static_cast<std::uint64_t>(options.seed);
  std::vector<Place> places;
  for (int i = 0; i < options.depths; ++i) {
    const double depth = options.depths == 1 ? 0.5 : static_cast<double>(i) / (options.depths - 1);
    places.push_back({text(std::lround(100 * depth), "%"),
                      [=](const PasskeyWriter& writer, std::int64_t tokens, std::int64_t index) {
                        return writer.evaluation(seed, tokens, depth, index);
                      }});
  }
  if (options.depths > 0) return places;
  for (const std::string& name : options.positions)
    places.push_back(
        {name, [=, position = value_of<PasskeyPosition>(name).value()](
                   const PasskeyWriter& writer, std::int64_t tokens, std::int64_t index) {
           return writer.evaluation(seed, tokens, position, index);
         }});
  return places;
}

struct Cell {
  std::string length, place;
  bool memory = true;
  PasskeyReading reading;

  double exact() const { return static_cast<double>(reading.score.exact) / reading.score.prompts; }
  double digits() const {
    return static_cast<double>(reading.score.right_digits) /
           static_cast<double>(reading.score.digits);
  }
};

Cell measure(LoadedModel& loaded, const PasskeyWriter& writer, const PasskeyOptions& options,
             const std::string& length, const Place& place, bool memory) {
  const std::int64_t tokens = length_of(length);
  std::vector<PasskeyPrompt> prompts;
  for (int i = 0; i < options.prompts; ++i) prompts.push_back(place.prompt(writer, tokens, i));
  const Cell cell{.length = length,
                  .place = place.name,
                  .memory = memory,
                  .reading = read_passkeys(*loaded.model, prompts, memory,
                                           loaded.config.evaluate.segments_at_once)};
  fmt::print("{:>8} {:>8} {:>7} {:>9.1f}% {:>9.1f}% {:>12.0f} {:>12}\n", length, place.name,
             memory ? "on" : "off", 100 * cell.exact(), 100 * cell.digits(),
             cell.reading.tokens_per_second, bytes_text(cell.reading.peak_bytes));
  std::fflush(stdout);
  return cell;
}

Json json_of(const std::vector<Cell>& cells, const LoadedModel& loaded) {
  Json list = Json::array();
  for (const Cell& cell : cells)
    list.push_back({{"length", cell.length},
                    {"tokens", length_of(cell.length)},
                    {"place", cell.place},
                    {"memory", cell.memory},
                    {"prompts", cell.reading.score.prompts},
                    {"exact", cell.reading.score.exact},
                    {"digits", cell.reading.score.digits},
                    {"right_digits", cell.reading.score.right_digits},
                    {"tokens_per_second", cell.reading.tokens_per_second},
                    {"peak_bytes", cell.reading.peak_bytes}});
  return {{"checkpoint", loaded.checkpoint.string()}, {"step", loaded.step}, {"cells", list}};
}

// Places by lengths, of the first memory setting that was measured.
std::string figure_of(const std::vector<Cell>& cells, const PasskeyOptions& options,
                      const std::vector<Place>& places) {
  HeatMap map{.title = cells.front().memory ? "Exact matches" : "Exact matches, memory off",
              .x_title = "tokens of the prompt",
              .y_title = "place of the key",
              .rows = {},
              .columns = options.lengths,
              .shares = {}};
  for (const Place& place : places) {
    map.rows.push_back(place.name);
    std::vector<double>& row = map.shares.emplace_back();
    for (const Cell& cell : cells)
      if (cell.place == place.name && cell.memory == cells.front().memory)
        row.push_back(cell.exact());
  }
  return heat_map_svg(map);
}

int passkey(const PasskeyOptions& options) {
  const World world;
  world.require_single("passkey");
  for (const std::string& length : options.lengths) length_of(length);  // before anything is read
  check_destination("--output", options.output);
  check_destination("--figure", options.figure);
  check<ConfigError>(options.output.empty() || options.output != options.figure,
                     "--output and --figure are both ", options.output);
  LoadedModel loaded = load_model(options.path, options.overrides);
  check<ConfigError>(loaded.tokenizer != nullptr, loaded.checkpoint.string(),
                     " holds no tokenizer");
  const int digits = options.digits > 0 ? options.digits : loaded.config.data.passkey.digits;
  const PasskeyWriter writer(*loaded.tokenizer, digits);
  const std::vector<Place> places = places_of(options);

  fmt::print("{} (step {}), keys of {} digits, {} prompts each\n", loaded.checkpoint.string(),
             loaded.step, digits, options.prompts);
  fmt::print("{:>8} {:>8} {:>7} {:>10} {:>10} {:>12} {:>12}\n", "tokens", "key", "memory", "exact",
             "digits", "tokens/s", "peak");
  std::vector<Cell> cells;
  for (const std::string& length : options.lengths)
    for (const bool memory : {true, false})
      if (options.memory == "both" || (options.memory == "on") == memory)
        for (const Place& place : places)
          cells.push_back(measure(loaded, writer, options, length, place, memory));
  if (!options.output.empty()) write_text(options.output, json_of(cells, loaded).dump(2) + "\n");
  if (!options.figure.empty()) write_text(options.figure, figure_of(cells, options, places));
  return kExitDone;
}

}  // namespace

void add_passkey(CLI::App& app, int& exit_code) {
  const auto options = std::make_shared<PasskeyOptions>();
  CLI::App* command = app.add_subcommand(
      "passkey", "how often a number hidden in a prompt is named at its end, by length and place");
  command
      ->add_option("checkpoint", options->path, "a checkpoint, or a run whose newest one is taken")
      ->required();
  command->add_option("overrides", options->overrides, "key=value on top of its configuration");
  command->add_option("--lengths", options->lengths, "tokens of prompts: 4096,32K,1M")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->capture_default_str();
  CLI::Option* const positions =
      command->add_option("--positions", options->positions, "of start,middle,end")
          ->delimiter(',')
          ->allow_extra_args(false)
          ->check(CLI::IsMember({"start", "middle", "end"}))
          ->capture_default_str();
  command
      ->add_option("--depths", options->depths,
                   "instead: so many places at equal distances, from the start to the end")
      ->check(at_least(1))
      ->excludes(positions);
  command->add_option("--prompts", options->prompts, "prompts for each length and place")
      ->check(at_least(1))
      ->capture_default_str();
  command
      ->add_option("--digits", options->digits,
                   "digits of a key; default: those of the configuration")
      ->check(between(1, 18));
  command->add_option("--memory", options->memory, "as trained, forced off, or both")
      ->check(CLI::IsMember({"on", "off", "both"}))
      ->capture_default_str();
  command->add_option("--seed", options->seed, "of keys")->capture_default_str();
  command->add_option("--output", options->output, "a file for the figures as JSON");
  command->add_option("--figure", options->figure, "a file for a map of places by lengths as SVG");
  command->callback([options, &exit_code] { exit_code = passkey(*options); });
}

}  // namespace infini
