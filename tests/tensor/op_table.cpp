// The rows of the table and how each kind of row is made: over 400 lines, since it is one table.
#include "tests/tensor/op_table.h"

#include <algorithm>

#include "tensor/ops/activation.h"
#include "tensor/ops/attention.h"
#include "tensor/ops/attention_reconstruction.h"
#include "tensor/ops/bias.h"
#include "tensor/ops/columns.h"
#include "tensor/ops/cross_entropy.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/embedding.h"
#include "tensor/ops/feed_forward.h"
#include "tensor/ops/head_norm.h"
#include "tensor/ops/marked_attention.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/product.h"
#include "tensor/ops/relative_attention.h"
#include "tensor/ops/retrieval_attention.h"
#include "tensor/ops/rotary.h"
#include "tensor/ops/rotary_attention.h"
#include "tensor/ops/standing_rows.h"
#include "tensor/random.h"
#include "tests/tensor/fake_groups.h"

namespace infini {
namespace {

using reference::Arrays;
using reference::Ids;
using reference::Marks;
using In = const std::vector<Tensor>&;
using Plain = const Arrays&;

constexpr double kBase = 100;  // of the rotary angles

// On the device of the inputs; an empty tensor for no values.
template <class T>
Tensor tensor(const std::vector<T>& values, In in) {
  return values.empty()
             ? Tensor{}
             : Tensor::of(values, {static_cast<std::int64_t>(values.size())}).to(in[0].device());
}

// Marks that are 0 at every `hole`th place.
Marks marks(std::int64_t count, int hole) {
  Marks result(count, 1);
  for (std::int64_t i = 0; i < count; i += hole) result[i] = 0;
  return result;
}

Ids ids(std::int64_t count, std::int32_t bound) {
  Ids result(count);
  for (std::int64_t i = 0; i < count; ++i) result[i] = static_cast<std::int32_t>(i * i * 7 % bound);
  return result;
}

Input rows(const HeadLayout& n, std::int64_t width) { return {.shape = {n.rows(), width}}; }
Input state(const Shape& shape, double low = -1.5) {
  return {.shape = shape, .role = Role::kState, .low = low, .high = 1.5};
}
// A normaliser, positive as sums of sigma(K) are, with the numbers of segment 0 replaced.
Input normalizer(const HeadLayout& n, double first_segment) {
  Input input = state(n.normalizer_shape(), 0.5);
  input.edit = [count = n.kv_heads * n.head_width, first_segment](std::vector<double>& values) {
    std::fill_n(values.begin(), count, first_segment);
  };
  return input;
}

// Columns of a matrix [R, 12] that are taken apart and put side by side in another order.
OpCase columns_case(const std::string& name, std::int64_t rows) {
  constexpr Columns kFirst{0, 5}, kLast{7, 12};
  return {name,
          {{.shape = {rows, 12}}, {.shape = {rows, 3}}},
          [=](In in) {
            const Tensor last = take_columns(in[0], kLast);
            return std::vector{
                join_columns({last, in[1], take_columns(in[0], kFirst), last, in[1]}),
                take_columns(in[0], {4, 8})};
          },
          [=](Plain in, Plain) {
            const auto last = reference::take_columns(in[0], 12, kLast),
                       first = reference::take_columns(in[0], 12, kFirst);
            return Arrays{reference::join_columns({last, in[1], first, last, in[1]}, rows),
                          reference::take_columns(in[0], 12, {4, 8})};
          }};
}

OpCase standing_case(const std::string& name, const Marks& present, bool has_others) {
  constexpr std::int64_t kBatch = 3, kRows = 4, kWidth = 10;
  std::vector<Input> inputs{{.shape = {kBatch, kRows, kWidth}}};
  if (has_others) inputs.push_back(state({kRows, kWidth}));
  return {name, inputs,
          [=](In in) {
            return std::vector{standing_rows(in[0], tensor(present, in).reshape({kBatch, kRows}),
                                             has_others ? in[1] : Tensor{})};
          },
          [=](Plain in, Plain) {
            return Arrays{reference::standing_rows(
                in[0], present, has_others ? in[1] : reference::Array{}, kRows, kWidth)};
          }};
}

OpCase chosen_case(const std::string& name, const Marks& present) {
  constexpr std::int64_t kBatch = 3, kRows = 4, kWidth = 10;
  const Input rows{.shape = {kBatch, kRows, kWidth}};
  return {
      name,
      {rows, rows},
      [=](In in) {
        return std::vector{chosen_rows(in[0], in[1], tensor(present, in).reshape({kBatch, kRows}))};
      },
      [=](Plain in, Plain) {
        // One batch of as many rows: the others are then its own.
        return Arrays{reference::standing_rows(in[0], present, in[1], kBatch * kRows, kWidth)};
      }};
}

OpCase turn_case(const std::string& name, const Marks& present, Turn turn) {
  constexpr std::int64_t kBatch = 3, kRows = 7, kPlaces = 4, kWidth = 10;
  return {
      name,
      {{.shape = {kBatch, kRows, kWidth}}},
      [=](In in) {
        return std::vector{turn_rows(in[0], tensor(present, in).reshape({kBatch, kPlaces}), turn)};
      },
      [=](Plain in, Plain) {
        return Arrays{reference::turn_rows(in[0], present, kBatch, kRows, turn == Turn::kBack)};
      }};
}

OpCase bias_case(const std::string& name, std::int64_t count, std::int64_t width) {
  return {name,
          {{.shape = {count, width}}, {.shape = {width}, .role = Role::kState}},
          [](In in) { return std::vector{add_bias(in[0], in[1])}; },
          [](Plain in, Plain) { return Arrays{reference::add_bias(in[0], in[1])}; },
          false,
          20};
}

OpCase head_norm_case(const std::string& name, const HeadLayout& n) {
  const Input weight{.shape = {n.head_width}, .role = Role::kState, .low = 0.5};
  return {
      name,
      {rows(n, n.qkv_width()), weight, weight},
      [=](In in) { return std::vector{head_norm(in[0], in[1], in[2], n, 1e-3)}; },
      [=](Plain in, Plain) { return Arrays{reference::head_norm(in[0], in[1], in[2], n, 1e-3)}; },
      false,
      20};
}

OpCase rotate_case(const std::string& name, const HeadLayout& n, std::int64_t first) {
  return {name,
          {rows(n, n.qkv_width())},
          [=](In in) {
            const Tensor table = rotary_table(first + n.tokens, n.head_width, kBase,
                                              accumulator_of(in[0].dtype()), in[0].device());
            return std::vector{rotate(in[0], table, n, first)};
          },
          [=](Plain in, Plain) { return Arrays{reference::rotate(in[0], n, kBase, first)}; }};
}

OpCase attention_case(const std::string& name, const HeadLayout& n) {
  return {
      name,
      {rows(n, n.rotated_width()), rows(n, n.qkv_width())},
      [=](In in) { return std::vector{local_attention(in[0], in[1], n, 0.7)}; },
      [=](Plain in, Plain) { return Arrays{reference::local_attention(in[0], in[1], n, 0.7)}; }};
}

OpCase rotary_attention_case(const std::string& name, const HeadLayout& n) {
  return {name,
          {rows(n, n.qkv_width())},
          [=](In in) {
            const Tensor table = rotary_table(n.tokens, n.head_width, kBase,
                                              accumulator_of(in[0].dtype()), in[0].device());
            return std::vector{rotary_attention(in[0], table, n, 0.7)};
          },
          [=](Plain in, Plain) {
            const auto rotated = reference::rotate(in[0], n, kBase, 0);
            return Arrays{reference::local_attention(rotated, in[0], n, 0.7)};
          }};
}

OpCase attention_and_sums_case(const std::string& name, const HeadLayout& n, const Marks& keep) {
  return {name,
          {rows(n, n.qkv_width())},
          [=](In in) {
            const Tensor table = rotary_table(n.tokens, n.head_width, kBase,
                                              accumulator_of(in[0].dtype()), in[0].device());
            const AttentionAndSums made =
                rotary_attention_and_sums(in[0], table, tensor(keep, in), n, 0.7);
            return std::vector{made.y, made.sums.matrix, made.sums.normalizer};
          },
          [=](Plain in, Plain) {
            const auto rotated = reference::rotate(in[0], n, kBase, 0);
            Arrays all = reference::memory_sums(in[0], keep, n);
            all.insert(all.begin(), reference::local_attention(rotated, in[0], n, 0.7));
            return all;
          }};
}

struct CacheMarks {
  Marks present{}, keep{}, resets{};
};
OpCase relative_case(const std::string& name, const HeadLayout& n, std::int64_t cache,
                     const CacheMarks& given) {
  const std::int64_t keys = std::int64_t{n.kv_heads} * n.head_width;
  const std::int64_t context = n.batch * (cache + (n.segments - 1) * n.tokens);
  const Input bias{.shape = {n.heads, n.head_width}, .role = Role::kState};
  return {name,
          {rows(n, n.qkv_width()),
           {.shape = {context, 2 * keys}},
           {.shape = {cache + n.tokens, keys}},
           bias,
           bias},
          [=](In in) {
            Tensor present = tensor(given.present, in), resets = tensor(given.resets, in);
            if (present) present = present.reshape({n.batch, cache});
            if (resets) resets = resets.reshape({n.batch, n.segments});
            const Tensor seen =
                cache_seen(present, tensor(given.keep, in), resets, n, cache, in[0].device());
            return std::vector{relative_attention(
                in[0], in[1], seen, {.keys = in[2], .content_bias = in[3], .position_bias = in[4]},
                n, 0.7)};
          },
          [=](Plain in, Plain) {
            const Marks seen =
                reference::cache_seen(given.present, given.keep, given.resets, n, cache);
            return Arrays{reference::relative_attention({in[0], in[1], in[2], in[3], in[4]}, seen,
                                                        n, cache, 0.7)};
          }};
}

OpCase marked_case(const std::string& name, HeadLayout n, const Marks& seen, bool own) {
  n.batch *= n.segments;
  n.segments = 1;
  const std::int64_t places = static_cast<std::int64_t>(seen.size()) / n.batch,
                     width = std::int64_t{n.kv_heads} * n.head_width;
  const Input pairs{.shape = {n.batch * places, width}};
  const MarkedOptions options{.scale = 0.7, .own = own};
  return {name,
          {rows(n, n.query_width()), pairs, pairs},
          [=](In in) {
            return std::vector{marked_attention(
                in[0], in[1], in[2], tensor(seen, in).reshape({n.batch, places}), n, options)};
          },
          [=](Plain in, Plain) {
            return Arrays{reference::marked_attention({in[0], in[1], in[2]}, seen, n, options)};
          }};
}

// Keys and values that every type holds exactly, some of them twice, so that scores are equal.
std::vector<double> exact_pairs(std::int64_t rows, std::int64_t width) {
  std::vector<double> values(rows * width);
  for (std::int64_t i = 0; i < rows * width; ++i)
    values[i] = static_cast<double>(RandomKey{.seed = 12}.below(i, 257)) / 128 - 1;
  for (std::int64_t row = 2; row < rows; row += 3)
    std::copy_n(values.begin() + (row - 2) * width, width / 2, values.begin() + row * width);
  return values;
}

// The relative_attention of places that each segment has for itself.
OpCase places_case(const std::string& name, const HeadLayout& n, std::int64_t places) {
  const std::int64_t keys = std::int64_t{n.kv_heads} * n.head_width, count = n.batch * n.segments;
  const Input bias{.shape = {n.heads, n.head_width}, .role = Role::kState};
  const Marks seen = marks(n.batch * (n.segments + 1) * places, 4);
  // The plain loops know one line of rows; a segment by itself is one.
  const HeadLayout one{.batch = count,
                       .segments = 1,
                       .tokens = n.tokens,
                       .heads = n.heads,
                       .kv_heads = n.kv_heads,
                       .head_width = n.head_width};
  Marks of_segments;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t border = i / n.segments * (n.segments + 1) + i % n.segments;
    for (const std::int64_t from : {border, border})  // the second is of no segment
      of_segments.insert(of_segments.end(), seen.begin() + from * places,
                         seen.begin() + (from + 1) * places);
  }
  return {name,
          {rows(n, n.qkv_width()),
           {.shape = {count * places, 2 * keys}},
           {.shape = {places + n.tokens, keys}},
           bias,
           bias},
          [=](In in) {
            return std::vector{relative_attention(
                in[0], in[1], tensor(seen, in).reshape({n.batch, n.segments + 1, places}),
                {.keys = in[2], .content_bias = in[3], .position_bias = in[4]}, n, 0.7)};
          },
          [=](Plain in, Plain) {
            return Arrays{reference::relative_attention({in[0], in[1], in[2], in[3], in[4]},
                                                        of_segments, one, places, 0.7)};
          }};
}

struct PlaceMarks {
  Marks tokens, compressed;  // [B S M] each
};
OpCase reconstruction_case(const std::string& name, const HeadLayout& n, const PlaceMarks& seen) {
  const std::int64_t keys = 2 * std::int64_t{n.kv_heads} * n.head_width;
  const auto size = [](const Marks& marks) { return static_cast<std::int64_t>(marks.size()); };
  const auto qkv = exact_pairs(n.rows(), n.qkv_width()),
             rows = exact_pairs(size(seen.tokens), keys);
  return {name,
          {{.shape = {size(seen.compressed), keys}}},
          [=](In in) {
            const auto constant = [&](const std::vector<double>& values, const Shape& shape) {
              return tensor(values, in).reshape(shape).to(in[0].dtype());
            };
            const auto table = [&](const Marks& marks) {
              return tensor(marks, in).reshape(
                  {n.batch, n.segments, size(marks) / (n.batch * n.segments)});
            };
            return std::vector{attention_reconstruction(
                constant(qkv, {n.rows(), n.qkv_width()}),
                {.rows = constant(rows, {size(seen.tokens), keys}), .seen = table(seen.tokens)},
                {.rows = in[0], .seen = table(seen.compressed)}, n, 0.7, 0.3)};
          },
          [=](Plain in, Plain) {
            return Arrays{{reference::attention_reconstruction(
                qkv, {.rows = rows, .seen = seen.tokens}, {.rows = in[0], .seen = seen.compressed},
                n, 0.7, 0.3)}};
          },
          true};
}

OpCase retrieval_case(const std::string& name, const HeadLayout& n, std::int64_t places,
                      const CacheMarks& given, const RetrievalOptions& options) {
  const Shape shape{n.batch * (places + (n.segments - 1) * n.tokens),
                    2 * std::int64_t{n.kv_heads} * n.head_width};
  const auto pairs = exact_pairs(shape[0], shape[1]);
  return {
      name,
      {rows(n, n.qkv_width()), state({n.heads}, 0.5), state({n.heads}), rows(n, n.query_width())},
      [=](In in) {
        Tensor present = tensor(given.present, in), resets = tensor(given.resets, in);
        if (present) present = present.reshape({n.batch, places});
        if (resets) resets = resets.reshape({n.batch, n.segments});
        const Tensor seen =
            cache_seen(present, tensor(given.keep, in), resets, n, places, in[0].device());
        const Tensor memory = tensor(pairs, in).reshape(shape).to(in[0].dtype());
        return std::vector{
            retrieval_attention(in[0], memory, seen, in[1], in[2], in[3], n, options)};
      },
      [=](Plain in, Plain) {
        const Marks seen =
            reference::cache_seen(given.present, given.keep, given.resets, n, places);
        return Arrays{reference::retrieval_attention({in[0], in[1], in[2], in[3], pairs}, seen, n,
                                                     places, options)};
      }};
}

OpCase sums_case(const std::string& name, const HeadLayout& n, const Marks& keep) {
  return {name,
          {rows(n, n.qkv_width())},
          [=](In in) {
            const MemorySums sums = memory_sums(in[0], tensor(keep, in), n);
            return std::vector{sums.matrix, sums.normalizer};
          },
          [=](Plain in, Plain) { return reference::memory_sums(in[0], keep, n); }};
}

// eps is large so that in segment 0, where the normaliser is small, the denominator is clamped.
OpCase overlap_case(const std::string& name, const HeadLayout& n, const Marks& keep) {
  return {
      name,
      {rows(n, n.qkv_width()), normalizer(n, 1e-3)},
      [=](In in) { return std::vector{memory_overlap(in[0], tensor(keep, in), in[1], n, 0.1)}; },
      [=](Plain in, Plain) {
        return Arrays{reference::memory_overlap(in[0], in[1], keep, n, 0.1)};
      }};
}

OpCase recall_case(const std::string& name, const HeadLayout& n, double first_normalizer,
                   bool bypass) {
  const RecallOptions options{.eps = 0.1, .bypass_empty = bypass};
  return {name,
          {rows(n, n.qkv_width()), state(n.matrix_shape()), normalizer(n, first_normalizer),
           state({n.heads}), rows(n, n.query_width())},
          [=](In in) {
            return std::vector{memory_recall(in[0], in[1], in[2], in[3], in[4], n, options)};
          },
          [=](Plain in, Plain) {
            return Arrays{reference::memory_recall(in[0], in[1], in[2], in[3], in[4], n, options)};
          }};
}

OpCase scan_case(const std::string& name, const reference::ScanCase& n, bool affine, bool initial) {
  const Shape sums{n.batch, n.segments, n.heads, n.width, n.width};
  std::vector<Input> inputs{state(sums)};
  if (affine) inputs.push_back(state(sums, -0.5));
  if (initial) inputs.push_back(state({n.batch, n.heads, n.width, n.width}));
  const auto optional = [=](const auto& in, bool given, std::size_t at) {
    return given ? in[at] : std::decay_t<decltype(in[at])>{};
  };
  const auto plain = [=](Plain in, const Arrays& constant) {
    return reference::scan(optional(in, affine, 1), in[0], optional(in, initial, affine ? 2 : 1), n,
                           constant);
  };
  return {name, inputs,
          [=](In in) {
            ScanBorders borders{.resets = tensor(n.resets, in), .detach = n.detach};
            if (borders.resets) borders.resets = borders.resets.reshape({n.batch, n.segments});
            const Tensor first = optional(in, initial, affine ? 2 : 1);
            const Scan out =
                affine ? affine_scan(in[1], in[0], first, borders) : scan(in[0], first, borders);
            return std::vector{out.before, out.after};
          },
          [=](Plain in, Plain constant) { return plain(in, plain(constant, {})); }};
}

OpCase loss_case(const std::string& name, std::int64_t count, std::int64_t width,
                 std::int64_t vocabulary, bool weighted, int differences) {
  Ids targets = ids(count, static_cast<std::int32_t>(vocabulary));
  for (std::int64_t i = 2; i < count; i += 5) targets[i] = -1;
  std::vector<float> weights;
  for (std::int64_t i = 0; weighted && i < count; ++i) weights.push_back(0.25f * (i % 4));
  return {name,
          {{.shape = {count, width}}, {.shape = {vocabulary, width}, .role = Role::kWeight}},
          [=](In in) {
            const CrossEntropy out =
                cross_entropy(in[0], in[1], tensor(targets, in), tensor(weights, in), 0.3);
            return std::vector{out.loss, out.nll};
          },
          [=](Plain in, Plain) {
            return reference::cross_entropy(in[0], in[1], targets, {weights.begin(), weights.end()},
                                            0.3);
          },
          true,
          differences};
}

// Of two processes that divide a table of 2 * `held` rows, and the ids in it: those that process
// `index` holds by their rows there, all others as `elsewhere`; -1 stays.
Ids local_ids(const Ids& all, std::int32_t held, int index, std::int32_t elsewhere) {
  Ids local = all;
  for (std::int32_t& id : local)
    if (id >= 0) id = id / held == index ? id - index * held : elsewhere;
  return local;
}

const SilentGroup kFirst(0), kSecond(1);

OpCase embedding_part_case(const std::string& name, int index) {
  const Ids tokens = ids(200, 14);
  return {
      name,
      {{.shape = {7, 10}, .role = Role::kWeight}},
      [=](In in) {
        return std::vector{embedding(tensor(tokens, in), in[0], index == 0 ? &kFirst : &kSecond)};
      },
      [=](Plain in, Plain) {
        reference::Array table = in[0];
        table.resize(table.size() + 10);  // a row of zeros for the others
        return Arrays{reference::embedding(local_ids(tokens, 7, index, 7), table, 10)};
      }};
}

OpCase loss_part_case(const std::string& name, std::int64_t count, std::int64_t columns, int index,
                      int differences) {
  Ids targets = ids(count, static_cast<std::int32_t>(2 * columns));
  for (std::int64_t i = 2; i < count; i += 5) targets[i] = -1;
  std::vector<float> weights;
  for (std::int64_t i = 0; i < count; ++i) weights.push_back(0.25f * (i % 4));
  return {name,
          {{.shape = {count, 16}}, {.shape = {columns, 16}, .role = Role::kWeight}},
          [=](In in) {
            const CrossEntropy out =
                cross_entropy(in[0], in[1], tensor(targets, in), tensor(weights, in), 0.3,
                              index == 0 ? &kFirst : &kSecond);
            return std::vector{out.loss, out.nll};
          },
          [=](Plain in, Plain) {
            const auto held = static_cast<std::int32_t>(columns);
            return reference::cross_entropy(in[0], in[1], local_ids(targets, held, index, held),
                                            {weights.begin(), weights.end()}, 0.3);
          },
          true,
          differences};
}

std::vector<OpCase> make_table() {
  const HeadLayout mha{
      .batch = 2, .segments = 3, .tokens = 5, .heads = 2, .kv_heads = 2, .head_width = 4};
  const HeadLayout gqa{
      .batch = 1, .segments = 2, .tokens = 7, .heads = 4, .kv_heads = 2, .head_width = 6};
  HeadLayout keys_alone = gqa;
  keys_alone.heads = 0;
  const auto attention_of = [](std::int64_t tokens) {
    return HeadLayout{
        .batch = 1, .segments = 2, .tokens = tokens, .heads = 2, .kv_heads = 1, .head_width = 4};
  };
  const reference::ScanCase scans{2, 4, 2, 3, {}, {}};
  reference::ScanCase resets = scans, detach = scans;
  resets.resets = {0, 0, 1, 0, 1, 0, 0, 1};
  detach.resets = {0, 1, 0, 0, 0, 0, 0, 0};
  detach.detach = {0, 0, 1, 0};
  const Input weight{.shape = {9, 40}, .role = Role::kWeight};
  const Input norm{.shape = {40}, .role = Role::kState, .low = 0.5};
  const Ids tokens = ids(12, 7);

  return {
      {"linear",
       {{.shape = {2, 3, 40}}, weight},
       [](In in) { return std::vector{linear(in[0], in[1])}; },
       [](Plain in, Plain) { return Arrays{reference::linear(in[0], in[1], 40)}; }},
      {"linear over many rows",
       {{.shape = {700, 40}}, weight},
       [](In in) { return std::vector{linear(in[0], in[1])}; },
       [](Plain in, Plain) { return Arrays{reference::linear(in[0], in[1], 40)}; },
       false,
       10},
      {"linear with a residual",
       {{.shape = {6, 40}}, {.shape = {24, 40}, .role = Role::kWeight}, {.shape = {6, 24}}},
       [](In in) { return std::vector{linear(in[0], in[1], in[2])}; },
       [](Plain in, Plain) {
         return Arrays{reference::add(reference::linear(in[0], in[1], 40), in[2])};
       }},
      {"linear with its input as the residual",
       {{.shape = {6, 16}}, {.shape = {16, 16}, .role = Role::kWeight}},
       [](In in) { return std::vector{linear(in[0], in[1], in[0])}; },
       [](Plain in, Plain) {
         return Arrays{reference::add(reference::linear(in[0], in[1], 16), in[0])};
       }},
      {"add",
       {{.shape = {3, 40}}, {.shape = {3, 40}}},
       [](In in) { return std::vector{add(in[0], in[1])}; },
       [](Plain in, Plain) { return Arrays{reference::add(in[0], in[1])}; }},
      {"add to itself",
       {{.shape = {3, 40}}},
       [](In in) { return std::vector{add(in[0], in[0])}; },
       [](Plain in, Plain) { return Arrays{reference::add(in[0], in[0])}; }},
      {"affine",
       {{.shape = {3, 41}}},
       [](In in) { return std::vector{affine(in[0], -2.5, 0.75)}; },
       [](Plain in, Plain) {
         reference::Array y = in[0];
         for (double& value : y) value = -2.5 * value + 0.75;
         return Arrays{y};
       }},
      {"rms_norm",
       {{.shape = {3, 40}}, norm},
       [](In in) { return std::vector{rms_norm(in[0], in[1], 1e-3)}; },
       [](Plain in, Plain) { return Arrays{reference::rms_norm(in[0], in[1], 1e-3)}; }},
      {"rms_norm over many rows",
       {{.shape = {150, 40}}, norm},
       [](In in) { return std::vector{rms_norm(in[0], in[1], 1e-3)}; },
       [](Plain in, Plain) { return Arrays{reference::rms_norm(in[0], in[1], 1e-3)}; },
       false,
       10},
      bias_case("add_bias", 3, 40),
      bias_case("add_bias of an odd width over many rows", 150, 21),
      head_norm_case("head_norm", mha),
      head_norm_case("head_norm of grouped heads", gqa),
      head_norm_case("head_norm over many rows", attention_of(90)),
      head_norm_case(
          "head_norm of wide heads",
          {.batch = 1, .segments = 1, .tokens = 3, .heads = 2, .kv_heads = 1, .head_width = 80}),
      {"relu",
       {{.shape = {5, 21}}},
       [](In in) { return std::vector{relu(in[0])}; },
       [](Plain in, Plain) { return Arrays{reference::relu(in[0])}; }},
      {"gelu",
       {{.shape = {5, 21}, .low = -5, .high = 5}},
       [](In in) { return std::vector{gelu(in[0])}; },
       [](Plain in, Plain) { return Arrays{reference::gelu(in[0])}; }},
      {"swiglu",
       {{.shape = {5, 22}, .low = -4, .high = 4}},
       [](In in) { return std::vector{swiglu(in[0])}; },
       [](Plain in, Plain) { return Arrays{reference::swiglu(in[0], 11)}; }},
      {"geglu",
       {{.shape = {5, 22}, .low = -4, .high = 4}},
       [](In in) { return std::vector{geglu(in[0])}; },
       [](Plain in, Plain) { return Arrays{reference::geglu(in[0], 11)}; }},
      {"gelu_feed_forward",
       {{.shape = {6, 10}},
        {.shape = {24, 10}, .role = Role::kWeight},
        {.shape = {10, 24}, .role = Role::kWeight}},
       [](In in) { return std::vector{gelu_feed_forward(in[0], in[1], in[2])}; },
       [](Plain in, Plain) {
         const auto inner = reference::gelu(reference::linear(in[0], in[1], 10));
         return Arrays{reference::linear(inner, in[2], 24)};
       }},
      {"gelu_feed_forward with a residual",
       {{.shape = {6, 10}},
        {.shape = {24, 10}, .role = Role::kWeight},
        {.shape = {10, 24}, .role = Role::kWeight},
        {.shape = {6, 10}}},
       [](In in) { return std::vector{gelu_feed_forward(in[0], in[1], in[2], in[3])}; },
       [](Plain in, Plain) {
         const auto inner = reference::gelu(reference::linear(in[0], in[1], 10));
         return Arrays{reference::add(reference::linear(inner, in[2], 24), in[3])};
       }},
      {"embedding",
       {{.shape = {7, 10}, .role = Role::kWeight}},
       [=](In in) { return std::vector{embedding(tensor(tokens, in), in[0])}; },
       [=](Plain in, Plain) { return Arrays{reference::embedding(tokens, in[0], 10)}; }},
      embedding_part_case("embedding, the first of two parts", 0),
      embedding_part_case("embedding, the second of two parts", 1),
      columns_case("join_columns and take_columns", 6),
      columns_case("join_columns and take_columns of one row", 1),
      standing_case("standing_rows", marks(12, 3), true),
      standing_case("standing_rows of which none stands", Marks(12, 0), true),
      standing_case("standing_rows or zeros", marks(12, 5), false),
      chosen_case("chosen_rows", marks(12, 3)),
      chosen_case("chosen_rows of the others alone", Marks(12, 0)),
      turn_case("turn_rows", {0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1}, Turn::kFirst),
      turn_case("turn_rows back", {0, 0, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1}, Turn::kBack),
      rotate_case("rotate", mha, 0),
      rotate_case("rotate from position 3, grouped heads", gqa, 3),
      rotate_case("rotate of keys alone", keys_alone, 2),
      attention_case("local_attention", mha),
      attention_case("local_attention, grouped heads", gqa),
      attention_case("local_attention of 1 token", attention_of(1)),
      attention_case("local_attention of 64 tokens", attention_of(64)),
      attention_case("local_attention of 130 tokens", attention_of(130)),
      rotary_attention_case("rotary_attention", mha),
      rotary_attention_case("rotary_attention, grouped heads", gqa),
      attention_and_sums_case("rotary_attention_and_sums", mha, {}),
      attention_and_sums_case("rotary_attention_and_sums with padding, grouped heads", gqa,
                              marks(gqa.rows(), 3)),
      relative_case("relative_attention without a past", mha, mha.tokens, {}),
      relative_case(
          "relative_attention with padding and a reset, grouped heads", gqa, gqa.tokens,
          {.present = marks(gqa.tokens, 3), .keep = marks(gqa.rows(), 4), .resets = {0, 1}}),
      relative_case("relative_attention of a short cache", mha, 2,
                    {.present = marks(mha.batch * 2, 3), .keep = {}, .resets = {}}),
      relative_case("relative_attention of a long cache, grouped heads", gqa, 17,
                    {.present = marks(17, 5), .keep = marks(gqa.rows(), 6), .resets = {}}),
      relative_case("relative_attention of 130 tokens", attention_of(130), 70,
                    {.present = marks(70, 9), .keep = {}, .resets = {}}),
      relative_case("relative_attention of 1100 cached tokens", attention_of(3), 1100,
                    {.present = marks(1100, 7), .keep = {}, .resets = {}}),
      marked_case("marked_attention", mha, marks(mha.batch * mha.segments * 9, 4), false),
      marked_case("marked_attention with own places, grouped heads", gqa,
                  marks(gqa.batch * gqa.segments * (gqa.tokens + 3), 5), true),
      marked_case("marked_attention where some read nothing", mha,
                  marks(mha.batch * mha.segments * mha.tokens, mha.tokens), true),
      marked_case("marked_attention of no mark, grouped heads", gqa,
                  Marks(gqa.batch * gqa.segments * 4, 0), false),
      marked_case("marked_attention of 130 queries", attention_of(130), marks(2 * 150, 9), true),
      marked_case("marked_attention of 130 queries by any of them", attention_of(130),
                  marks(2 * 70, 9), false),
      marked_case("marked_attention of 1100 places", attention_of(3), marks(2 * 1100, 7), true),
      retrieval_case("retrieval_attention of all there is", mha, 12, {.present = marks(24, 5)},
                     {.neighbours = 20}),
      retrieval_case("retrieval_attention of the nearest, grouped heads", gqa, 17,
                     {.present = marks(17, 4), .keep = marks(gqa.rows(), 6)}, {.neighbours = 3}),
      retrieval_case("retrieval_attention of an empty memory", mha, mha.tokens, {},
                     {.neighbours = 2}),
      retrieval_case("retrieval_attention bypassing an empty memory, grouped heads", gqa, 9,
                     {.resets = {0, 1}}, {.neighbours = 2, .bypass_empty = true}),
      retrieval_case("retrieval_attention of 130 tokens", attention_of(130), 700,
                     {.present = marks(700, 9)}, {.neighbours = 40}),
      places_case("relative_attention of places of each segment", mha, 8),
      places_case("relative_attention of places of each segment, grouped heads", gqa, 3),
      reconstruction_case("attention_reconstruction", mha,
                          {.tokens = marks(6 * 4, 50), .compressed = marks(6 * 2, 50)}),
      reconstruction_case("attention_reconstruction with holes, grouped heads", gqa,
                          {.tokens = marks(2 * 6, 4), .compressed = marks(2 * 3, 2)}),
      reconstruction_case("attention_reconstruction of nothing", gqa,
                          {.tokens = Marks(2 * 4, 1), .compressed = {0, 0, 1, 1}}),
      reconstruction_case("attention_reconstruction of 130 tokens", attention_of(130),
                          {.tokens = marks(2 * 130, 9), .compressed = marks(2 * 65, 7)}),
      sums_case("memory_sums", mha, {}),
      sums_case("memory_sums with padding, grouped heads", gqa, marks(gqa.rows(), 3)),
      overlap_case("memory_overlap", mha, {}),
      overlap_case("memory_overlap with padding, grouped heads", gqa, marks(gqa.rows(), 3)),
      recall_case("memory_recall", mha, 0.7, false),
      recall_case("memory_recall with a clamped denominator, grouped heads", gqa, 1e-3, false),
      recall_case("memory_recall of an empty memory", mha, 0, false),
      recall_case("memory_recall bypassing an empty memory, grouped heads", gqa, 0, true),
      recall_case("memory_recall with nothing to bypass", mha, 0.7, true),
      scan_case("scan", scans, false, false),
      scan_case("scan with an initial state and resets", resets, false, true),
      scan_case("scan detached before segment 2", detach, false, true),
      scan_case("affine_scan", scans, true, false),
      scan_case("affine_scan with an initial state and resets", resets, true, true),
      scan_case("affine_scan detached before segment 2", detach, true, true),
      loss_case("cross_entropy", 12, 10, 33, false, 40),
      loss_case("cross_entropy with weights", 12, 10, 33, true, 40),
      loss_case("cross_entropy in two chunks", 17, 2, 131073, true, 5),
      loss_part_case("cross_entropy, the first of two parts", 12, 33, 0, 40),
      loss_part_case("cross_entropy, the second of two parts", 12, 40, 1, 40),
  };
}

}  // namespace

const std::vector<OpCase>& op_table() {
  static const std::vector<OpCase> table = [] {
    std::vector<OpCase> rows = make_table();
    std::ranges::move(op_rows_over_time(), std::back_inserter(rows));
    return rows;
  }();
  return table;
}

}  // namespace infini
