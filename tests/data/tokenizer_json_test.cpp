// What a tokenizer.json must not say, by the message that refuses it.
#include "data/tokenizer_json.h"

#include "tensor/error.h"
#include "tests/data/json_tokenizer_fixtures.h"

namespace infini {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::StartsWith;

std::string refusal_of(const std::string& bytes) {
  const std::string message = message_of<DataError>([&] { JsonTokenizer(bytes, "x.json"); });
  EXPECT_THAT(message, StartsWith("x.json: "));
  return message;
}

// The message when the value at `pointer` of the small tokenizer is `value`.
std::string refusal(const std::string& pointer, const json& value) {
  json file = plain_tokenizer_json();
  file[json::json_pointer(pointer)] = value;
  return refusal_of(file.dump());
}
std::string refusal_without(const std::string& parent, const std::string& key) {
  json file = plain_tokenizer_json();
  file[json::json_pointer(parent)].erase(key);
  return refusal_of(file.dump());
}

struct Case {
  std::string pointer;
  json value;
  std::string message;
};

TEST(TokenizerJson, RefusesWhatWouldGiveOtherIds) {
  const json split = {{"type", "Split"},
                      {"pattern", {{"Regex", "\\s+"}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  const json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  const auto sequence = [](const json& steps) {
    return json{{"type", "Sequence"}, {"pretokenizers", steps}};
  };
  const auto with = [](json value, const std::string& key, const json& changed) {
    value[key] = changed;
    return value;
  };
  const std::string steps =
      ", expected ByteLevel, or a Sequence of a Split by regular expression and ByteLevel";
  const Case cases[] = {
      {"/model/type", "Unigram", "model.type is \"Unigram\", expected BPE"},
      {"/model/type", "WordPiece", "model.type is \"WordPiece\", expected BPE"},
      {"/model/type", 7, "model.type is 7, expected a string"},
      {"/model/dropout", 0.1, "model.dropout is 0.1, expected null"},
      {"/model/byte_fallback", true, "model.byte_fallback is true, expected false"},
      {"/model/ignore_merges", "yes", "model.ignore_merges is \"yes\", expected true or false"},
      {"/model/continuing_subword_prefix", "##",
       "model.continuing_subword_prefix is \"##\", expected null or empty"},
      {"/model/end_of_word_suffix", "</w>",
       "model.end_of_word_suffix is \"</w>\", expected null or empty"},
      {"/model/alphabet", 1, "model.alphabet is 1, expected no such key"},
      {"/chat", {1, 2}, "chat is an array of 2, expected no such key"},
      {"/truncation", {{"max_length", 5}}, "truncation is an object of 1, expected null"},
      {"/padding", "left", "padding is \"left\", expected null"},
      {"/normalizer", {{"type", "NFKC"}}, "normalizer.type is \"NFKC\", expected NFC"},
      {"/normalizer",
       {{"type", "Sequence"}, {"normalizers", {{{"type", "Lowercase"}}}}},
       "normalizer.normalizers[0].type is \"Lowercase\", expected NFC"},
      {"/pre_tokenizer", nullptr, "pre_tokenizer is null" + steps},
      {"/pre_tokenizer", {{"type", "Whitespace"}}, "pre_tokenizer.type is \"Whitespace\"" + steps},
      {"/pre_tokenizer", sequence({bytes, {{"type", "Digits"}}}),
       "pre_tokenizer.pretokenizers[1].type is \"Digits\"" + steps},
      {"/pre_tokenizer", sequence({{{"type", "Digits"}}, bytes}),
       "pre_tokenizer.pretokenizers[0].type is \"Digits\"" + steps},
      {"/pre_tokenizer", sequence(json::array()),
       "pre_tokenizer.pretokenizers is an array of 0" + steps},
      {"/pre_tokenizer", sequence({split, split, bytes}),
       "pre_tokenizer.pretokenizers is an array of 3" + steps},
      {"/pre_tokenizer", sequence({split, bytes}),
       "pre_tokenizer.pretokenizers[0].pattern.Regex is \"\\\\s+\", expected the expressions of "
       "GPT-2, Llama 3 and Qwen2"},
      {"/pre_tokenizer", sequence({with(split, "pattern", {{"String", " "}}), bytes}),
       "pre_tokenizer.pretokenizers[0].pattern.String is \" \", expected no such key"},
      {"/pre_tokenizer", sequence({with(split, "behavior", "Removed"), bytes}),
       "pre_tokenizer.pretokenizers[0].behavior is \"Removed\", expected Isolated"},
      {"/pre_tokenizer", sequence({with(split, "invert", true), bytes}),
       "pre_tokenizer.pretokenizers[0].invert is true, expected false"},
      {"/pre_tokenizer", sequence({split, with(bytes, "use_regex", true)}),
       "pre_tokenizer.pretokenizers[1].use_regex is true, expected false after a Split"},
      {"/pre_tokenizer", sequence({split, with(bytes, "add_prefix_space", true)}),
       "pre_tokenizer.pretokenizers[1].add_prefix_space is true, expected false after a Split"},
      {"/pre_tokenizer/use_regex", false,
       "pre_tokenizer.use_regex is false, expected true where there is no Split before ByteLevel"},
      {"/post_processor",
       {{"type", "Other"}},
       "post_processor.type is \"Other\", expected ByteLevel, TemplateProcessing, or a Sequence"},
      {"/decoder", nullptr, "decoder is null, expected ByteLevel"},
      {"/decoder/type", "Metaspace", "decoder.type is \"Metaspace\", expected ByteLevel"},
  };
  for (const Case& one : cases)
    EXPECT_THAT(refusal(one.pointer, one.value), HasSubstr(one.message)) << one.pointer;
}

TEST(TokenizerJson, RefusesVocabulariesThatDoNotAddUp) {
  const std::string every = ", expected every id from 0 to 259 once for 260 tokens of model.vocab";
  const Case cases[] = {
      {"/model/vocab/in", 258, "is 258" + every},  // " the" has it as well
      {"/model/vocab/in", 260, "model.vocab.in is 260" + every},
      {"/model/vocab/in", -1, "model.vocab.in is -1, expected an integer from 0 to 2147483647"},
      {"/model/vocab/in", 1.5, "model.vocab.in is 1.5, expected an integer"},
      {"/model/vocab/in", 1e300, "model.vocab.in is 1e+300, expected an integer"},
      {"/model/vocab/in", std::uint64_t{1} << 40, "model.vocab.in is 1099511627776, expected"},
      {"/model/vocab/in", "259", "model.vocab.in is \"259\", expected an integer"},
      {"/model/vocab", {"a", "b"}, "model.vocab is an array of 2, expected an object"},
      {"/model/vocab", json::object(), "model.vocab is an object of 0, expected an object of"},
      {"/model/merges", "h e", "model.merges is \"h e\", expected an array"},
      {"/model/merges/1", "h e r",
       "model.merges[1] is \"h e r\", expected two tokens with a space"},
      {"/model/merges/1", "he", "model.merges[1] is \"he\", expected two tokens with a space"},
      {"/model/merges/1", {"h", "e", "r"}, "model.merges[1] is an array of 3, expected two tokens"},
      {"/model/merges/1", {"h", 5}, "model.merges[1][1] is 5, expected a string"},
      {"/model/merges/1", 5, "model.merges[1] is 5, expected an array"},
      {"/model/merges/1", "h zz",
       "model.merges[1] is \"h zz\", expected tokens of model.vocab, "
       "and 'zz' is none"},
      {"/model/merges/1", "h i",
       "model.merges[1] is \"h i\", expected tokens of model.vocab, and "
       "'hi' is none"},
      {"/model/merges/1", "i n", "model.merges[3] is \"i n\", expected each pair once"},
      {"/added_tokens/0/id", 261,
       "added_tokens[0].id is 261, expected 260, the next id in the order of added_tokens"},
      {"/added_tokens/0/id", 0, "added_tokens[0].id is 0, expected 260"},
      {"/added_tokens/0/content", "he", "added_tokens[0].id is 260, expected 257, its id in model"},
      {"/added_tokens/0/content", "", "added_tokens[0].content is \"\", expected 1 to 1024 bytes"},
      {"/added_tokens/0/content", std::string(1025, 'x'), "xxx..., expected 1 to 1024 bytes"},
      {"/added_tokens/0/lstrip", 1, "added_tokens[0].lstrip is 1, expected true or false"},
      {"/added_tokens/0/color", 1, "added_tokens[0].color is 1, expected no such key"},
      {"/added_tokens", 5, "added_tokens is 5, expected an array"},
  };
  for (const Case& one : cases)
    EXPECT_THAT(refusal(one.pointer, one.value), HasSubstr(one.message)) << one.pointer;

  json twice = plain_tokenizer_json();
  twice["added_tokens"].push_back(twice["added_tokens"][0]);
  EXPECT_THAT(
      refusal_of(twice.dump()),
      HasSubstr("added_tokens[1].content is \"<|endoftext|>\", expected each content once"));
  json composed = plain_tokenizer_json();
  composed["normalizer"] = {{"type", "NFC"}};
  for (const char* content : {"x\xC3\xA9", "xe\xCC\x81"}) {
    json token = composed["added_tokens"][0];
    token["id"] = 260 + composed["added_tokens"].size();
    token["content"] = content;
    token["normalized"] = true;
    composed["added_tokens"].push_back(token);
  }
  EXPECT_THAT(refusal_of(composed.dump()), HasSubstr("expected each content once in normal form"));
}

TEST(TokenizerJson, RefusesWhatIsMissing) {
  EXPECT_THAT(refusal_without("", "model"), HasSubstr("model is missing"));
  EXPECT_THAT(refusal_without("", "pre_tokenizer"), HasSubstr("pre_tokenizer is missing"));
  EXPECT_THAT(refusal_without("", "decoder"), HasSubstr("decoder is missing, expected ByteLevel"));
  EXPECT_THAT(refusal_without("", "added_tokens"), HasSubstr("added_tokens has no special token"));
  EXPECT_THAT(refusal_without("/model", "merges"), HasSubstr("model.merges is missing"));
  EXPECT_THAT(refusal_without("/model", "vocab"), HasSubstr("model.vocab is missing"));
  EXPECT_THAT(refusal_without("/pre_tokenizer", "type"),
              HasSubstr("pre_tokenizer.type is missing, expected a string"));
  EXPECT_THAT(refusal_without("/added_tokens/0", "id"), HasSubstr("added_tokens[0].id is missing"));

  json file = plain_tokenizer_json();  // without a byte, and its id taken by another token
  file["model"]["vocab"].erase("z");
  file["model"]["vocab"]["zz"] = 'z';
  EXPECT_THAT(refusal_of(file.dump()), HasSubstr("model.vocab is an object of 260, expected a "
                                                 "token for each of the 256 bytes; there is none "
                                                 "for byte 122"));
}

TEST(TokenizerJson, RefusesWhatIsNoSoundJson) {
  const std::string sound = plain_tokenizer_json().dump();
  EXPECT_THAT(refusal_of(""), HasSubstr("no JSON from byte 1 of 0 on"));
  EXPECT_THAT(refusal_of("no"), HasSubstr("no JSON from byte "));
  EXPECT_THAT(refusal_of(sound + "}"), HasSubstr("no JSON from byte "));
  EXPECT_THAT(refusal_of("[]"), HasSubstr("the file is an array of 0, expected an object"));
  EXPECT_THAT(refusal_of("7"), HasSubstr("the file is 7, expected an object"));
  EXPECT_THAT(refusal_of(R"({"model": 1, "model": 2})"),
              HasSubstr("the key \"model\" stands twice in an object"));
  EXPECT_THAT(refusal_of("{\"model\": \"\xFF\"}"), HasSubstr("no JSON from byte "));
  EXPECT_THAT(refusal_of("{\"model\": \"\\uD800\"}"), HasSubstr("no JSON from byte "));
  EXPECT_THAT(refusal_of("{\"model\": 1e999}"), HasSubstr("no sound JSON"));
  EXPECT_THAT(refusal_of("{\"model\": 99999999999999999999999}"), HasSubstr("model is 9.99"));
  for (const char* open : {"[", "{\"a\":"}) {
    std::string deep;
    for (int i = 0; i < 1 << 20; ++i) deep += open;
    EXPECT_THAT(refusal_of(deep), HasSubstr("has values inside more than 32 others"));
  }
}

// Anything may come of a file that was cut or changed, but no crash and no silence.
TEST(TokenizerJson, NeverCrashesOnAFileThatIsCutOrChanged) {
  const std::string small = plain_tokenizer_json().dump();
  std::ifstream file(json_tokenizer_file("qwen2.json"), std::ios::binary);
  const std::string large((std::istreambuf_iterator<char>(file)), {});
  int refused = 0, read = 0;
  const auto attempt = [&](const std::string& bytes) {
    try {
      const JsonTokenizer tokenizer(bytes, "x.json");
      const std::string text = "the thin e\xCC\x81 <|endoftext|> 123";
      tokenizer.decode(tokenizer.encode(text));
      ++read;
    } catch (const DataError& error) {
      EXPECT_THAT(error.what(), StartsWith("x.json: "));
      ++refused;
    }
  };
  for (std::uint64_t i = 0; i < 3000; ++i) {
    const RandomKey stream{i, 0, 2};
    std::string bytes = i % 30 ? small : large;
    const std::size_t at = stream.below(0, bytes.size());
    switch (stream.below(1, 4)) {
      case 0:
        bytes.resize(at);
        break;
      case 1:
        bytes[at] = static_cast<char>(stream.below(2, 256));
        break;
      case 2:
        bytes.erase(at, 1 + stream.below(2, 20));
        break;
      default:
        bytes.insert(at, bytes.substr(stream.below(2, bytes.size()), stream.below(3, 40)));
    }
    attempt(bytes);
  }
  EXPECT_GT(refused, 1500);
  EXPECT_GT(read, 10) << "some changes leave it sound";
}

TEST(TokenizerJson, SaysWhatTheFileSays) {
  const TokenizerJson llama3 = parse_tokenizer_json(json_tokenizer_json("llama3").dump(), "x");
  EXPECT_EQ(llama3.pattern, SplitPattern::kLlama3);
  EXPECT_TRUE(llama3.ignore_merges);
  EXPECT_FALSE(llama3.compose);
  const TokenizerJson qwen2 = parse_tokenizer_json(json_tokenizer_json("qwen2").dump(), "x");
  EXPECT_EQ(qwen2.pattern, SplitPattern::kQwen2);
  EXPECT_TRUE(qwen2.compose);
  EXPECT_EQ(qwen2.tokens.size(), 1506u);
  EXPECT_EQ(qwen2.tokens[1503], "cafe\xCC\x81");
  EXPECT_FALSE(qwen2.is_piece[1503]);
  const TokenizerJson gpt2 = parse_tokenizer_json(json_tokenizer_json("gpt2").dump(), "x");
  EXPECT_EQ(gpt2.pattern, SplitPattern::kGpt2);
  EXPECT_EQ(gpt2.merges.size(), 1244u);
  EXPECT_FALSE(gpt2.add_prefix_space);
}

// A token may be a piece of text as well: GPT-2's own file lists <|endoftext|> in both places.
TEST(TokenizerJson, TakesAddedTokensThatTheVocabularyHas) {
  json file = plain_tokenizer_json();
  file["model"]["vocab"]["<|endoftext|>"] = 260;
  const auto tokenizer = json_tokenizer(file);
  EXPECT_EQ(tokenizer->vocabulary(), 261);
  EXPECT_EQ(tokenizer->encode("<|endoftext|>"), std::vector<std::int32_t>{260});
  EXPECT_EQ(tokenizer->decode(std::vector<std::int32_t>{260}), "");
}

}  // namespace
}  // namespace infini
