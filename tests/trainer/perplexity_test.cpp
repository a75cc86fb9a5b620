// The figures of `infini evaluate` against a direct computation in fp64, and its memory against the
// length of what it reads.
#include "trainer/perplexity.h"

#include <nlohmann/json.hpp>

#include "tests/trainer/tiny_run.h"

namespace infini {
namespace {

// Documents of one segment and less, of whole segments, and of many with a ragged last one.
const std::vector<int> kLengths = {3, 7, 8, 31, 100, 261};

// Negative log-likelihoods of all tokens but the first, in one forward pass over the document.
std::vector<double> direct_nll(const InfiniTransformer& model,
                               const std::vector<std::int32_t>& tokens) {
  const auto count = static_cast<std::int64_t>(tokens.size()) - 1;
  const std::span<const std::int32_t> all(tokens);
  const Rows row{.segment_tokens = model.config().segment_tokens,
                 .tokens = Tensor::of(all.first(count), {1, count}),
                 .targets = Tensor::of(all.last(count), {1, count}),
                 .weights = {},
                 .resets = {},
                 .keep = {}};
  std::vector<double> nll;
  const auto collect = [&](const Piece&, const Tensor& hidden) {
    const Tensor logits = model.logits(hidden);
    const auto [rows, vocabulary] = logits.dims<2>();
    const std::vector<double> values = logits.to_vector<double>();
    for (std::int64_t r = 0; r < rows; ++r) {
      const double* at = values.data() + r * vocabulary;
      double sum = 0;
      for (std::int64_t v = 0; v < vocabulary; ++v) sum += std::exp(at[v]);
      nll.push_back(std::log(sum) - at[tokens[nll.size() + 1]]);
    }
  };
  Recurrence(model, {}).forward(row, empty_memories(model.config()), 1 << 20, collect);
  return nll;
}

class PerplexityOfDocuments : public ::testing::Test {
 protected:
  TempFolder folder_;
  std::shared_ptr<const TokenStore> store_ = tiny_store(folder_ / "data", kLengths);
};

TEST_F(PerplexityOfDocuments, EqualsADirectComputation) {
  for (const char* memory : {"linear", "delta", "none"}) {
    SCOPED_TRACE(memory);
    const InfiniTransformer model = far_model_of({text("model.memory=", memory)});
    double nll = 0;
    std::vector<double> by_segment;
    std::int64_t tokens = 0;
    for (const StoredDocument& document : store_->documents()) {
      const std::vector<double> direct = direct_nll(model, store_->read(document));
      tokens += static_cast<std::int64_t>(direct.size());
      for (std::size_t t = 0; t < direct.size(); ++t) {
        nll += direct[t];
        by_segment.resize(std::max(by_segment.size(), t / 8 + 1));
        by_segment[t / 8] += direct[t];
      }
    }
    const PerplexityReport report = measure_perplexity(model, *store_, {});
    EXPECT_EQ(report.documents, 6);
    EXPECT_EQ(report.tokens, tokens);
    EXPECT_NEAR(report.nll / nll, 1, 1e-12);
    EXPECT_NEAR(report.token_perplexity() / std::exp(nll / static_cast<double>(tokens)), 1, 1e-10);
    ASSERT_EQ(report.parts.size(), by_segment.size());
    for (std::size_t i = 0; i < by_segment.size(); ++i)
      EXPECT_NEAR(report.parts[i].nll / by_segment[i], 1, 1e-12) << "segment " << i;
  }
}

TEST_F(PerplexityOfDocuments, DoesNotDependOnHowManySegmentsAreReadAtOnce) {
  for (const char* memory : {"linear", "delta"}) {
    const InfiniTransformer model = far_model_of({text("model.memory=", memory)});
    const PerplexityReport one = measure_perplexity(model, *store_, {.segments_at_once = 1});
    for (const std::int64_t at_once : {3, 100}) {
      const PerplexityReport many =
          measure_perplexity(model, *store_, {.segments_at_once = at_once});
      EXPECT_NEAR(many.nll / one.nll, 1, 1e-12) << memory << ", " << at_once;
      ASSERT_EQ(many.parts.size(), one.parts.size());
      for (std::size_t i = 0; i < one.parts.size(); ++i) {
        EXPECT_EQ(many.parts[i].tokens, one.parts[i].tokens);
        EXPECT_NEAR(many.parts[i].nll / one.parts[i].nll, 1, 1e-11) << memory << ", segment " << i;
      }
    }
  }
}

TEST_F(PerplexityOfDocuments, OfWordsAndBytesFollowsFromTheCounts) {
  const PerplexityReport report = measure_perplexity(far_model_of(), *store_, {});
  EXPECT_EQ(report.bytes, 3 + 7 + 8 + 31 + 100 + 261);
  EXPECT_EQ(report.words, 6);
  EXPECT_EQ(report.tokens, report.bytes + 6);  // an end of text after each document
  EXPECT_DOUBLE_EQ(report.word_perplexity(), std::exp(report.nll / 6));
  EXPECT_DOUBLE_EQ(report.byte_perplexity(), std::exp(report.nll / 410));
  EXPECT_DOUBLE_EQ(report.bits_per_byte(), report.nll / std::log(2.0) / 410);

  PerplexityReport::Part sum;
  for (const PerplexityReport::Part& part : report.parts) {
    sum.tokens += part.tokens;
    sum.nll += part.nll;
  }
  EXPECT_EQ(sum.tokens, report.tokens);
  EXPECT_NEAR(sum.nll / report.nll, 1, 1e-12);
}

TEST_F(PerplexityOfDocuments, OfTheirBeginningsClaimsNoWordsOrBytes) {
  const InfiniTransformer model = far_model_of();
  const PerplexityReport report = measure_perplexity(model, *store_, {.document_tokens = 20});
  double nll = 0;
  for (const StoredDocument& document : store_->documents()) {
    const std::vector<double> direct = direct_nll(model, store_->read(document));
    for (std::size_t t = 0; t < std::min<std::size_t>(20, direct.size()); ++t) nll += direct[t];
  }
  EXPECT_NEAR(report.nll / nll, 1, 1e-12);
  EXPECT_FALSE(report.whole);
  const auto json = nlohmann::json::parse(perplexity_json(report));
  EXPECT_FALSE(json.contains("word_perplexity"));
  EXPECT_FALSE(json.contains("bits_per_byte"));
  EXPECT_EQ(json.at("tokens"), 4 + 8 + 9 + 20 * 3);
}

TEST_F(PerplexityOfDocuments, WithMemoryOffIsThatOfClosedGates) {
  InfiniTransformer off = far_model_of(), closed = far_model_of();
  const double as_made = measure_perplexity(off, *store_, {}).nll;
  off.use_memory(false);
  for (const char* gate : {"blocks.0.attention.gate", "blocks.1.attention.gate"}) {
    const Tensor gates = closed.parameters()[gate].master;
    std::fill_n(gates.data<double>(), gates.size(), -1000.0);
  }
  const double without = measure_perplexity(off, *store_, {}).nll;
  EXPECT_NEAR(without / measure_perplexity(closed, *store_, {}).nll, 1, 1e-12);
  EXPECT_GT(std::abs(without / as_made - 1), 1e-3);
}

TEST(PerplexityMemory, DoesNotGrowWithTheDocument) {
  const TempFolder folder;
  ModelConfig config;
  config = {.layers = 1,
            .d_model = 16,
            .heads = 2,
            .feed_forward = 32,
            .vocabulary = 257,
            .segment_tokens = 256};
  InfiniTransformer model(config, DType::kFloat32, Device::kCpu);
  model.parameters().initialise(1);
  const auto peak = [&](int tokens) {
    const auto store = small_store(folder / text(tokens, ".h5"), {tokens});
    release_cached(Device::kCpu);
    reset_peak(Device::kCpu);
    EXPECT_EQ(measure_perplexity(model, *store, {}).tokens, tokens + 1);
    return static_cast<double>(memory_statistics(Device::kCpu).peak_bytes);
  };
  const double shorter = peak(65'536), longer = peak(524'288);
  EXPECT_NEAR(longer / shorter, 1, 0.05);
}

}  // namespace
}  // namespace infini
