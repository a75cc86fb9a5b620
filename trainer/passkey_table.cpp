#include "trainer/passkey_table.h"

#include <algorithm>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tensor/enum_names.h"

namespace infini {
namespace {

std::string percent(const PasskeyCell& cell) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(0) << 100.0 * cell.score.exact / cell.score.prompts << '%';
  return out.str();
}

}  // namespace

std::vector<std::int64_t> passkey_lengths(const RunConfig& config) {
  if (!config.evaluate.passkey.row_segments.empty()) return config.evaluate.passkey.row_segments;
  const std::int64_t segment = config.model.segment_tokens;
  std::vector<std::int64_t> lengths;
  for (const std::int64_t tokens : config.data.passkey.prompt_lengths(segment))
    if (const std::int64_t segments = (tokens + segment - 1) / segment;
        lengths.empty() || segments > lengths.back())
      lengths.push_back(segments);
  lengths.push_back(2 * lengths.back());
  return lengths;
}

void check_passkey_table(const Tokenizer& tokenizer, const RunConfig& config) {
  const std::int64_t needed =
      PasskeyWriter(tokenizer, config.data.passkey.digits).shortest_tokens();
  const std::int64_t segment = config.model.segment_tokens;
  for (const std::int64_t segments : passkey_lengths(config))
    check<ConfigError>(
        segments >= (needed + segment - 1) / segment && segments <= kMostTokens / segment,
        "evaluate.passkey.row_segments: a row of ", segments, " segments of ", segment,
        " tokens; the shortest prompt with ", config.data.passkey.digits, " digits takes ", needed,
        " tokens, and the longest has ", kMostTokens);
}

std::vector<PasskeyCell> passkey_table(InfiniTransformer& model, const Tokenizer& tokenizer,
                                       const RunConfig& config) {
  const PasskeyWriter writer(tokenizer, config.data.passkey.digits);
  std::vector<PasskeyCell> cells;
  for (const std::int64_t segments : passkey_lengths(config))
    for (const bool memory : {true, false})
      for (const auto& [name, position] : enum_names(PasskeyPosition{})) {
        model.use_memory(memory);
        const std::vector<PasskeyPrompt> prompts =
            evaluation_prompts(writer, config.seed, segments * model.config().segment_tokens,
                               position, config.evaluate.passkey.prompts);
        cells.push_back(
            {.segments = segments,
             .position = position,
             .memory = memory,
             .score = score_passkeys(model, prompts, config.evaluate.segments_at_once)});
      }
  model.use_memory(true);
  return cells;
}

std::string format_passkey_table(const std::vector<PasskeyCell>& cells, const RunConfig& config) {
  const std::int64_t longest =
      config.data.passkey.prompt_lengths(config.model.segment_tokens).back();
  std::ostringstream out;
  out << "exact match (" << config.evaluate.passkey.prompts << " prompts each)\n"
      << "   row length            |    with its memory      |     memory off\n"
      << "   segments     tokens   |  start  middle    end   |  start  middle    end\n";
  for (std::size_t i = 0; i + 6 <= cells.size(); i += 6) {
    out << std::setw(11) << cells[i].segments << std::setw(11)
        << cells[i].segments * config.model.segment_tokens << "   |";
    for (std::size_t j = 0; j < 6; ++j)
      out << std::setw(j % 3 == 0 ? 7 : (j % 3 == 1 ? 8 : 7)) << percent(cells[i + j])
          << (j == 2 ? "   |" : "");
    out << (cells[i].segments * config.model.segment_tokens > longest ? "   beyond those trained\n"
                                                                      : "\n");
  }
  return out.str();
}

std::string passkey_json(const std::vector<PasskeyCell>& cells) {
  nlohmann::ordered_json json;
  for (const PasskeyCell& cell : cells)
    json.push_back({{"segments", cell.segments},
                    {"position", name_of(cell.position)},
                    {"memory", cell.memory},
                    {"prompts", cell.score.prompts},
                    {"exact", cell.score.exact},
                    {"digits", cell.score.digits},
                    {"right_digits", cell.score.right_digits}});
  return json.dump(2) + "\n";
}

}  // namespace infini
