#include "data/json_tokenizer.h"

#include <map>
#include <thread>

#include "data/composed_text.h"
#include "data/prepare.h"
#include "tensor/error.h"
#include "tests/data/json_tokenizer_fixtures.h"

namespace infini {
namespace {

using testing::ElementsAre;
using Ids = std::vector<std::int32_t>;

// What decoding must give for `text`: a qwen2 file asks for normal form C.
std::string as_read(const std::string& name, const std::string& text) {
  std::string storage;
  return name == "qwen2" ? std::string(composed_text(text, storage)) : text;
}

constexpr std::int32_t kFirstAdded = 1500;  // in the files of tests/data/tokenizers
bool has_added_token(const Ids& ids) {
  return std::ranges::any_of(ids, [](std::int32_t id) { return id >= kFirstAdded; });
}

// The small tokenizer with one more added token of these flags, id 261.
std::unique_ptr<JsonTokenizer> with_added(const std::string& content,
                                          const std::vector<std::string>& flags) {
  nlohmann::json json = plain_tokenizer_json();
  nlohmann::json token = json["added_tokens"][0];
  token["id"] = 261;
  token["content"] = content;
  token["special"] = false;
  for (const std::string& flag : flags) token[flag] = true;
  json["added_tokens"].push_back(token);
  return json_tokenizer(json);
}

class JsonTokenizerOf : public testing::TestWithParam<std::string> {
 protected:
  const JsonTokenizer& tokenizer_ = json_tokenizer(GetParam());
};

TEST_P(JsonTokenizerOf, GivesTheIdsOfTheOriginal) {
  ASSERT_GT(json_tokenizer_texts().size(), 80u);
  for (const nlohmann::json& line : json_tokenizer_texts())
    EXPECT_EQ(tokenizer_.encode(line["text"].get<std::string>()), line[GetParam()].get<Ids>())
        << line["text"];
}

TEST_P(JsonTokenizerOf, GivesBackTheText) {
  int whole = 0;
  for (const nlohmann::json& line : json_tokenizer_texts()) {
    const std::string text = line["text"];
    const Ids ids = tokenizer_.encode(text);
    if (has_added_token(ids)) continue;
    EXPECT_EQ(tokenizer_.decode(ids), as_read(GetParam(), text));
    ++whole;
  }
  EXPECT_GT(whole, 40);
}

TEST_P(JsonTokenizerOf, IsLosslessForRandomTextAndBytes) {
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    const std::string text = random_text(seed, 40, seed % 2);
    const Ids ids = tokenizer_.encode(text);
    ASSERT_EQ(tokenizer_.decode(ids), as_read(GetParam(), text)) << seed;
  }
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  EXPECT_EQ(tokenizer_.decode(tokenizer_.encode(all)), all);
}

TEST_P(JsonTokenizerOf, GivesTheSameWithAnEmptyCacheAndAFullOne) {
  const std::unique_ptr<JsonTokenizer> fresh = json_tokenizer(json_tokenizer_json(GetParam()));
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const std::string text = random_text(seed, 60, false);
    ASSERT_EQ(fresh->encode(text), tokenizer_.encode(text)) << seed;
  }
}

TEST_P(JsonTokenizerOf, SurvivesSerialisationAndFiles) {
  const TempFolder folder;
  const std::string text = "The white book's 1234 pages\r\n\n  of <|endoftext|> it\n";
  const auto copy = load_tokenizer(tokenizer_.serialise(), "copy");
  EXPECT_EQ(copy->kind(), "tokenizer.json");
  EXPECT_EQ(copy->hash(), tokenizer_.hash());
  EXPECT_EQ(copy->encode(text), tokenizer_.encode(text));
  EXPECT_EQ(copy->end_of_text(), tokenizer_.end_of_text());
  ASSERT_EQ(tokenizer_file_name(tokenizer_), "tokenizer.json");
  for (const char* name : {"tokenizer.json", "under-another-name"}) {
    save_tokenizer(tokenizer_, folder / name);
    EXPECT_EQ(read_tokenizer(folder / name)->hash(), tokenizer_.hash());
  }
}

