// Complex exponential moving averages (CEMA; Ma et al. 2024, Megalodon, section 3.1). Each of C
// channels has E averages, complex numbers that turn and decay from token to token:
//   p = sigmoid(alpha[c, k]),   theta = 2 pi k / E sigmoid(frequency[c]),   k = 1 .. E
//   q = (1 - p sigmoid(delta[c, k])) e^{i theta}
//   s_t[c, k] = q s_{t-1}[c, k] + p x_t[c]
//   y_t[c] = Re(sum_k eta[c, k] s_t[c, k]) / sqrt(E) + skip[c] x_t[c]
// The paper turns what comes in as well, by p e^{i theta}; the published code does not, and neither
// is done here: s is linear in x, so that turning it is the same as turning the complex eta, and
// both are the same family of functions. The code's, too, are that sqrt(E) and the skip.
// Padding leaves the averages as they are. They go on from segment to segment; a reset empties
// them, and gradients stop where borders detach.
#pragma once

#include "tensor/ops/heads.h"
#include "tensor/ops/scan.h"

namespace infini {

// In the accumulator type.
struct AverageWeights {
  Tensor alpha, delta;     // [C, E]
  Tensor frequency, skip;  // [C]
  Tensor eta;              // [C, E, 2] real and imaginary part
};
constexpr std::int64_t kMostAverages = 32;  // E

struct Averaged {
  Tensor y;      // [R, C]
  Tensor after;  // [B, C, E, 2] s after the last segment, in the accumulator type
};

// x [R, C], rows in the order of the layout, of which heads say nothing; before [B, C, E, 2] in the
// accumulator type, or empty: zeros; keep [R] u8, 0: padding, or empty.
Averaged complex_average(const Tensor& x, const AverageWeights& weights, const Tensor& before,
                         const Tensor& keep, const ScanBorders& borders, const HeadLayout& layout);

// What a device provides: complex_average.cpp for the CPU, complex_average.cu for CUDA.
class ComplexAverageKernels {
 public:
  // Chunks of tokens run side by side: the averages before each come from a scan over chunks. A
  // chunk lies in one segment.
  static constexpr std::int64_t kChunk = 128;
  struct Average {
    Tensor x;
    AverageWeights weights;
    Tensor before, keep, resets;  // each may be empty
    HeadLayout layout;
    Tensor y;
    Tensor starts;  // [B, P, C, E, 2] s before each chunk
    Tensor after;

    std::int64_t channels() const { return x.shape()[1]; }
    std::int64_t averages() const { return weights.alpha.shape()[1]; }
    std::int64_t segment_chunks() const { return (layout.tokens + kChunk - 1) / kChunk; }
    std::int64_t chunks() const { return layout.segments * segment_chunks(); }  // P
  };
  struct AverageGrad {
    Average forward;
    std::vector<std::uint8_t> detach;
    Tensor dy, dafter;  // either may be empty
    GradTarget dx, dalpha, ddelta, dfrequency, dskip, deta, dbefore;
  };
  virtual void average(const Average& args) const = 0;
  virtual void average_grad(const AverageGrad& args) const = 0;

 protected:
  ~ComplexAverageKernels() = default;
};

const ComplexAverageKernels& cuda_complex_average();

}  // namespace infini
