// Scalar functions in forms that a compiler turns into vector code.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace infini {

// e^x within 2 units in the last place for x in [-87, 88], clamped outside; NaN stays NaN.
// 2^n by writing the exponent field, 2^f by a polynomial (minimax on [-1/2, 1/2] after Cephes'
// expf).
inline float fast_exp(float x) {
  const float clamped = x < -87.3f ? -87.3f : (x > 88.3f ? 88.3f : x);
  constexpr float kRound =
      12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  const float shifted = clamped * 1.44269504088896341f + kRound;
  const float n = shifted - kRound;
  const float r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const std::int32_t exponent =
      std::bit_cast<std::int32_t>(shifted) - std::bit_cast<std::int32_t>(kRound) + 127;
  return p * std::bit_cast<float>(exponent << 23);
}
inline double fast_exp(double x) { return std::exp(x); }

template <class A>
A sigmoid(A x) {
  return A(1) / (A(1) + fast_exp(-x));
}

// sigma(x) = ELU(x) + 1 (paper, section 2.1.1) and its derivative.
template <class A>
A feature_map(A x) {
  return x > 0 ? x + A(1) : fast_exp(x > 0 ? A(0) : x);
}
// The derivative at x from the value there: sigma'(x) is 1 where sigma(x) > 1 and sigma(x) = e^x
// elsewhere.
template <class A>
A feature_map_grad(A mapped) {
  return mapped < A(1) ? mapped : A(1);
}

}  // namespace infini
