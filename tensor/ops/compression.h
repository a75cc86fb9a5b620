// What becomes of tokens that leave the memory of a Compressive Transformer (Rae et al. 2020,
// section 3): windows of c of them become one.
#pragma once

#include "tensor/ops/heads.h"

namespace infini {

// Whether a window may be read: all of its tokens may. seen [B, S + 1, M] from cache_seen(), M at
// least T: after segment s the first T places leave. -> [B, S, floor(T / c)] u8, of places in their
// order, what is left over dropped. Not recorded.
Tensor windows_seen(const Tensor& seen, const HeadLayout& layout, std::int64_t window);

// The mean of the tokens of each window: x [W c, D] -> [W, D]. Not recorded.
Tensor window_means(const Tensor& x, std::int64_t window);

// What a device provides: compression.cpp for the CPU, compression.cu for CUDA.
class CompressionKernels {
 public:
  // marks [W]: window w of segment w / windows covers `window` places from w % windows * window on.
  struct Seen {
    Tensor seen;  // [B, S + 1, M]
    std::int64_t segments, places, windows, window;
    Tensor marks;  // [B, S, windows]
  };
  virtual void seen(const Seen& args) const = 0;
  virtual void means(const Tensor& x, std::int64_t window, const Tensor& y) const = 0;

 protected:
  ~CompressionKernels() = default;
};

const CompressionKernels& cuda_compression();

}  // namespace infini
