#include <sentencepiece_trainer.h>

#include <unordered_map>

#include "data/sentencepiece_tokenizer.h"
#include "data/units.h"
#include "tensor/error.h"

namespace infini {
namespace {

constexpr std::size_t kLongestSentence =
    4000;  // bytes; the trainer skips sentences over its own limit

// Cuts texts into sentences that show the trainer no character across a border of units: line
// breaks stand alone, raw bytes and tabs (which SentencePiece keeps for itself) are left out.
class Sentences final : public sentencepiece::SentenceIterator {
 public:
  Sentences(std::int64_t sample_bytes, const std::function<bool(std::string& text)>& next)
      : left_(sample_bytes), next_(next) {
    Next();
  }

  bool done() const override { return done_; }
  const std::string& value() const override { return sentence_; }
  sentencepiece::util::Status status() const override { return {}; }

  void Next() override {
    sentence_.clear();
    while (sentence_.empty()) {
      if (rest_.empty() && !refill()) {
        done_ = true;
        return;
      }
      take_sentence();
    }
  }

 private:
  bool refill() {
    if (left_ <= 0 || !next_(text_)) return false;
    rest_ = std::string_view(text_).substr(0, static_cast<std::size_t>(left_));
    left_ -= static_cast<std::int64_t>(rest_.size());
    return true;
  }

  void take_sentence() {
    const auto wanted = [](const Unit& unit) {
      return unit.kind != UnitKind::kRaw && unit.text.find('\t') == unit.text.npos;
    };
    while (!rest_.empty()) {
      const Unit unit = first_unit(rest_);
      const bool breaks = unit.kind == UnitKind::kBreaks;
      if (!sentence_.empty() &&
          (breaks || !wanted(unit) || sentence_.size() + unit.text.size() > kLongestSentence))
        return;
      rest_.remove_prefix(unit.text.size());
      if (!wanted(unit) || unit.text.size() > kLongestSentence) continue;
      sentence_ += unit.text;
      if (breaks) return;
    }
  }

  std::int64_t left_;
  const std::function<bool(std::string& text)>& next_;
  std::string text_, sentence_;
  std::string_view rest_;  // of text_
  bool done_ = false;
};

}  // namespace

std::unique_ptr<SentencePieceTokenizer> train_sentencepiece(
    const SentencePieceTraining& training, const std::function<bool(std::string& text)>& next) {
  const std::unordered_map<std::string, std::string> options = {
      {"model_type", "bpe"},
      {"vocab_size", text(training.vocabulary)},
      {"hard_vocab_limit", "false"},
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
  Sentences sentences(training.sample_bytes, next);
  check<DataError>(!sentences.done(), "tokenizer: there is no text to train on");
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(options, &sentences, &model);
  check<ConfigError>(status.ok(), "tokenizer: a vocabulary of ", training.vocabulary,
                     " cannot be trained: ", status.ToString());
  return std::make_unique<SentencePieceTokenizer>(model, "the trained tokenizer");
}

}  // namespace infini
