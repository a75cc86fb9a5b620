// Probabilities of rows of scores, and the gradients of scores: between the products of
// attention_tables.cuh.
#pragma once

#include "tensor/ops/attention_tables.cuh"

namespace infini {

// What query i of a unit may read: places j < `marked` that its marks show, and all others; of own
// places, which are the last T, none after j = P - T + i.
struct ReadMarks {
  Tensor seen;  // u8, `marked` of unit u from ((u / segments) borders + u % segments) marked on
  std::int64_t marked;
  std::int64_t segments = 1, borders = 1;
  bool own;
};
// Tables of scores in the accumulator, unscaled. Those by distance, where there are some: with
// d = P - T + i - j, query i gives place j
//   content[i, j] + content_added[j] + position[i, d] + position_added[d]
struct Scores {
  Tensor content, position;
  Tensor content_added;   // [Hk U, group, P']
  Tensor position_added;  // [H, P']
};

// What the units of a chunk read by content alone, packed, and their scores.
struct ContentReads {
  Tensor queries, keys, values;
  ReadMarks marks;
  Scores scores;

  ContentReads(const AttentionChunk& chunk, const HeadRows& query_rows, const HeadRows& key_rows,
               const HeadRows& value_rows, const ReadMarks& may_read);
};

// softmax_j(scale scores) in `type`; exact zeros where nothing is read.
Tensor softmax_rows(const AttentionChunk& chunk, const ReadMarks& marks, const Scores& scores,
                    double scale, DType type);
// With dP in the accumulator:  dS = scale P (dP - sum_j P dP).  Tables of scores in `type`.
struct ScoresGrad {
  Tensor probabilities, dscores;
  Tensor ddistances;  // dS by distance, zeros where a query has none; empty without positions
};
ScoresGrad softmax_rows_grad(const AttentionChunk& chunk, const ReadMarks& marks,
                             const Scores& scores, double scale, const Tensor& dprobabilities,
                             DType type);

}  // namespace infini
