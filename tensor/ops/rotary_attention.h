// What a segment does by itself with queries, keys and values from one packed projection: local
// attention with rotary positions, and the sums that it writes to the compressive memory. Together
// they are one op: its backward pass adds up in registers what keys and values get from both.
#pragma once

#include "tensor/ops/attention.h"
#include "tensor/ops/memory.h"

namespace infini {

// local_attention(rotate(qkv, table, layout), qkv, layout, scale) -> [R, H K].
Tensor rotary_attention(const Tensor& qkv, const Tensor& table, const HeadLayout& layout,
                        double scale);

// The same and memory_sums(qkv, keep, layout).
struct AttentionAndSums {
  Tensor y;
  // [B, S, H, T]. Who makes all of the gradient dy and has y at hand may hand back, as the gradient
  // of this, the sums over each head's columns of dy y, which the backward pass needs first. Its
  // elements say nothing.
  Tensor row_dots;
  MemorySums sums;
};
AttentionAndSums rotary_attention_and_sums(const Tensor& qkv, const Tensor& table,
                                           const Tensor& keep, const HeadLayout& layout,
                                           double scale);

}  // namespace infini