TEST_P(JsonTokenizerOf, MayEncodeOnSeveralThreads) {
  std::string text;
  for (std::uint64_t seed = 0; seed < 100; ++seed) text += random_text(seed, 50, false);
  const Ids expected = tokenizer_.encode(text);
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int k = 0; k < 3; ++k) EXPECT_EQ(tokenizer_.encode(text), expected);
    });
}

TEST_P(JsonTokenizerOf, FillsStoresThatGiveTheTextBack) {
  const TempFolder folder;
  std::map<std::string, std::string> texts;
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    const std::string name = "train/" + std::to_string(seed) + ".txt";
    texts[name] = random_text(seed, 400, false);
    put_file(folder / ("corpus/" + name), texts[name]);
  }
  const auto file = json_tokenizer_file(GetParam() + ".json");
  const PrepareReport report = prepare({.corpus = folder / "corpus",
                                        .output = folder / "out",
                                        .tokenizer_file = file,
                                        .threads = 3});
  EXPECT_EQ(report.tokenizer, folder / "out/tokenizer.json");
  EXPECT_EQ(read_tokenizer(report.tokenizer)->hash(), read_tokenizer(file)->hash());
  const auto store = TokenStore::open(folder / "out/train.h5");
  EXPECT_EQ(store->tokenizer().hash(), read_tokenizer(file)->hash());
  ASSERT_EQ(store->documents().size(), texts.size());
  auto expected = texts.begin();
  for (const StoredDocument& document : store->documents())
    EXPECT_EQ(store->tokenizer().decode(store->read(document)),
              as_read(GetParam(), (expected++)->second))
        << document.name;
}

INSTANTIATE_TEST_SUITE_P(Files, JsonTokenizerOf, testing::ValuesIn(kJsonTokenizers),
                         [](const auto& made) { return made.param; });

TEST(JsonTokenizer, MergesWhatTheFileLists) {
  const auto tokenizer = json_tokenizer(plain_tokenizer_json());
  EXPECT_EQ(tokenizer->vocabulary(), 261);
  EXPECT_EQ(tokenizer->end_of_text(), 260);
  EXPECT_THAT(tokenizer->encode("the the"), ElementsAre('t', 257, 258));
  EXPECT_THAT(tokenizer->encode("thin "), ElementsAre('t', 'h', 259, ' '));
  EXPECT_THAT(tokenizer->encode(""), ElementsAre());
  EXPECT_EQ(tokenizer->decode(Ids{258, 259}), " thein");
}

TEST(JsonTokenizer, ReadsMergesAsStringsAndAsPairs) {
  nlohmann::json json = plain_tokenizer_json();
  nlohmann::json pairs = nlohmann::json::array();
  for (const std::string merge : json["model"]["merges"]) {
    const std::size_t space = merge.find(' ');
    pairs.push_back({merge.substr(0, space), merge.substr(space + 1)});
  }
  const std::string text = "the thing in the inn";
  const Ids expected = json_tokenizer(json)->encode(text);
  json["model"]["merges"] = pairs;
  EXPECT_EQ(json_tokenizer(json)->encode(text), expected);
}

TEST(JsonTokenizer, FindsSpecialTokensInTextAndDecodesThemToNothing) {
  const auto tokenizer = json_tokenizer(plain_tokenizer_json());
  const Ids ids = tokenizer->encode("a<|endoftext|>b <|endoftext|");
  EXPECT_THAT(std::vector(ids.begin(), ids.begin() + 4), ElementsAre('a', 260, 'b', ' '));
  EXPECT_EQ(tokenizer->decode(ids), "ab <|endoftext|");
  EXPECT_EQ(tokenizer->decode(Ids{}), "");
  EXPECT_EQ(message_of<DataError>([&] { tokenizer->decode(Ids{261}); }),
            "tokenizer.json tokenizer: token id 261 is beyond the vocabulary of 261");
}

TEST(JsonTokenizer, DecodesAddedTokensThatAreNotSpecialToTheirText) {
  const auto tokenizer = with_added("caf\xC3\xA9", {});
  EXPECT_THAT(tokenizer->encode("a caf\xC3\xA9!"), ElementsAre('a', ' ', 261, '!'));
  EXPECT_EQ(tokenizer->decode(Ids{261, '!'}), "caf\xC3\xA9!");
}

