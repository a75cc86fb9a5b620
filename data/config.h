// The `data` block of a run's configuration, and the source it describes.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/batch.h"
#include "data/token_store.h"
#include "tensor/error.h"

namespace infini {

enum class DataKind { kPasskey, kStore };
constexpr std::array<std::pair<std::string_view, DataKind>, 2> enum_names(DataKind) {
  return {{{"passkey", DataKind::kPasskey}, {"store", DataKind::kStore}}};
}

enum class Sampler { kCrops, kLanes };
constexpr std::array<std::pair<std::string_view, Sampler>, 2> enum_names(Sampler) {
  return {{{"crops", Sampler::kCrops}, {"lanes", Sampler::kLanes}}};
}

enum class PasskeyTokens { kWords, kBytes };
constexpr std::array<std::pair<std::string_view, PasskeyTokens>, 2> enum_names(PasskeyTokens) {
  return {{{"words", PasskeyTokens::kWords}, {"bytes", PasskeyTokens::kBytes}}};
}

// Generated passkey rows. All prompts of a step have one length.
struct PasskeyConfig {
  PasskeyTokens tokens = PasskeyTokens::kWords;
  std::string tokenizer;
  int digits = 5;
  std::vector<std::int64_t> row_segments = {2, 4, 8};
  bool packed = false;
  double short_share = 0.33;
  double growing_share = 0;
  double ends_share = 0.2;
  double filler_weight = 0.2;
  double answer_share = 0;

  template <class Visitor>
  void visit(Visitor& field) {
    field("tokens", tokens, "words: each word, mark and digit is a token; bytes: each byte is one");
    field("tokenizer", tokenizer,
          "file of a tokenizer that takes the place of `tokens`: that of a model to be fine-tuned");
    field("digits", digits, "digits of a key, random in every row");
    field("row_segments", row_segments,
          "lengths of prompts in segments; every step draws one of them");
    field(
        "packed", packed,
        "every row has the greatest length; as many shorter prompts stand in it side by side, each "
        "with an empty memory. Else a row is one prompt");
    field("short_share", short_share,
          "share of the steps, the first ones, that stay on the shortest prompts");
    field("growing_share", growing_share,
          "share of the steps, those that follow, over which one length after another joins those "
          "that are drawn, shorter ones first");
    field("ends_share", ends_share,
          "share of rows whose key stands at the very start or end; the others: anywhere alike");
    field("filler_weight", filler_weight,
          "loss weight of tokens outside the answer, which weighs 1");
    field(
        "answer_share", answer_share,
        "share of a step's loss weight that answers have, whatever the length of prompts, in place "
        "of filler_weight; 0: filler_weight counts");
  }
  void validate() const;

  std::int64_t longest_segments() const;
  // The lengths that rows have.
  std::vector<std::int64_t> lengths_of_rows() const;
};

struct DataConfig {
  DataKind source = DataKind::kPasskey;
  std::string store = {};
  Sampler sampler = Sampler::kCrops;
  std::int64_t row_tokens = 4096;
  int batch_rows = 8;
  PasskeyConfig passkey = {};

  template <class Visitor>
  void visit(Visitor& field) {
    field("source", source,
          "passkey: generated rows of the retrieval task; store: a prepared corpus");
    field("store", store, "folder that `infini prepare` wrote: train.h5, validation.h5, test.h5");
    field("sampler", sampler,
          "crops: independent rows; lanes: rows read documents front to back, memory carried "
          "between steps");
    field("row_tokens", row_tokens,
          "tokens of a row; passkey rows take passkey.row_segments instead");
    field("batch_rows", batch_rows, "rows of a step, over all ranks");
    field("passkey", passkey, "the generated task, for source passkey");
  }
  void validate() const;

  std::int64_t longest_row_tokens(std::int64_t segment_tokens) const;
};

// The store of one split: <data.store>/<split>.h5.
std::shared_ptr<const TokenStore> open_store(const DataConfig& config,
                                             const std::string& split = "train");

// The source of training steps. `total_steps` is the length of the run, which passkey.short_share
// divides; `store` spares opening it again when it is already open.
std::unique_ptr<BatchSource> make_source(const DataConfig& config, std::int64_t segment_tokens,
                                         std::uint64_t seed, std::int64_t total_steps,
                                         std::shared_ptr<const TokenStore> store = nullptr);

}  // namespace infini
