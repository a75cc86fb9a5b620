// Causal attention over a segment and a cache of tokens before it, with relative positions (Dai et
// al. 2019, Transformer-XL, section 3.3). Query i of a segment and key j, an own token at or before
// i or a cached one, that lies d tokens before i:
//   score(i, j) = scale * ((q_i + u) . k_j + (q_i + v) . r_d),   y = softmax(score) V
// with u and v a vector for each query head and r_d a projected encoding of the distance.
#pragma once

#include "tensor/ops/heads.h"

namespace infini {

// Which cached tokens each segment of a span may read, and what is left after it. The M cached
// tokens before the span and its S T tokens stand one after the other; the cache of segment s is M
// places from s T on, that after the span from S T on. A token is gone where it was padding or
// where a segment after it, up to the one that reads, starts anew.
// present [B, M] u8 or empty: none is; keep [R] u8 and resets [B, S] u8 or empty
// -> [B, S + 1, M] u8, 1: may be read. Not recorded.
Tensor cache_seen(const Tensor& present, const Tensor& keep, const Tensor& resets,
                  const HeadLayout& layout, std::int64_t cache_tokens, Device device);

struct RelativePositions {
  Tensor keys;           // [M + T, Hk K] r, a row for each distance
  Tensor content_bias;   // [H, K] u, in the accumulator type
  Tensor position_bias;  // [H, K] v, likewise
};

// qkv [R, (H + 2 Hk) K]; cached [B (M + (S - 1) T), 2 Hk K], keys and values of the cache before
// the span and of its tokens but the last T, or [B S M, 2 Hk K], where each segment has places of
// its own; seen from cache_seen(), which says what M is -> [R, H K].
Tensor relative_attention(const Tensor& qkv, const Tensor& cached, const Tensor& seen,
                          const RelativePositions& positions, const HeadLayout& layout,
                          double scale);

// What a device provides: relative_attention.cpp for the CPU, relative_attention.cu for CUDA.
class RelativeAttentionKernels {
 public:
  struct Seen {
    Tensor present, keep, resets;
    HeadLayout layout;
    std::int64_t cache_tokens;
    Tensor seen;
  };
  struct Attention {
    Tensor qkv, cached, seen;
    RelativePositions positions;
    HeadLayout layout;
    std::int64_t cache_tokens;
    std::int64_t step;  // rows of `cached` from one segment's places to the next one's
    double scale;

    // Rows of `cached` of one batch row, and where the cache of segment s begins among all.
    std::int64_t context_tokens() const { return cache_tokens + (layout.segments - 1) * step; }
    std::int64_t first_cached(std::int64_t b, std::int64_t s) const {
      return b * context_tokens() + s * step;
    }
  };
  struct AttentionGrad {
    Attention forward;
    Tensor dy;
    GradTarget dqkv, dcached, dkeys, dcontent_bias, dposition_bias;
  };
  virtual void seen(const Seen& args) const = 0;
  virtual void attention(const Attention& args, const Tensor& y) const = 0;
  virtual void attention_grad(const AttentionGrad& args) const = 0;

 protected:
  ~RelativeAttentionKernels() = default;
};

const RelativeAttentionKernels& cuda_relative_attention();

}  // namespace infini
