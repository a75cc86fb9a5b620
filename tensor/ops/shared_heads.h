// Queries and keys from one projection, and gates (Ma et al. 2024, Megalodon, section 3.3), with
// the biases of the projections:
//   u = z + z_bias,   u' = u / |u| in each head
//   q = u' query_scale + query_shift,   k = u' key_scale + key_shift,   v = silu(w + value_bias)
//   gated_heads = silu(g + gate_bias) o
// where silu(x) = x sigmoid(x). A head of zeros stays one.
#pragma once

#include "tensor/ops/heads.h"

namespace infini {

// Added to the square of a length.
constexpr double kHeadLengthEps = 1e-12;

// In the accumulator type, [H K] each.
struct SharedWeights {
  Tensor z_bias, query_scale, query_shift, key_scale, key_shift, value_bias;
};

// z and w [R, H K] of a layout with as many key heads as query heads -> qkv [R, 3 H K].
Tensor shared_heads(const Tensor& z, const Tensor& w, const SharedWeights& weights,
                    const HeadLayout& layout);

// gate and x [R, C], bias [C] in the accumulator type -> [R, C].
Tensor gated_heads(const Tensor& gate, const Tensor& bias, const Tensor& x);

// What a device provides: shared_heads.cpp for the CPU, shared_heads.cu for CUDA.
class SharedHeadsKernels {
 public:
  struct Heads {
    Tensor z, w;
    SharedWeights weights;
    HeadLayout layout;
    Tensor qkv;
  };
  struct HeadsGrad {
    Heads forward;
    Tensor dqkv;
    GradTarget dz, dw, dz_bias, dquery_scale, dquery_shift, dkey_scale, dkey_shift, dvalue_bias;
  };
  struct Gate {
    Tensor gate, bias, x, y;
  };
  struct GateGrad {
    Gate forward;
    Tensor dy;
    GradTarget dgate, dbias, dx;
  };
  virtual void heads(const Heads& args) const = 0;
  virtual void heads_grad(const HeadsGrad& args) const = 0;
  virtual void gate(const Gate& args) const = 0;
  virtual void gate_grad(const GateGrad& args) const = 0;

 protected:
  ~SharedHeadsKernels() = default;
};

const SharedHeadsKernels& cuda_shared_heads();

}  // namespace infini