TEST(JsonTokenizer, TakesTheLongestOfAddedTokens) {
  nlohmann::json json = plain_tokenizer_json();
  nlohmann::json token = json["added_tokens"][0];
  int id = 260;
  for (const char* content : {"ab", "abcd", "bcdef"}) {
    token["id"] = ++id;
    token["content"] = content;
    json["added_tokens"].push_back(token);
  }
  const auto tokenizer = json_tokenizer(json);
  EXPECT_THAT(tokenizer->encode("abc"), ElementsAre(261, 'c'));
  EXPECT_THAT(tokenizer->encode("abcdef"), ElementsAre(262, 'e', 'f')) << "the leftmost first";
  EXPECT_THAT(tokenizer->encode("bcdef"), ElementsAre(263));
}

TEST(JsonTokenizer, AddedTokensTakeTheWhiteSpaceTheyAskFor) {
  const std::string text = "a \n<m> \t b";
  EXPECT_THAT(with_added("<m>", {})->encode(text),
              ElementsAre('a', ' ', '\n', 261, ' ', '\t', ' ', 'b'));
  EXPECT_THAT(with_added("<m>", {"lstrip"})->encode(text),
              ElementsAre('a', 261, ' ', '\t', ' ', 'b'));
  EXPECT_THAT(with_added("<m>", {"rstrip"})->encode(text), ElementsAre('a', ' ', '\n', 261, 'b'));
  EXPECT_THAT(with_added("<m>", {"lstrip", "rstrip"})->encode(text), ElementsAre('a', 261, 'b'));
  EXPECT_THAT(with_added("<m>", {"lstrip", "rstrip"})->encode("  <m>\xE3\x80\x80<m>  "),
              ElementsAre(261, 261));
}

// The same with what the original does where tokens are white space themselves: one with lstrip is
// gone when the token before it has taken all of it, one without is found again.
TEST(JsonTokenizer, WhiteSpaceTokensYieldToTheTokenBeforeThem) {
  for (const bool lstrip : {false, true}) {
    nlohmann::json json = plain_tokenizer_json();
    nlohmann::json token = json["added_tokens"][0];
    token["id"] = 261;
    token["content"] = "<m>";
    token["rstrip"] = true;
    json["added_tokens"].push_back(token);
    token["id"] = 262;
    token["content"] = "\n";
    token["rstrip"] = false;
    token["lstrip"] = lstrip;
    json["added_tokens"].push_back(token);
    EXPECT_EQ(json_tokenizer(json)->encode("<m>\nb"),
              lstrip ? (Ids{261, 'b'}) : (Ids{261, 262, 'b'}));
  }
}

TEST(JsonTokenizer, AddedTokensMayHaveToBeWordsOfTheirOwn) {
  const auto tokenizer = with_added("<m>", {"single_word"});
  const auto count = [&](const std::string& text) {
    return std::ranges::count(tokenizer->encode(text), 261);
  };
  for (const char* text : {"<m>", " <m> ", "-<m>-", "\xE4\xB8\x80 <m>", "<<m>>", "\xFF<m>"})
    EXPECT_EQ(count(text), 1) << text;
  for (const char* text : {"a<m>", "<m>a", "_<m>", "<m>7", "\xC3\xA9<m>", "<m>\xCC\x81"})
    EXPECT_EQ(count(text), 0) << text;
  EXPECT_EQ(count("<m><m> <m>"), 3);
}

TEST(JsonTokenizer, FindsNormalizedTokensInNormalForm) {
  for (const bool normalized : {false, true}) {
    nlohmann::json json = plain_tokenizer_json();
    json["normalizer"] = {{"type", "NFC"}};
    nlohmann::json token = json["added_tokens"][0];
    token["id"] = 261;
    token["content"] = "e\xCC\x81";
    token["special"] = false;
    token["normalized"] = normalized;
    json["added_tokens"].push_back(token);
    const auto tokenizer = json_tokenizer(json);
    const Ids composed = normalized ? Ids{261} : Ids{0xC3, 0xA9};
    EXPECT_EQ(tokenizer->encode("\xC3\xA9"), composed);
    EXPECT_THAT(tokenizer->encode("e\xCC\x81"), ElementsAre(261));
  }
}

