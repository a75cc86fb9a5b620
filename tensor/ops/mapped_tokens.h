// What the CPU kernels of the memory share: the tokens of one segment under the feature map.
#pragma once

#include <algorithm>

#include "tensor/ops/heads.h"
#include "tensor/ops/scalar_math.h"
#include "tensor/parallel.h"

namespace infini {

// One segment of one batch row, its tokens at distance `leading` in the packed projection.
template <class T>
struct Tokens {
  std::int64_t count, width, leading, first_row;
  const std::uint8_t* keep;  // of the first token, or null

  Tokens(const HeadLayout& layout, const Tensor& keep_all, std::int64_t segment)
      : count(layout.tokens),
        width(layout.head_width),
        leading(layout.qkv_width()),
        first_row(segment * layout.tokens),
        keep(keep_all ? keep_all.data<std::uint8_t>() + first_row : nullptr) {}

  T* columns(const Tensor& qkv, std::int64_t column) const {
    return qkv.data<T>() + first_row * leading + column;
  }

  // mapped[t, :] = sigma(x[t, :]), zeros for padding.
  template <class A>
  void map(const T* x, A* mapped) const {
    for (std::int64_t t = 0; t < count; ++t) {
      A* out = mapped + t * width;
      if (keep && !keep[t]) {
        std::fill_n(out, width, A(0));
        continue;
      }
      const T* in = x + t * leading;
#pragma omp simd
      for (std::int64_t c = 0; c < width; ++c) out[c] = feature_map(A(in[c]));
    }
  }

  // dx[t, :] += dmapped[t, :] * sigma'(x[t, :]), from mapped = sigma(x), which is 0 for padding and
  // so is its slope.
  template <class A>
  void map_grad(const A* mapped, const A* dmapped, T* dx) const {
    for (std::int64_t t = 0; t < count; ++t) {
      const A *value = mapped + t * width, *upstream = dmapped + t * width;
      T* out = dx + t * leading;
#pragma omp simd
      for (std::int64_t c = 0; c < width; ++c)
        out[c] = T(A(out[c]) + upstream[c] * feature_map_grad(value[c]));
    }
  }
};

// Calls task.operator()<T>(segment, kv_head) for every segment of every batch row.
template <class Task>
void each_kv_head(const Tensor& qkv, const HeadLayout& layout, Task task) {
  dispatch_float(qkv.dtype(), [&]<class T>() {
    parallel_for(layout.batch * layout.segments * layout.kv_heads, [&](std::int64_t i) {
      task.template operator()<T>(i / layout.kv_heads, static_cast<int>(i % layout.kv_heads));
    });
  });
}

inline void check_state(const char* who, const Tensor& qkv, const Tensor& state,
                        const Shape& shape) {
  check(state.shape() == shape && state.dtype() == accumulator_of(qkv.dtype()), who,
        ": the state is ", state.dtype(), state.shape(), ", expected ", accumulator_of(qkv.dtype()),
        shape);
}

}  // namespace infini
