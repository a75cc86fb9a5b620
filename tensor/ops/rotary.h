// Rotary position embedding (Su et al. 2021) of queries and keys:
// the pair (i, i + K/2) of a head at position p turns by the angle p * base^(-2i/K).
#pragma once

#include "tensor/ops/heads.h"
#include "tensor/tape.h"

namespace infini {

// How the frequencies base^(-2i/K) of a model are slowed down, so that it reads longer texts than
// it was first trained on. kLinear: all by `factor`. kLlama3 (Llama 3.1): those that turn less than
// `slow_turns` times in `original_tokens` by `factor`, those that turn more than `fast_turns` times
// not at all, and between the two by a share that falls linearly with the turns.
struct RotaryScaling {
  enum class Kind { kNone, kLinear, kLlama3 };
  Kind kind = Kind::kNone;
  double factor = 1;
  double slow_turns = 1, fast_turns = 4;
  std::int64_t original_tokens = 8192;

  double frequency(double unscaled) const;
};

// cos and sin of every angle: [positions, K], cosines in the first half of a row, sines in the
// second.
Tensor rotary_table(std::int64_t positions, int head_width, double base, DType dtype, Device device,
                    const RotaryScaling& scaling = {});

// qkv [R, (H + 2 Hk) K] -> rotated queries and keys [R, (H + Hk) K]. Positions restart at
// first_position in each segment; table has at least first_position + T rows.
Tensor rotate(const Tensor& qkv, const Tensor& table, const HeadLayout& layout,
              std::int64_t first_position = 0);

// What a device provides: rotary.cpp for the CPU, rotary.cu for CUDA.
class RotaryKernels {
 public:
  virtual void rotate(const Tensor& qkv, const Tensor& table, const HeadLayout& layout,
                      std::int64_t first_position, const Tensor& rotated) const = 0;
  struct RotateGrad {
    Tensor drotated, table;
    HeadLayout layout;
    std::int64_t first_position;
    GradTarget dqueries, dkeys;  // both the gradient of qkv, of which they are columns
  };
  virtual void rotate_grad(const RotateGrad& args) const = 0;

 protected:
  ~RotaryKernels() = default;
};

const RotaryKernels& cuda_rotary();
const RotaryKernels& rotary_kernels(Device device);

}  // namespace infini
