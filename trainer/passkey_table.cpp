#include "trainer/passkey_table.h"

#include <algorithm>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <sstream>

#include "distributed/communicator.h"
#include "model/recurrence.h"

namespace infini {
namespace {

constexpr int kRowsAtOnce = 10;

// Answers of prompts of one length: whether the most likely token is right at each place.
void score(const InfiniTransformer& model, const std::vector<PasskeyPrompt>& prompts,
           std::int64_t segments_at_once, PasskeyCell& cell) {
  const auto batch = static_cast<std::int64_t>(prompts.size());
  const auto tokens = static_cast<std::int64_t>(prompts.front().tokens.size());
  std::vector<std::int32_t> flat;
  for (const PasskeyPrompt& prompt : prompts)
    flat.insert(flat.end(), prompt.tokens.begin(), prompt.tokens.end());
  const std::int64_t segment = model.config().segment_tokens;
  const Rows rows{.segment_tokens = segment,
                  .tokens = Tensor::of(flat, {batch, tokens}),
                  .targets = Tensor::of(flat, {batch, tokens}),
                  .weights = {},
                  .resets = {},
                  .keep = {}};

  std::vector<int> right(prompts.size());
  Recurrence(model, {}).forward(
      rows, empty_memories(model.config()), segments_at_once,
      [&](const Piece& piece, const Tensor& hidden) {
        const std::int64_t begin = piece.first * segment, count = piece.count * piece.tokens;
        note_progress();
        for (std::int64_t b = 0; b < batch; ++b) {
          const PasskeyPrompt& prompt = prompts[b];
          const std::int64_t first = std::max(prompt.answer_begin - 1, begin);
          const std::int64_t last =
              std::min(prompt.answer_begin + prompt.answer_tokens - 1, begin + count);
          if (first >= last) continue;
          const Tensor logits = model.logits(hidden.slice(b * count + first - begin, last - first));
          const std::vector<float> values = logits.to_vector<float>();
          const auto vocabulary = static_cast<std::size_t>(logits.shape()[1]);
          for (std::int64_t at = first; at < last; ++at) {
            const auto row = values.begin() + (at - first) * static_cast<std::int64_t>(vocabulary);
            right[b] += std::max_element(row, row + vocabulary) - row == prompt.tokens[at + 1];
          }
        }
      });
  for (std::int64_t b = 0; b < batch; ++b) {
    ++cell.prompts;
    cell.digits += prompts[b].answer_tokens;
    cell.right_digits += right[b];
    cell.exact += right[b] == prompts[b].answer_tokens;
  }
}

std::string percent(const PasskeyCell& cell) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(0) << 100.0 * cell.exact / cell.prompts << '%';
  return out.str();
}

}  // namespace

std::vector<std::int64_t> passkey_lengths(const RunConfig& config) {
  if (!config.evaluate.passkey.row_segments.empty()) return config.evaluate.passkey.row_segments;
  std::vector<std::int64_t> lengths = config.data.passkey.row_segments;
  std::sort(lengths.begin(), lengths.end());
  lengths.push_back(2 * lengths.back());
  return lengths;
}

std::vector<PasskeyCell> passkey_table(InfiniTransformer& model, const Tokenizer& tokenizer,
                                       const RunConfig& config) {
  const PasskeyWriter writer(tokenizer, config.data.passkey.digits);
  std::vector<PasskeyCell> cells;
  for (const std::int64_t segments : passkey_lengths(config))
    for (const bool memory : {true, false})
      for (const auto& [name, position] : enum_names(PasskeyPosition{})) {
        model.use_memory(memory);
        PasskeyCell cell{.segments = segments, .position = position, .memory = memory};
        for (int first = 0; first < config.evaluate.passkey.prompts; first += kRowsAtOnce) {
          std::vector<PasskeyPrompt> prompts;
          for (int i = first; i < std::min(first + kRowsAtOnce, config.evaluate.passkey.prompts);
               ++i)
            prompts.push_back(writer.evaluation(static_cast<std::uint64_t>(config.seed),
                                                segments * model.config().segment_tokens, position,
                                                i));
          score(model, prompts, config.evaluate.segments_at_once, cell);
        }
        cells.push_back(cell);
      }
  model.use_memory(true);
  return cells;
}

std::string format_passkey_table(const std::vector<PasskeyCell>& cells, const RunConfig& config) {
  const std::int64_t longest = config.data.passkey.longest_segments();
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
    out << (cells[i].segments > longest ? "   beyond those trained\n" : "\n");
  }
  return out.str();
}

std::string passkey_json(const std::vector<PasskeyCell>& cells) {
  nlohmann::ordered_json json;
  for (const PasskeyCell& cell : cells)
    json.push_back({{"segments", cell.segments},
                    {"position", enum_names(cell.position)[static_cast<int>(cell.position)].first},
                    {"memory", cell.memory},
                    {"prompts", cell.prompts},
                    {"exact", cell.exact},
                    {"digits", cell.digits},
                    {"right_digits", cell.right_digits}});
  return json.dump(2) + "\n";
}

}  // namespace infini
