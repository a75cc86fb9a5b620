// What carries numbers from token to token, and the heads of Megalodon, by plain loops.
#include <cmath>
#include <complex>
#include <numbers>

#include "tests/tensor/reference.h"

namespace infini::reference {
namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

}  // namespace

// All numbers of a group so far, one by one; across a border that detaches they are those of
// `constant`, as is what came before.
Arrays timestep_norm(const NormInputs& in, const NormInputs& constant, const TimeCase& n,
                     const Array& tokens_before, int groups, double eps) {
  const std::int64_t row_tokens = n.layout.segments * n.layout.tokens,
                     width = static_cast<std::int64_t>(in.weight.size()), channels = width / groups;
  Array y(in.x.size()), after;
  for (std::int64_t b = 0; b < n.layout.batch; ++b)
    for (int g = 0; g < groups; ++g) {
      double count = tokens_before[b], mean = 0, variance = 0;
      double first_mean = in.moments.empty() ? 0 : in.moments[(b * groups + g) * 2],
             first_variance = in.moments.empty() ? 0 : in.moments[(b * groups + g) * 2 + 1];
      double before = count;
      Array seen, constants;
      const auto work_out = [&] {
        const double all = before * channels + static_cast<double>(seen.size());
        mean = variance = 0;
        if (all == 0) return;
        mean = before * channels * first_mean;
        for (const double x : seen) mean += x;
        mean /= all;
        variance = before * channels * (first_variance + (first_mean - mean) * (first_mean - mean));
        for (const double x : seen) variance += (x - mean) * (x - mean);
        variance /= all;
      };
      for (std::int64_t t = 0; t < row_tokens; ++t) {
        const std::int64_t row = b * row_tokens + t, segment = t / n.layout.tokens;
        if (t % n.layout.tokens == 0) {
          if (!n.resets.empty() && n.resets[b * n.layout.segments + segment]) {
            seen.clear();
            constants.clear();
            before = 0;
          }
          if (!n.detach.empty() && n.detach[segment]) {
            seen = constants;
            first_mean = constant.moments.empty() ? 0 : constant.moments[(b * groups + g) * 2];
            first_variance =
                constant.moments.empty() ? 0 : constant.moments[(b * groups + g) * 2 + 1];
          }
        }
        const std::int64_t first = row * width + g * channels;
        if (n.keep.empty() || n.keep[row]) {
          seen.insert(seen.end(), in.x.begin() + first, in.x.begin() + first + channels);
          constants.insert(constants.end(), constant.x.begin() + first,
                           constant.x.begin() + first + channels);
        }
        work_out();
        const bool nothing = before == 0 && seen.empty();
        for (std::int64_t c = 0; c < channels; ++c)
          y[first + c] = (in.x[first + c] - mean) / std::sqrt((nothing ? 1 : variance) + eps) *
                             in.weight[g * channels + c] +
                         in.bias[g * channels + c];
      }
      after.push_back(mean);
      after.push_back(variance);
    }
  return {y, after};
}

Arrays complex_average(const AverageInputs& in, const AverageInputs& constant, const TimeCase& n) {
  using Complex = std::complex<double>;
  const std::int64_t row_tokens = n.layout.segments * n.layout.tokens,
                     width = static_cast<std::int64_t>(in.skip.size()),
                     averages = static_cast<std::int64_t>(in.alpha.size()) / width;
  Array y(in.x.size(), 0.0), after;
  const auto average = [&](const AverageInputs& from, std::int64_t b, std::int64_t c,
                           std::int64_t k) {
    const std::int64_t i = (b * width + c) * averages + k;
    return from.before.empty() ? Complex{} : Complex{from.before[2 * i], from.before[2 * i + 1]};
  };
  const auto next = [&](const AverageInputs& from, Complex s, std::int64_t c, std::int64_t k,
                        double x) {
    const std::int64_t i = c * averages + k;
    const double p = sigmoid(from.alpha[i]), theta = 2 * std::numbers::pi * (k + 1.0) /
                                                     static_cast<double>(averages) *
                                                     sigmoid(from.frequency[c]);
    return (1 - p * sigmoid(from.delta[i])) * std::polar(1.0, theta) * s + p * x;
  };
  for (std::int64_t b = 0; b < n.layout.batch; ++b)
    for (std::int64_t c = 0; c < width; ++c)
      for (std::int64_t k = 0; k < averages; ++k) {
        Complex s = average(in, b, c, k), fixed = average(constant, b, c, k);
        const Complex eta{in.eta[2 * (c * averages + k)], in.eta[2 * (c * averages + k) + 1]};
        for (std::int64_t t = 0; t < row_tokens; ++t) {
          const std::int64_t row = b * row_tokens + t, segment = t / n.layout.tokens;
          if (t % n.layout.tokens == 0) {
            if (!n.resets.empty() && n.resets[b * n.layout.segments + segment]) s = fixed = 0;
            if (!n.detach.empty() && n.detach[segment]) s = fixed;
          }
          const double x = in.x[row * width + c];
          if (n.keep.empty() || n.keep[row]) {
            s = next(in, s, c, k, x);
            fixed = next(constant, fixed, c, k, constant.x[row * width + c]);
          }
          y[row * width + c] += (eta * s).real() / std::sqrt(static_cast<double>(averages));
          if (k == 0) y[row * width + c] += in.skip[c] * x;
        }
        after.push_back(s.real());
        after.push_back(s.imag());
      }
  return {y, after};
}

Array shared_heads(const Arrays& in, const HeadLayout& layout) {
  const std::int64_t width = layout.query_width();
  Array qkv(3 * in[0].size());
  for (std::int64_t r = 0; r < layout.rows(); ++r)
    for (std::int64_t c = 0; c < width; ++c) {
      double square = 1e-12;
      const std::int64_t first = c / layout.head_width * layout.head_width;
      for (std::int64_t other = first; other < first + layout.head_width; ++other)
        square += std::pow(in[0][r * width + other] + in[2][other], 2);
      const double unit = (in[0][r * width + c] + in[2][c]) / std::sqrt(square),
                   value = in[1][r * width + c] + in[7][c];
      qkv[r * 3 * width + c] = unit * in[3][c] + in[4][c];
      qkv[(r * 3 + 1) * width + c] = unit * in[5][c] + in[6][c];
      qkv[(r * 3 + 2) * width + c] = value * sigmoid(value);
    }
  return qkv;
}

Array gated_heads(const Array& gate, const Array& bias, const Array& x) {
  Array y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double opened = gate[i] + bias[i % bias.size()];
    y[i] = opened * sigmoid(opened) * x[i];
  }
  return y;
}

}  // namespace infini::reference
