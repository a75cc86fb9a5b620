// Tokenizers of tests/data/tokenizers, and a small one to change keys of.
//
// gpt2.json, llama3.json and qwen2.json have 1500 pieces each, the key layout of those models'
// files and added tokens of every sort. texts.jsonl has texts with the ids that Hugging Face's
// tokenizers 0.23 gives for each of them with add_special_tokens=False.
#pragma once

#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/json_tokenizer.h"
#include "tests/data/fixtures.h"

namespace infini {

inline const std::string kJsonTokenizers[] = {"gpt2", "llama3", "qwen2"};

inline std::filesystem::path json_tokenizer_file(const std::string& name) {
  return std::filesystem::path(INFINI_SOURCE_DIR) / "tests/data/tokenizers" / name;
}

inline nlohmann::json json_tokenizer_json(const std::string& name) {
  std::ifstream file(json_tokenizer_file(name + ".json"));
  return nlohmann::json::parse(file);
}

inline std::unique_ptr<JsonTokenizer> json_tokenizer(const nlohmann::json& json) {
  return std::make_unique<JsonTokenizer>(json.dump(), "x.json");
}

// One of kJsonTokenizers.
inline const JsonTokenizer& json_tokenizer(const std::string& name) {
  static std::map<std::string, std::unique_ptr<JsonTokenizer>> read;
  auto& tokenizer = read[name];
  if (!tokenizer) tokenizer = json_tokenizer(json_tokenizer_json(name));
  return *tokenizer;
}

// Texts and, by name of a tokenizer, their ids.
inline const std::vector<nlohmann::json>& json_tokenizer_texts() {
  static const std::vector<nlohmann::json> texts = [] {
    std::vector<nlohmann::json> read;
    std::ifstream file(json_tokenizer_file("texts.jsonl"));
    for (std::string line; std::getline(file, line);) read.push_back(nlohmann::json::parse(line));
    return read;
  }();
  return texts;
}

// The letter in which byte-level vocabularies write a byte.
inline std::string letter_of(int wanted) {
  std::uint32_t next = 0x100, code = 0;
  for (int byte = 0; byte <= wanted; ++byte) {
    const bool itself = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
    code = itself ? static_cast<std::uint32_t>(byte) : next++;
  }
  std::string letter;
  append_utf8(letter, code);
  return letter;
}

// Byte b is token b; 256 " t", 257 "he", 258 " the", 259 "in"; 260 <|endoftext|>. Cuts as GPT-2.
inline nlohmann::json plain_tokenizer_json() {
  nlohmann::json vocab;
  for (int byte = 0; byte < 256; ++byte) vocab[letter_of(byte)] = byte;
  const std::string space = letter_of(' ');
  vocab[space + "t"] = 256;
  vocab["he"] = 257;
  vocab[space + "the"] = 258;
  vocab["in"] = 259;
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens",
           {{{"id", 260},
             {"content", "<|endoftext|>"},
             {"single_word", false},
             {"lstrip", false},
             {"rstrip", false},
             {"normalized", false},
             {"special", true}}}},
          {"normalizer", nullptr},
          {"pre_tokenizer",
           {{"type", "ByteLevel"},
            {"add_prefix_space", false},
            {"trim_offsets", true},
            {"use_regex", true}}},
          {"post_processor", nullptr},
          {"decoder",
           {{"type", "ByteLevel"},
            {"add_prefix_space", true},
            {"trim_offsets", true},
            {"use_regex", true}}},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", vocab},
            {"merges", {space + " t", "h e", space + "t he", "i n"}}}}};
}

}  // namespace infini
