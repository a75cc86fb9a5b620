// Attention by products of whole tables. What heads read is packed key head by key head, so that
// the scores of all queries are one product in batches (attention_scores.cuh makes probabilities of
// them), and so is what is read and all gradients. What is an op's own stays with it: where keys
// lie, what may be read, who adds up what.
#pragma once

#include <vector>

#include "tensor/ops/cuda_math.cuh"
#include "tensor/ops/heads.h"

namespace infini {

constexpr int kPiece = 8;  // columns that a thread moves

// A query or a place of a chunk: which it is of its unit, and the unit's number among all.
struct QueryAt {
  std::int64_t unit;
  int head, i;
};
struct PlaceAt {
  std::int64_t unit;
  int kv_head, j;
};

// Some of the units, which are segments or batch rows: U of them, each of T queries that read P
// places. K' and P' are K and P and zeros up to a multiple of kPiece, so that all rows of tables
// are aligned. In the order key head, unit, head of the group:
//   queries [Hk U, group T, K'],  places [Hk U, P', K'],  scores [Hk U, group T, P']
struct AttentionChunk {
  std::int64_t first;  // unit
  int units, kv_heads, group;
  int width, padded_width;    // K, K'
  int queries;                // T, of a unit
  int places, padded_places;  // P, P'

  std::int64_t query_rows() const { return std::int64_t{kv_heads} * units * group * queries; }
  Shape query_table() const {
    return {std::int64_t{kv_heads} * units, std::int64_t{group} * queries, padded_width};
  }
  Shape place_table() const {
    return {std::int64_t{kv_heads} * units, padded_places, padded_width};
  }
  Shape score_table() const {
    return {std::int64_t{kv_heads} * units, std::int64_t{group} * queries, padded_places};
  }

  // Row `row` of a table of queries.
  __device__ QueryAt query(unsigned row) const {
    const unsigned table = row / queries, key_table = table / group;
    return {.unit = first + key_table % units,
            .head = static_cast<int>(key_table / units * group + table % group),
            .i = static_cast<int>(row % queries)};
  }
  // Row `row` of a table of `count` places for each unit.
  __device__ PlaceAt place(unsigned row, int count) const {
    const unsigned table = row / count;
    return {.unit = first + table % units,
            .kv_head = static_cast<int>(table / units),
            .j = static_cast<int>(row % count)};
  }
};

// Of a layout with B S units.
AttentionChunk chunk_of(const HeadLayout& layout, std::int64_t places, std::int64_t first,
                        std::int64_t units);
// All units in their order, as many at a time as attention_table_bytes() has room for.
std::vector<AttentionChunk> chunks_of(const HeadLayout& layout, std::int64_t places, DType numbers);

// Rows that hold heads side by side, K numbers each, from a column on: query i of unit u is in row
// u T + i.
struct HeadRows {
  Tensor rows;  // [., C]
  std::int64_t column = 0;
};
// Place j of unit u: among n `own` places in row u n + j - cache of them; before them, in row
// (u / segments) context + (u % segments) step + j of `cached`.
struct PlaceRows {
  HeadRows own;
  HeadRows cached = {};
  std::int64_t cache = 0, segments = 1, context = 0, step = 0;
};

// from factor + bias, which is [H, K] in the accumulator or empty -> a table of queries of `type`.
Tensor pack_queries(const AttentionChunk& chunk, const HeadRows& from, DType type,
                    const Tensor& bias = {}, double factor = 1);
// `to` (+)= table + other, tables of queries in the type of `to` or its accumulator; other may be
// empty.
void unpack_queries(const AttentionChunk& chunk, const Tensor& table, const Tensor& other,
                    const HeadRows& to, bool accumulate);
Tensor pack_places(const AttentionChunk& chunk, const PlaceRows& from);
// `to`, the places from `begin` on, (+)= those of a table of the accumulator.
void unpack_places(const AttentionChunk& chunk, const Tensor& table, std::int64_t begin,
                   const HeadRows& to, bool accumulate);

// op(a) op(b), matrix by matrix.
struct TableProduct {
  Tensor a, b;
  bool transpose_a = false, transpose_b = false;
};
Tensor multiplied(const TableProduct& product, DType type);

// Columns [c, c + kPiece) of a row of `width`; zeros after its end.
template <class N>
__device__ __forceinline__ void load_piece(const N* row, int c, int width,
                                           Compute<N> (&values)[kPiece]) {
  if (c + kPiece <= width && reinterpret_cast<std::uintptr_t>(row + c) % 16 == 0)
    return load_pack<kPiece>(row + c, values);
#pragma unroll
  for (int n = 0; n < kPiece; ++n)
    values[n] = c + n < width ? Compute<N>(row[c + n]) : Compute<N>(0);
}
// Writes them, or adds them to what is there.
template <class N>
__device__ __forceinline__ void put_piece(N* row, int c, int width, bool accumulate,
                                          const Compute<N> (&values)[kPiece]) {
  if (c + kPiece <= width && reinterpret_cast<std::uintptr_t>(row + c) % 16 == 0)
    return put_pack<kPiece>(row + c, accumulate, values);
#pragma unroll
  for (int n = 0; n < kPiece; ++n)
    if (c + n < width) row[c + n] = N(accumulate ? Compute<N>(row[c + n]) + values[n] : values[n]);
}

}  // namespace infini
