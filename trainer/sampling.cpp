#include "trainer/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "tensor/error.h"

namespace infini {
namespace {

constexpr float kImpossible = -std::numeric_limits<float>::infinity();

// The place of the first of the greatest.
std::int32_t most_likely(std::span<const float> logits) {
  std::size_t best = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    check(logits[i] < -kImpossible, "sample_token: the logit of token ", i, " is ", logits[i]);
    if (logits[i] > logits[best]) best = i;
  }
  check(logits[best] > kImpossible, "sample_token: no token is possible");
  return static_cast<std::int32_t>(best);
}

// Tokens one by one, the most likely first and the first among equals. Only those that are asked
// for are put in order.
class ByLikelihood {
 public:
  explicit ByLikelihood(std::span<const float> logits) : logits_(logits), heap_(logits.size()) {
    std::iota(heap_.begin(), heap_.end(), 0);
    std::make_heap(heap_.begin(), heap_.end(), less_);
  }
  std::int32_t next() {
    std::pop_heap(heap_.begin(), heap_.end(), less_);
    const std::int32_t token = heap_.back();
    heap_.pop_back();
    return token;
  }

 private:
  struct Less {
    std::span<const float> logits;
    bool operator()(std::int32_t a, std::int32_t b) const {
      return logits[a] < logits[b] || (logits[a] == logits[b] && a > b);
    }
  };
  std::span<const float> logits_;
  std::vector<std::int32_t> heap_;
  Less less_{logits_};
};

}  // namespace

std::int32_t sample_token(std::span<const float> logits, const SamplingOptions& options,
                          const RandomKey& key, std::uint64_t index) {
  check(!logits.empty(), "sample_token: no logits");
  const std::int32_t best = most_likely(logits);
  if (options.temperature <= 0) return best;
  const auto weight = [&](std::int32_t token) {
    return std::exp((static_cast<double>(logits[token]) - logits[best]) / options.temperature);
  };

  ByLikelihood tokens(logits);
  std::vector<std::int32_t> order;
  std::vector<double> weights;
  const auto add_next = [&] {
    order.push_back(tokens.next());
    weights.push_back(weight(order.back()));
    return weights.back();
  };

  // What the candidates weigh together: all tokens, or the k most likely.
  double all = 0;
  std::size_t candidates = logits.size();
  if (options.top_k > 0) {
    candidates = std::min(candidates, static_cast<std::size_t>(options.top_k));
    while (order.size() < candidates) all += add_next();
  } else {
    for (std::size_t i = 0; i < logits.size(); ++i) all += weight(static_cast<std::int32_t>(i));
  }

  // Of these, the fewest that reach top_p.
  double kept = all;
  if (options.top_p < 1) {
    kept = 0;
    std::size_t count = 0;
    while (count < candidates && (count == 0 || kept < options.top_p * all)) {
      if (count == order.size()) add_next();
      kept += weights[count++];
    }
    candidates = count;
  }

  // The weights were added up in another order, so something may be left when nothing likely is.
  double left = key.uniform(index) * kept;
  std::int32_t drawn = best;
  for (std::size_t i = 0; i < candidates && left >= 0; ++i) {
    if (i == order.size()) add_next();
    if (weights[i] == 0) break;
    drawn = order[i];
    left -= weights[i];
  }
  return drawn;
}

void RepetitionOptions::validate() const {
  check<ConfigError>(penalty > 0 && std::isfinite(penalty),
                     "the repetition penalty must be positive, got ", penalty);
  check<ConfigError>(no_repeat_ngram >= 0, "runs of ", no_repeat_ngram,
                     " tokens cannot be kept from repeating");
}

void penalize_repetition(std::span<float> logits, std::span<const std::int32_t> written,
                         double penalty) {
  if (penalty == 1) return;
  std::vector<std::int32_t> tokens(written.begin(), written.end());
  std::ranges::sort(tokens);
  const auto repeated = std::ranges::unique(tokens);
  tokens.erase(repeated.begin(), repeated.end());
  for (const std::int32_t token : tokens) {
    check(token >= 0 && static_cast<std::size_t>(token) < logits.size(),
          "penalize_repetition: token ", token, " in a vocabulary of ", logits.size());
    float& logit = logits[static_cast<std::size_t>(token)];
    logit = static_cast<float>(logit > 0 ? logit / penalty : logit * penalty);
  }
}

void forbid_repeated_ngrams(std::span<float> logits, std::span<const std::int32_t> written, int n) {
  if (n <= 0 || written.size() < static_cast<std::size_t>(n)) return;
  const auto before = static_cast<std::size_t>(n - 1);
  const std::span<const std::int32_t> newest = written.last(before);
  std::vector<bool> forbidden(logits.size());
  for (std::size_t i = 0; i + before < written.size(); ++i) {
    if (!std::ranges::equal(written.subspan(i, before), newest)) continue;
    const std::int32_t token = written[i + before];
    check(token >= 0 && static_cast<std::size_t>(token) < logits.size(),
          "forbid_repeated_ngrams: token ", token, " in a vocabulary of ", logits.size());
    forbidden[static_cast<std::size_t>(token)] = true;
  }
  bool any_left = false;
  for (std::size_t i = 0; i < logits.size(); ++i)
    any_left = any_left || (!forbidden[i] && logits[i] > kImpossible);
  if (!any_left) return;
  for (std::size_t i = 0; i < logits.size(); ++i)
    if (forbidden[i]) logits[i] = kImpossible;
}

}  // namespace infini