TEST(JsonTokenizer, ComposesTextOnlyWhereTheFileAsksForIt) {
  nlohmann::json json = plain_tokenizer_json();
  EXPECT_THAT(json_tokenizer(json)->encode("e\xCC\x81"), ElementsAre('e', 0xCC, 0x81));
  for (const nlohmann::json& normalizer :
       {nlohmann::json{{"type", "NFC"}},
        nlohmann::json{{"type", "Sequence"}, {"normalizers", {{{"type", "NFC"}}}}}}) {
    json["normalizer"] = normalizer;
    EXPECT_THAT(json_tokenizer(json)->encode("e\xCC\x81"), ElementsAre(0xC3, 0xA9));
  }
}

TEST(JsonTokenizer, PutsASpaceBeforeEveryPartWhereTheFileAsksForIt) {
  nlohmann::json json = plain_tokenizer_json();
  json["pre_tokenizer"]["add_prefix_space"] = true;
  const auto tokenizer = json_tokenizer(json);
  EXPECT_THAT(tokenizer->encode(""), ElementsAre());
  EXPECT_THAT(tokenizer->encode("the"), ElementsAre(258));
  EXPECT_THAT(tokenizer->encode(" the"), ElementsAre(258));
  EXPECT_THAT(tokenizer->encode("\nthe"), ElementsAre(' ', '\n', 't', 257));
  EXPECT_THAT(tokenizer->encode("the<|endoftext|>the<|endoftext|> the"),
              ElementsAre(258, 260, 258, 260, 258));
}

TEST(JsonTokenizer, TakesAPieceThatIsATokenWholeWhereTheFileIgnoresMerges) {
  nlohmann::json json = plain_tokenizer_json();
  json["model"]["merges"] = nlohmann::json::array();
  EXPECT_THAT(json_tokenizer(json)->encode(" the"), ElementsAre(' ', 't', 'h', 'e'));
  json["model"]["ignore_merges"] = true;
  EXPECT_THAT(json_tokenizer(json)->encode(" the them"), ElementsAre(258, ' ', 't', 'h', 'e', 'm'));
}

TEST(JsonTokenizer, AddsNothingAtTheEndsWhateverThePostProcessorSays) {
  nlohmann::json json = plain_tokenizer_json();
  json["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single",
       {{{"SpecialToken", {{"id", "<|endoftext|>"}, {"type_id", 0}}}},
        {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
      {"pair", nlohmann::json::array()},
      {"special_tokens",
       {{"<|endoftext|>",
         {{"id", "<|endoftext|>"}, {"ids", {260}}, {"tokens", {"<|endoftext|>"}}}}}}};
  EXPECT_THAT(json_tokenizer(json)->encode("a"), ElementsAre('a'));
  json["post_processor"] = {{"type", "Sequence"}, {"processors", {json["post_processor"]}}};
  EXPECT_THAT(json_tokenizer(json)->encode("a"), ElementsAre('a'));
}

TEST(JsonTokenizer, EndsATextWithTheFirstMarkThatIsKnown) {
  for (const char* mark : {"<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"}) {
    nlohmann::json json = plain_tokenizer_json();
    json["added_tokens"][0]["content"] = mark;
    EXPECT_EQ(json_tokenizer(json)->end_of_text(), 260) << mark;
  }
  nlohmann::json json = plain_tokenizer_json();
  json["added_tokens"][0]["special"] = false;
  EXPECT_EQ(message_of<DataError>([&] { json_tokenizer(json); }),
            "x.json: added_tokens has no special token that ends a text, expected one of "
            "<|endoftext|>, <|end_of_text|>, </s>, <eos>");
}

// Time in proportion to the length, up to a logarithm: a quadratic one would take minutes.
TEST(JsonTokenizer, TakesLongPiecesInTheirStride) {
  for (const std::string& name : kJsonTokenizers)
    for (const std::string unit : {" ", "x", "\xCC\x81", "\n ", "'", "7", "<", "in"}) {
      std::string text;
      while (text.size() < 1 << 18) text += unit;
      const JsonTokenizer& tokenizer = json_tokenizer(name);
      EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text) << name << " " << unit;
    }
}

}  // namespace
}  // namespace infini
