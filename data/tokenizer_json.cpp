#include "data/tokenizer_json.h"

#include <algorithm>
#include <optional>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "data/byte_alphabet.h"
#include "data/composed_text.h"
#include "data/strict_json.h"
#include "tensor/error.h"

namespace infini {
namespace {

using Vocabulary = std::unordered_map<std::string, std::int32_t>;

constexpr std::size_t kLongestAddedToken = 1024;

// normalizer: none or NFC.
bool read_normalizer(const JsonValue& normalizer) {
  if (normalizer.is_null()) return false;
  const std::string& type = normalizer["type"].string();
  if (type == "NFC") {
    normalizer.allow_keys({"type"});
    return true;
  }
  normalizer["type"].require(type == "Sequence", "NFC, or a Sequence of them");
  normalizer.allow_keys({"type", "normalizers"});
  bool compose = false;
  for (std::size_t i = 0; i < normalizer["normalizers"].size(); ++i)
    compose |= read_normalizer(normalizer["normalizers"].at(i));
  return compose;
}

// ByteLevel, cutting by GPT-2's expression itself or after a Split by one of those known.
void read_pre_tokenizer(const JsonValue& pre, TokenizerJson& out) {
  constexpr const char* kSupported =
      "ByteLevel, or a Sequence of a Split by regular expression and ByteLevel";
  pre.require(!pre.is_null(), kSupported);
  std::vector<JsonValue> steps;
  if (pre["type"].string() == "Sequence") {
    pre.allow_keys({"type", "pretokenizers"});
    for (std::size_t i = 0; i < pre["pretokenizers"].size(); ++i)
      steps.push_back(pre["pretokenizers"].at(i));
    pre["pretokenizers"].require(steps.size() == 1 || steps.size() == 2, kSupported);
  } else {
    steps.push_back(pre);
  }

  const JsonValue& bytes = steps.back();
  bytes["type"].require(bytes["type"].string() == "ByteLevel", kSupported);
  bytes.allow_keys({"type", "add_prefix_space", "trim_offsets", "use_regex"});
  out.add_prefix_space = bytes["add_prefix_space"].boolean(true);
  const JsonValue use_regex = bytes["use_regex"];
  if (steps.size() == 1) {
    use_regex.require(use_regex.boolean(true), "true where there is no Split before ByteLevel");
    out.pattern = SplitPattern::kGpt2;
    return;
  }
  use_regex.require(!use_regex.boolean(true), "false after a Split");
  bytes["add_prefix_space"].require(!out.add_prefix_space, "false after a Split");

  const JsonValue& split = steps.front();
  split["type"].require(split["type"].string() == "Split", kSupported);
  split.allow_keys({"type", "pattern", "behavior", "invert"});
  split["behavior"].require(split["behavior"].string() == "Isolated", "Isolated");
  split["invert"].require(!split["invert"].boolean(false), "false");
  split["pattern"].allow_keys({"Regex"});
  const JsonValue regex = split["pattern"]["Regex"];
  const std::optional<SplitPattern> pattern = split_pattern(regex.string());
  regex.require(pattern.has_value(), split_pattern_names());
  out.pattern = *pattern;
}

// What follows encoding adds marks at the ends or moves offsets; our token stores put their own
// marks around documents, so it is only recognised.
void read_post_processor(const JsonValue& post) {
  if (post.is_null()) return;
  const std::string& type = post["type"].string();
  if (type == "Sequence") {
    for (std::size_t i = 0; i < post["processors"].size(); ++i)
      read_post_processor(post["processors"].at(i));
    return;
  }
  post["type"].require(type == "ByteLevel" || type == "TemplateProcessing",
                       "ByteLevel, TemplateProcessing, or a Sequence of them");
}

void read_decoder(const JsonValue& decoder) {
  decoder.require(!decoder.is_null(), "ByteLevel");
  const std::string& type = decoder["type"].string();
  if (type == "Sequence") {
    decoder["decoders"].require(decoder["decoders"].size() == 1, "one decoder, ByteLevel");
    return read_decoder(decoder["decoders"].at(0));
  }
  decoder["type"].require(type == "ByteLevel", "ByteLevel");
}

Vocabulary read_vocabulary(const JsonValue& vocab) {
  Vocabulary ids;
  vocab.require(vocab.size() > 0, "an object of tokens");
  for (const std::string& token : vocab.keys()) ids.emplace(token, vocab[token].integer());
  return ids;
}

std::vector<AddedToken> read_added_tokens(const JsonValue& list, const Vocabulary& vocabulary,
                                          bool compose) {
  std::vector<AddedToken> tokens;
  if (list.is_null()) return tokens;
  std::set<std::string> contents, composed_contents;
  std::string storage;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const JsonValue item = list.at(i);
    item.allow_keys({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
    AddedToken token{.content = item["content"].string(), .id = item["id"].integer()};
    token.single_word = item["single_word"].boolean(false);
    token.lstrip = item["lstrip"].boolean(false);
    token.rstrip = item["rstrip"].boolean(false);
    token.special = item["special"].boolean(false);
    token.normalized = item["normalized"].boolean(!token.special);
    item["content"].require(!token.content.empty() && token.content.size() <= kLongestAddedToken,
                            text("1 to ", kLongestAddedToken, " bytes"));
    item["content"].require(contents.insert(token.content).second, "each content once");
    if (compose && token.normalized)
      item["content"].require(
          composed_contents.emplace(composed_text(token.content, storage)).second,
          "each content once in normal form");
    const auto known = vocabulary.find(token.content);
    if (known != vocabulary.end()) {
      if (known->second != token.id)
        item["id"].refuse(text(known->second, ", its id in model.vocab"));
      item["content"].require(
          bytes_of_letters(token.content).value_or(token.content) == token.content,
          "no letters for bytes beyond ASCII, as it is in model.vocab as well");
    }
    tokens.push_back(std::move(token));
  }
  return tokens;
}

// Puts every token at its id and finds the 256 that stand for bytes.
void place_tokens(const JsonValue& file, const Vocabulary& vocabulary, TokenizerJson& out) {
  const std::size_t count = vocabulary.size();
  out.tokens.resize(count);
  out.is_piece.resize(count, false);
  out.bytes.fill(-1);
  std::vector<bool> taken(count, false);
  const JsonValue vocab = file["model"]["vocab"];
  for (const auto& [token, id] : vocabulary) {
    const auto at = static_cast<std::size_t>(id);
    if (at >= count || taken[at])
      vocab[token].refuse(
          text("every id from 0 to ", count - 1, " once for ", count, " tokens of model.vocab"));
    taken[at] = true;
    const std::optional<std::string> bytes = bytes_of_letters(token);
    out.is_piece[at] = bytes && !bytes->empty();
    out.tokens[at] = bytes.value_or(token);
    if (bytes && bytes->size() == 1) out.bytes[static_cast<unsigned char>((*bytes)[0])] = id;
  }
  const auto missing = std::find(out.bytes.begin(), out.bytes.end(), -1);
  if (missing != out.bytes.end())
    vocab.refuse(text("a token for each of the 256 bytes; there is none for byte ",
                      missing - out.bytes.begin()));

  // Whatever their "id" says, the original numbers the others from there on in their order.
  for (std::size_t i = 0; i < out.added_tokens.size(); ++i) {
    const AddedToken& token = out.added_tokens[i];
    if (vocabulary.contains(token.content)) {
      out.tokens[static_cast<std::size_t>(token.id)] = token.content;
      continue;
    }
    if (static_cast<std::size_t>(token.id) != out.tokens.size())
      file["added_tokens"].at(i)["id"].refuse(
          text(out.tokens.size(), ", the next id in the order of added_tokens"));
    out.tokens.push_back(token.content);
    out.is_piece.push_back(false);
  }
}

void read_merges(const JsonValue& list, const Vocabulary& vocabulary, std::vector<Merge>& merges) {
  std::unordered_set<std::uint64_t> pairs;
  const auto id_of = [&](const JsonValue& merge, const std::string& token) {
    const auto found = vocabulary.find(token);
    if (found == vocabulary.end())
      merge.refuse(text("tokens of model.vocab, and '", token, "' is none"));
    return found->second;
  };
  for (std::size_t i = 0; i < list.size(); ++i) {
    const JsonValue item = list.at(i);
    std::string left, right;
    if (item.is_string()) {
      const std::string both = item.string();
      const std::size_t space = both.find(' ');
      item.require(space != both.npos && both.find(' ', space + 1) == both.npos,
                   "two tokens with a space between them");
      left = both.substr(0, space);
      right = both.substr(space + 1);
    } else {
      item.require(item.size() == 2, "two tokens");
      left = item.at(0).string();
      right = item.at(1).string();
    }
    const Merge merge{.left = id_of(item, left),
                      .right = id_of(item, right),
                      .merged = id_of(item, left + right)};
    const std::uint64_t pair =
        static_cast<std::uint64_t>(merge.left) << 32 | static_cast<std::uint32_t>(merge.right);
    item.require(pairs.insert(pair).second, "each pair once");
    merges.push_back(merge);
  }
}

// The settings of a BPE model that would change how pieces are encoded.
void read_model(const JsonValue& model, TokenizerJson& out) {
  model["type"].require(model["type"].is_null() || model["type"].string() == "BPE", "BPE");
  model.allow_keys({"type", "dropout", "unk_token", "continuing_subword_prefix",
                    "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges", "vocab",
                    "merges"});
  model["dropout"].require(model["dropout"].is_null(), "null");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    model[key].require(model[key].is_null() || model[key].string().empty(), "null or empty");
  model["byte_fallback"].require(!model["byte_fallback"].boolean(false), "false");
  out.ignore_merges = model["ignore_merges"].boolean(false);
}

}  // namespace

TokenizerJson parse_tokenizer_json(std::string_view bytes, const std::string& who) {
  const StrictJson document(bytes, who);
  const JsonValue file = document.root();
  file.allow_keys({"version", "truncation", "padding", "added_tokens", "normalizer",
                   "pre_tokenizer", "post_processor", "decoder", "model"});
  file["model"].require(!file["model"].is_null(), "the model of a tokenizer.json");
  for (const char* key : {"truncation", "padding"}) file[key].require(file[key].is_null(), "null");

  TokenizerJson out;
  read_model(file["model"], out);
  out.compose = read_normalizer(file["normalizer"]);
  read_pre_tokenizer(file["pre_tokenizer"], out);
  read_post_processor(file["post_processor"]);
  read_decoder(file["decoder"]);
  const Vocabulary vocabulary = read_vocabulary(file["model"]["vocab"]);
  out.added_tokens = read_added_tokens(file["added_tokens"], vocabulary, out.compose);
  place_tokens(file, vocabulary, out);
  read_merges(file["model"]["merges"], vocabulary, out.merges);
  return out;
}

}  // namespace infini
