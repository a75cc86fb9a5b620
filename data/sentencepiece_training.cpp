#include <sentencepiece_trainer.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "data/sentencepiece_tokenizer.h"
#include "data/units.h"
#include "tensor/error.h"

namespace infini {
namespace {

// The trainer skips sentences over its own limit, which is a little higher.
constexpr std::size_t kLongestSentence = 4000;  // bytes
constexpr double kCoverage = 0.9999;            // of the characters of the sample
constexpr int kFixedPieces = 258;               // unknown, end of text, 256 bytes

// Cuts text into sentences that show the trainer no characters side by side that stand in different
// units: line breaks are sentences of their own; raw bytes, and tabs, which SentencePiece keeps for
// itself, are left out.
class Sentences final : public sentencepiece::SentenceIterator {
 public:
  explicit Sentences(std::string_view text) : rest_(text) { Next(); }

  bool done() const override { return sentence_.empty(); }
  const std::string& value() const override { return sentence_; }
  sentencepiece::util::Status status() const override { return {}; }

  void Next() override {
    sentence_.clear();
    while (!rest_.empty()) {
      const Unit unit = first_unit(rest_);
      const bool alone = unit.kind != UnitKind::kWord;
      const bool fits = sentence_.size() + unit.text.size() <= kLongestSentence;
      if (!sentence_.empty() && (alone || !fits)) return;
      rest_.remove_prefix(unit.text.size());
      if (unit.kind == UnitKind::kRaw || unit.text.find('\t') != unit.text.npos || !fits) continue;
      sentence_ += unit.text;
      if (alone) return;
    }
  }

 private:
  std::string_view rest_;
  std::string sentence_;  // empty at the end
};

// The sample with NUL, which Sentences leaves out, in place of rare characters: kept are the most
// frequent ones, until they make up kCoverage of all or fill half of the pieces that are not bytes.
// The byte pieces spell the others, but not the space, for which SentencePiece has a mark of its
// own: there is one at the end.
std::string with_frequent_characters(std::string_view sample, int vocabulary) {
  const auto characters = [&](auto use) {
    for (std::string_view rest = sample; !rest.empty();) {
      const auto length = static_cast<std::size_t>(std::max(utf8_length(rest), 1));
      use(rest.substr(0, length));
      rest.remove_prefix(length);
    }
  };
  std::unordered_map<std::string_view, std::int64_t> counts;
  std::int64_t total = 0;
  characters([&](std::string_view c) { ++counts[c], ++total; });
  std::vector<std::pair<std::int64_t, std::string_view>> order;
  for (const auto& [c, count] : counts) order.emplace_back(-count, c);
  std::sort(order.begin(), order.end());

  const auto limit = static_cast<std::size_t>(std::max(vocabulary - kFixedPieces, 0) / 2);
  std::unordered_set<std::string_view> kept{" "};
  double covered = 0;
  for (const auto& [minus_count, c] : order) {
    if (kept.size() >= limit || covered >= kCoverage * static_cast<double>(total)) break;
    kept.insert(c);
    covered -= static_cast<double>(minus_count);
  }
  std::string out;
  out.reserve(sample.size());
  characters([&](std::string_view c) { kept.contains(c) ? void(out += c) : out.push_back('\0'); });
  if (!counts.empty() && !counts.contains(" ")) out.push_back(' ');
  return out;
}

}  // namespace

std::unique_ptr<SentencePieceTokenizer> train_sentencepiece(std::string_view sample,
                                                            int vocabulary) {
  const std::unordered_map<std::string, std::string> options = {
      {"model_type", "bpe"},
      {"vocab_size", text(vocabulary)},
      {"hard_vocab_limit", "false"},
      {"character_coverage", "1"},
      {"byte_fallback", "true"},
      {"split_digits", "true"},
      {"split_by_whitespace", "true"},
      {"allow_whitespace_only_pieces", "true"},
      {"normalization_rule_name", "identity"},
      {"add_dummy_prefix", "false"},
      {"remove_extra_whitespaces", "false"},
      {"shuffle_input_sentence", "false"},
      {"unk_id", "0"},
      {"eos_id", "1"},
      {"bos_id", "-1"},
      {"pad_id", "-1"},
      {"num_threads", "1"},
      {"minloglevel", "3"},
  };
  check<ConfigError>(vocabulary >= kSmallestVocabulary, "tokenizer: a vocabulary of ", vocabulary,
                     " is too small, expected at least ", kSmallestVocabulary,
                     " (256 bytes, markers and some characters)");
  const std::string frequent = with_frequent_characters(sample, vocabulary);
  Sentences sentences(frequent);
  check<DataError>(!sentences.done(), "tokenizer: there is no text to train on");
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(options, &sentences, &model);
  check<ConfigError>(status.ok(), "tokenizer: a vocabulary of ", vocabulary,
                     " cannot be trained: ", status.ToString());
  return std::make_unique<SentencePieceTokenizer>(model, "the trained tokenizer");
}

}  // namespace infini
