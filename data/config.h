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

enum class DataKind { kPasskey, kStore, kExamples };
constexpr std::array<std::pair<std::string_view, DataKind>, 3> enum_names(DataKind) {
  return {{{"passkey", DataKind::kPasskey},
           {"store", DataKind::kStore},
           {"examples", DataKind::kExamples}}};
}

enum class Sampler { kCrops, kLanes };
constexpr std::array<std::pair<std::string_view, Sampler>, 2> enum_names(Sampler) {
  return {{{"crops", Sampler::kCrops}, {"lanes", Sampler::kLanes}}};
}

enum class PasskeyTokens { kWords, kBytes };
constexpr std::array<std::pair<std::string_view, PasskeyTokens>, 2> enum_names(PasskeyTokens) {
  return {{{"words", PasskeyTokens::kWords}, {"bytes", PasskeyTokens::kBytes}}};
}

enum class DocumentCut { kEnd, kMiddle };
constexpr std::array<std::pair<std::string_view, DocumentCut>, 2> enum_names(DocumentCut) {
  return {{{"end", DocumentCut::kEnd}, {"middle", DocumentCut::kMiddle}}};
}

// Of a row at most: beyond it a key is a slip, and the tokens of a step would not be a number.
constexpr std::int64_t kMostTokens = std::int64_t{1} << 40;

// Generated passkey rows. All prompts of a step have one length.
struct PasskeyConfig {
  PasskeyTokens tokens = PasskeyTokens::kWords;
  std::string tokenizer = {};
  int digits = 5;
  std::vector<std::int64_t> row_segments = {2, 4, 8};
  std::vector<std::int64_t> row_tokens = {};
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
    field("row_tokens", row_tokens,
          "the same in tokens, in place of row_segments; the last segment need not be full");
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

  // In tokens, ascending. ConfigError for a length beyond all reason.
  std::vector<std::int64_t> prompt_lengths(std::int64_t segment_tokens) const;
  // Those that rows have: of one prompt, or of the longest where they are packed.
  std::vector<std::int64_t> row_lengths(std::int64_t segment_tokens) const;
};

// Documents that are read and summaries of them that are learned.
struct ExamplesConfig {
  std::string prompt = "\nSummary:\n";
  std::int64_t document_tokens = 0;
  DocumentCut cut = DocumentCut::kEnd;
  std::int64_t summary_tokens = 1024;
  std::int64_t sorted_steps = 16;

  template <class Visitor>
  void visit(Visitor& field) {
    field("prompt", prompt, "text between a document and its summary");
    field("document_tokens", document_tokens,
          "tokens of a document that are read at most; 0: as many as data.row_tokens has room for");
    field("cut", cut, "what a document that is too long loses: its end, or its middle");
    field("summary_tokens", summary_tokens,
          "tokens of a summary that are learned at most; one that is cut has no end");
    field("sorted_steps", sorted_steps,
          "steps among which the examples go by length, so that a step has rows of about one "
          "length and little padding; 1: none are sorted");
  }
  void validate() const;
};

struct DataConfig {
  DataKind source = DataKind::kPasskey;
  std::string store = {};
  Sampler sampler = Sampler::kCrops;
  std::int64_t row_tokens = 4096;
  int batch_rows = 8;
  PasskeyConfig passkey = {};
  ExamplesConfig examples = {};

  template <class Visitor>
  void visit(Visitor& field) {
    field("source", source,
          "passkey: generated rows of the retrieval task; store: a prepared corpus; examples: "
          "documents with summaries, prepared as format booksum");
    field("store", store, "folder that `infini prepare` wrote: train.h5, validation.h5, test.h5");
    field("sampler", sampler,
          "crops: independent rows; lanes: rows read documents front to back, memory carried "
          "between steps");
    field("row_tokens", row_tokens,
          "tokens of a row, of examples at most; passkey rows take passkey.row_segments instead");
    field("batch_rows", batch_rows, "rows of a step, over all ranks");
    field("passkey", passkey, "the generated task, for source passkey");
    field("examples", examples, "documents and their summaries, for source examples");
  }
  void validate() const;

  std::int64_t longest_row_tokens(std::int64_t segment_tokens) const;
};

// The store of one split: <data.store>/<split>.h5.
std::shared_ptr<const TokenStore> open_store(const DataConfig& config,
                                             const std::string& split = "train");

// The source of training steps. `total_steps` is the length of the run, which passkey.short_share
// divides; `store` spares opening it again when it is already open. Rows whose length varies divide
// into `row_parts` parts of whole segments.
std::unique_ptr<BatchSource> make_source(const DataConfig& config, std::int64_t segment_tokens,
                                         std::uint64_t seed, std::int64_t total_steps,
                                         std::shared_ptr<const TokenStore> store = nullptr,
                                         int row_parts = 1);

}  // namespace infini
