// Every op of tensor/ops by plain loops in fp64, formula after formula: what the op table compares
// with.
#pragma once

#include <vector>

#include "tensor/ops/heads.h"
#include "tensor/ops/marked_attention.h"
#include "tensor/ops/memory.h"
#include "tensor/ops/recall.h"
#include "tensor/ops/retrieval_attention.h"
#include "tensor/ops/scan.h"

namespace infini::reference {

using Array = std::vector<double>;
using Arrays = std::vector<Array>;
using Ids = std::vector<std::int32_t>;
using Marks = std::vector<std::uint8_t>;  // empty: none given

Array linear(const Array& x, const Array& weight, std::int64_t width);
Array add(const Array& x, const Array& y);
Array rms_norm(const Array& x, const Array& weight, double eps);
Array add_bias(const Array& x, const Array& bias);
Array head_norm(const Array& qkv, const Array& query_weight, const Array& key_weight,
                const HeadLayout& layout, double eps);
Array relu(const Array& x);
Array gelu(const Array& x);
Array swiglu(const Array& x, std::int64_t inner);
Array geglu(const Array& x, std::int64_t inner);
Array embedding(const Ids& tokens, const Array& table, std::int64_t width);
Array rotate(const Array& qkv, const HeadLayout& layout, double base, std::int64_t first_position);
Array local_attention(const Array& rotated, const Array& qkv, const HeadLayout& layout,
                      double scale);
// Matrices of `rows` rows side by side.
Array join_columns(const Arrays& parts, std::int64_t rows);
Array take_columns(const Array& x, std::int64_t width, Columns columns);
// present[b, m] ? x[b, m, :] : otherwise[m, :], zeros where that is empty.
Array standing_rows(const Array& x, const Marks& present, const Array& otherwise, std::int64_t rows,
                    std::int64_t width);
// Rows of each batch row, as many places on as the marks of the batch row have zeros.
Array turn_rows(const Array& x, const Marks& present, std::int64_t batch, std::int64_t rows,
                bool back);
// What each segment, and what comes after the last, finds in a cache: [B, S + 1, M].
Marks cache_seen(const Marks& present, const Marks& keep, const Marks& resets,
                 const HeadLayout& layout, std::int64_t cache_tokens);
struct RelativeInputs {
  const Array &qkv, &cached, &keys, &content_bias, &position_bias;
};
Array relative_attention(const RelativeInputs& in, const Marks& seen, const HeadLayout& layout,
                         std::int64_t cache_tokens, double scale);
struct MarkedInputs {
  const Array &queries, &keys, &values;
};
Array marked_attention(const MarkedInputs& in, const Marks& seen, const HeadLayout& layout,
                       const MarkedOptions& options);
struct RetrievalInputs {
  const Array &qkv, &scale, &gate, &local, &pairs;
};
Array retrieval_attention(const RetrievalInputs& in, const Marks& seen, const HeadLayout& layout,
                          std::int64_t retrieval_tokens, const RetrievalOptions& options);
// A pair of tables [B S M, 2 Hk K] and marks [B S M] that queries read for themselves.
struct Places {
  const Array& rows;
  const Marks& seen;
};
double attention_reconstruction(const Array& qkv, const Places& tokens, const Places& compressed,
                                const HeadLayout& layout, double scale, double weight);
// What goes from token to token: which count, and where rows forget and gradients stop.
struct TimeCase {
  HeadLayout layout;
  Marks keep, resets, detach;
};
struct NormInputs {
  const Array &x, &weight, &bias, &moments;  // moments may be empty
};
// {y, moments after}; what lies behind a border that detaches is that of `constant`.
Arrays timestep_norm(const NormInputs& in, const NormInputs& constant, const TimeCase& n,
                     const Array& tokens_before, int groups, double eps);
struct AverageInputs {
  const Array &x, &alpha, &delta, &frequency, &skip, &eta, &before;  // the last may be empty
};
// {y, averages after}
Arrays complex_average(const AverageInputs& in, const AverageInputs& constant, const TimeCase& n);
// {z, w, z_bias, query_scale, query_shift, key_scale, key_shift, value_bias} -> qkv
Array shared_heads(const Arrays& in, const HeadLayout& layout);
Array gated_heads(const Array& gate, const Array& bias, const Array& x);
// {matrix, normalizer}
Arrays memory_sums(const Array& qkv, const Marks& keep, const HeadLayout& layout);
Array memory_overlap(const Array& qkv, const Array& normalizer, const Marks& keep,
                     const HeadLayout& layout, double eps);
Array memory_recall(const Array& qkv, const Array& matrix, const Array& normalizer,
                    const Array& gate, const Array& local, const HeadLayout& layout,
                    const RecallOptions& options);
// {loss, nll}
Arrays cross_entropy(const Array& x, const Array& weight, const Ids& targets, const Array& weights,
                     double scale);

// {before, after} of states of `heads` matrices [width, width], or of heads * width * width numbers
// each for itself when `overlap` is empty. Where detach[s] is 1 the state before segment s is the
// one `constant` holds (as returned by a scan), so that differences do not see across that border.
struct ScanCase {
  std::int64_t batch, segments, heads, width;
  Marks resets, detach;
};
Arrays scan(const Array& overlap, const Array& sums, const Array& initial, const ScanCase& sizes,
            const Arrays& constant = {});

// Calls f(segment, h, first row) for every segment of every batch row and each of `heads` heads.
template <class Function>
void each_head(const HeadLayout& layout, int heads, Function f) {
  for (std::int64_t segment = 0; segment < layout.batch * layout.segments; ++segment)
    for (int h = 0; h < heads; ++h) f(segment, h, segment * layout.tokens);
}

}  // namespace infini::reference
