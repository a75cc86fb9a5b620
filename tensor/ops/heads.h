// How heads lie in memory. No op ever permutes heads into a copy: all of them read the packed
// projection by strides.
#pragma once

#include <cstdint>

#include "tensor/tape.h"

namespace infini {

// Rows R = B * S * T in the order batch row, segment, token. A packed projection `qkv` [R, (H + 2
// Hk) K] holds, in each row, the H query heads, then the Hk key heads, then the Hk value heads, K
// numbers each. Query head h reads key/value head h / (H / Hk).
struct HeadLayout {
  std::int64_t batch = 1;     // B
  std::int64_t segments = 1;  // S
  std::int64_t tokens = 1;    // T, tokens in each segment
  int heads = 1;              // H
  int kv_heads = 1;           // Hk
  int head_width = 1;         // K

  std::int64_t rows() const { return batch * segments * tokens; }
  int group() const { return heads / kv_heads; }
  std::int64_t qkv_width() const { return std::int64_t{heads + 2 * kv_heads} * head_width; }
  std::int64_t rotated_width() const { return std::int64_t{heads + kv_heads} * head_width; }
  std::int64_t query_width() const { return std::int64_t{heads} * head_width; }
  std::int64_t key_column(int kv_head) const { return std::int64_t{heads + kv_head} * head_width; }
  std::int64_t value_column(int kv_head) const {
    return std::int64_t{heads + kv_heads + kv_head} * head_width;
  }

  Columns query_columns() const { return {0, query_width()}; }
  Columns key_columns() const { return {query_width(), rotated_width()}; }
  Columns value_columns() const { return {rotated_width(), qkv_width()}; }
  Columns key_value_columns() const { return {query_width(), qkv_width()}; }

  Shape matrix_shape() const { return {batch, segments, kv_heads, head_width, head_width}; }
  Shape normalizer_shape() const { return {batch, segments, kv_heads, head_width}; }

  void check_rows(const char* who, const Tensor& tensor, std::int64_t width) const {
    check(tensor.shape() == Shape{rows(), width}, who, ": expected [", rows(), ", ", width,
          "], got ", tensor.shape());
  }
};

}  // namespace infini
