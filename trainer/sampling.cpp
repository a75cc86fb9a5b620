#include "trainer/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "tensor/error.h"

namespace infini {

std::int32_t sample_token(std::span<const float> logits, const SamplingOptions& options,
                          const RandomKey& key, std::uint64_t index) {
  check(!logits.empty(), "sample_token: no logits");
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int32_t a, std::int32_t b) { return logits[a] > logits[b]; });
  if (options.temperature <= 0) return order.front();
  if (options.top_k > 0) order.resize(std::min<std::size_t>(order.size(), options.top_k));

  std::vector<double> weights;
  for (const std::int32_t token : order)
    weights.push_back(std::exp((static_cast<double>(logits[token]) - logits[order.front()]) /
                               options.temperature));
  const double all = std::accumulate(weights.begin(), weights.end(), 0.0);
  double kept = 0;
  std::size_t count = 0;
  while (count < weights.size() && (count == 0 || kept < options.top_p * all))
    kept += weights[count++];

  double left = key.uniform(index) * kept;
  for (std::size_t i = 0; i + 1 < count; ++i)
    if ((left -= weights[i]) < 0) return order[i];
  return order[count - 1];
}

}  // namespace infini
