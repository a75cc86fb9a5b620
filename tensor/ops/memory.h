// The compressive memory of Infini-attention (paper, section 2.1), split so that all segments run at once:
//
//   sums      U_s = sigma(K_s)^T V_s,   u_s = sum_t sigma(K_s,t)                    products over every segment
//   overlap   A_s = sigma(K_s)^T diag(1 / max(sigma(K_s) z_{s-1}, eps)) sigma(K_s)  delta rule only
//   scan      M_s = M_{s-1} + U_s,  z_s = z_{s-1} + u_s                             linear rule and every normaliser
//             M_s = (I - A_s) M_{s-1} + U_s                                         delta rule
//   recall    A_mem = sigma(Q) M_{s-1} / max(sigma(Q) z_{s-1}, eps),  mixed with local attention by the gate
//
// sigma(x) = ELU(x) + 1. Queries, keys and values are the columns of the packed projection (heads.h), without positions.
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

// sigmoid(gate) A_mem + (1 - sigmoid(gate)) local. The memory before each segment: matrix [B, S, Hk, K, K],
// normalizer [B, S, Hk, K]; gate [H]; local [R, H K] -> [R, H K]. While nothing was written A_mem is 0; with
// bypass_empty the gate is then taken as closed, so that local attention passes unscaled.
struct RecallOptions {
  double eps = 1e-6;
  bool bypass_empty = false;
};
Tensor memory_recall(const Tensor& qkv, const Tensor& matrix, const Tensor& normalizer, const Tensor& gate,
                     const Tensor& local, const HeadLayout& layout, const RecallOptions& options);

// What a device provides for this family: memory.cpp for the CPU.
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
    Tensor dqkv;                  // key and value columns are added to
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
    GradTarget dqkv;  // key columns are added to
    GradTarget dnormalizer;
  };
  struct Recall {
    Tensor qkv, matrix, normalizer, gate, local;
    HeadLayout layout;
    RecallOptions options;
    Tensor y;
  };
  struct RecallGrad {
    Tensor qkv, matrix, normalizer, gate, local;
    HeadLayout layout;
    RecallOptions options;
    Tensor dy;
    GradTarget dqkv;  // query columns are added to
    GradTarget dmatrix, dnormalizer, dgate, dlocal;
  };
  virtual void sums(const Sums& args) const = 0;
  virtual void sums_grad(const SumsGrad& args) const = 0;
  virtual void overlap(const Overlap& args) const = 0;
  virtual void overlap_grad(const OverlapGrad& args) const = 0;
  virtual void recall(const Recall& args) const = 0;
  virtual void recall_grad(const RecallGrad& args) const = 0;

 protected:
  ~MemoryKernels() = default;
};

}  // namespace infini
