// The compressive memory of Infini-attention (paper, section 2.1), split so that all segments run
// at once. k = sigma(K) and q = sigma(Q) with sigma(x) = ELU(x) + 1; the state before segment s is
// M_{s-1}, z_{s-1}:
//
//   sums     U_s = k_s^T V_s,  u_s = sum_t k_{s,t}                     products over every segment
//   overlap  A_s = k_s^T diag(1 / max(k_s z_{s-1}, eps)) k_s           for the delta rule only
//   scan     z_s = z_{s-1} + u_s                                       scan.h
//            M_s = M_{s-1} + U_s              linear rule
//            M_s = (I - A_s) M_{s-1} + U_s    delta rule
//   recall   A_mem = q M_{s-1} / max(q z_{s-1}, eps), mixed by the gate   recall.h
//
// Queries, keys and values are the columns of the packed projection (heads.h), without positions.
// The state is kept per key/value head, in fp32 (fp64 where the model computes in fp64).
#pragma once

#include "tensor/ops/heads.h"
#include "tensor/tape.h"

namespace infini {

struct MemorySums {
  Tensor matrix;      // U [B, S, Hk, K, K]
  Tensor normalizer;  // u [B, S, Hk, K]
};
// keep [R] u8: tokens with 0 are padding and write nothing; empty keeps all.
MemorySums memory_sums(const Tensor& qkv, const Tensor& keep, const HeadLayout& layout);

// A [B, S, Hk, K, K] from the normaliser before each segment, z [B, S, Hk, K].
Tensor memory_overlap(const Tensor& qkv, const Tensor& keep, const Tensor& normalizer,
                      const HeadLayout& layout, double eps);

// What a device provides for this family: memory.cpp for the CPU, memory.cu for CUDA.
class MemoryKernels {
 public:
  struct Sums {
    Tensor qkv, keep;
    HeadLayout layout;
    Tensor matrix, normalizer;
  };
  struct SumsGrad {
    Tensor qkv, keep;
    HeadLayout layout;
    Tensor dmatrix, dnormalizer;  // either may be empty
    GradTarget dqkv;              // its key and value columns
  };
  struct Overlap {
    Tensor qkv, keep, normalizer;
    HeadLayout layout;
    double eps;
    Tensor overlap;
  };
  struct OverlapGrad {
    Tensor qkv, keep, normalizer;
    HeadLayout layout;
    double eps;
    Tensor doverlap;
    GradTarget dqkv;  // its key columns
    GradTarget dnormalizer;
  };
  virtual void sums(const Sums& args) const = 0;
  virtual void sums_grad(const SumsGrad& args) const = 0;
  virtual void overlap(const Overlap& args) const = 0;
  virtual void overlap_grad(const OverlapGrad& args) const = 0;

 protected:
  ~MemoryKernels() = default;
};

const MemoryKernels& memory_kernels(Device device);
const MemoryKernels& cuda_memory();

}  // namespace infini
