#include "data/byte_pairs.h"

#include <map>

#include "data/tokenizer_json.h"
#include "tests/data/json_tokenizer_fixtures.h"

namespace infini {
namespace {

// The definition: merge the leftmost pair of the lowest rank, again and again.
std::vector<std::int32_t> merged_one_by_one(const TokenizerJson& file, std::string_view piece) {
  std::map<std::pair<std::int32_t, std::int32_t>, std::size_t> ranks;
  for (std::size_t rank = 0; rank < file.merges.size(); ++rank)
    ranks[{file.merges[rank].left, file.merges[rank].right}] = rank;
  std::vector<std::int32_t> tokens;
  for (const char c : piece) tokens.push_back(file.bytes[static_cast<unsigned char>(c)]);
  for (;;) {
    std::size_t best = file.merges.size(), at = 0;
    for (std::size_t i = 0; i + 1 < tokens.size(); ++i)
      if (const auto found = ranks.find({tokens[i], tokens[i + 1]});
          found != ranks.end() && found->second < best) {
        best = found->second;
        at = i;
      }
    if (best == file.merges.size()) return tokens;
    tokens[at] = file.merges[best].merged;
    tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

TEST(BytePairs, MergesAsTheDefinitionDoes) {
  const TokenizerJson file = parse_tokenizer_json(json_tokenizer_json("gpt2").dump(), "x");
  const BytePairs pairs(file.bytes, file.merges);
  std::vector<std::string> pieces = {"", "a", std::string(300, ' '), std::string(301, '-')};
  const RandomKey stream{5, 0, 3};
  for (std::uint64_t i = 0; i < 300; ++i) {
    std::string piece;  // of tokens side by side, so that there is much to merge
    for (std::uint64_t k = 0; k < 1 + i % 12; ++k)
      piece += file.tokens[stream.below(16 * i + k, 1500)];
    pieces.push_back(piece);
  }
  for (const std::string& piece : pieces) {
    std::vector<std::int32_t> tokens;
    pairs.encode(piece, tokens);
    ASSERT_EQ(tokens, merged_one_by_one(file, piece)) << piece;
  }
}

TEST(BytePairs, AppendsAndMayHaveNoMerges) {
  std::array<std::int32_t, 256> bytes{};
  for (int byte = 0; byte < 256; ++byte) bytes[static_cast<std::size_t>(byte)] = byte;
  std::vector<std::int32_t> tokens = {7};
  BytePairs(bytes, {}).encode("ab", tokens);
  EXPECT_EQ(tokens, (std::vector<std::int32_t>{7, 'a', 'b'}));
}

}  // namespace
}  // namespace infini
