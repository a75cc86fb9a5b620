// What ops refuse, and in which words.
#include <gtest/gtest.h>

#include <functional>

#include "tensor/ops/activation.h"
#include "tensor/ops/attention.h"
#include "tensor/ops/attention_reconstruction.h"
#include "tensor/ops/bias.h"
#include "tensor/ops/columns.h"
#include "tensor/ops/complex_average.h"
#include "tensor/ops/compression.h"
#include "tensor/ops/cross_entropy.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/embedding.h"
#include "tensor/ops/head_norm.h"
#include "tensor/ops/marked_attention.h"
#include "tensor/ops/memory.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/product.h"
#include "tensor/ops/recall.h"
#include "tensor/ops/retrieval_attention.h"
#include "tensor/ops/rotary.h"
#include "tensor/ops/scan.h"
#include "tensor/ops/shared_heads.h"
#include "tensor/ops/standing_rows.h"
#include "tensor/ops/timestep_norm.h"

namespace infini {
namespace {

Tensor zeros(const Shape& shape, DType dtype = DType::kFloat32) {
  return Tensor::zeros(shape, dtype);
}
Tensor ids(const std::vector<std::int32_t>& values) {
  return Tensor::of(values, {static_cast<std::int64_t>(values.size())});
}

// B S T = 6 rows; qkv is [6, 16], rotated [6, 12], the state [1, 2, 1, 4, 4] and [1, 2, 1, 4].
const HeadLayout kLayout{
    .batch = 1, .segments = 2, .tokens = 3, .heads = 2, .kv_heads = 1, .head_width = 4};
const Shape kQkv{6, 16}, kMatrix{1, 2, 1, 4, 4}, kNormalizer{1, 2, 1, 4};
const HeadLayout& n = kLayout;

const HeadLayout kWhole{
    .batch = 1, .segments = 1, .tokens = 6, .heads = 2, .kv_heads = 1, .head_width = 4};

// Of 4 channels.
AverageWeights averages_of(std::int64_t count) {
  return {.alpha = zeros({4, count}),
          .delta = zeros({4, count}),
          .frequency = zeros({4}),
          .skip = zeros({4}),
          .eta = zeros({4, count, 2})};
}

struct Refusal {
  std::string message;
  std::function<void()> call;
};

const Refusal kRefusals[] = {
    {"linear: x is [2, 6], expected [..., 5]",
     [] {
       linear(zeros({2, 6}), zeros({4, 5}));
     }},
    {"linear: the residual is [2, 5], expected [2, 4]",
     [] {
       linear(zeros({2, 5}), zeros({4, 5}), zeros({2, 5}));
     }},
    {"multiply: the addend is f64[2, 4], the product f32[2, 4]",
     [] {
       linear(zeros({2, 5}), zeros({4, 5}), zeros({2, 4}, DType::kFloat64));
     }},
    {"linear: x is f32, weight is bf16",
     [] {
       linear(zeros({2, 5}), zeros({4, 5}, DType::kBFloat16));
     }},
    {"add: f32[2, 3] and f32[3, 2]",
     [] {
       add(zeros({2, 3}), zeros({3, 2}));
     }},
    {"join_columns: there are no parts", [] { join_columns({}); }},
    {"join_columns: f32[3, 2] beside f32[2, 4]",
     [] {
       join_columns({zeros({2, 4}), zeros({3, 2})});
     }},
    {"join_columns: f64[2, 4] beside f32[2, 4]",
     [] {
       join_columns({zeros({2, 4}), zeros({2, 4}, DType::kFloat64)});
     }},
    {"take_columns: columns [2, 5) of [3, 4]",
     [] {
       take_columns(zeros({3, 4}), {2, 5});
     }},
    {"standing_rows: present is [2, 4], expected [2, 3]",
     [] {
       standing_rows(zeros({2, 3, 4}), zeros({2, 4}, DType::kUInt8), {});
     }},
    {"standing_rows: the others are f32[3, 5], expected f32[3, 4]",
     [] {
       standing_rows(zeros({2, 3, 4}), zeros({2, 3}, DType::kUInt8), zeros({3, 5}));
     }},
    {"turn_rows: present is [2, 4], rows are [2, 3, 4]",
     [] {
       turn_rows(zeros({2, 3, 4}), zeros({2, 4}, DType::kUInt8), Turn::kFirst);
     }},
    {"add: f32[2] and f64[2]", [] { add(zeros({2}), zeros({2}, DType::kFloat64)); }},
    {"add_into: [3] into [2]", [] { add_into({.tensor = zeros({2})}, zeros({3})); }},
    {"add_into_columns: f32[3, 2] from column 3 on of f32[3, 4]",
     [] {
       add_into_columns(zeros({3, 4}), 3, zeros({3, 2}));
     }},
    {"rms_norm: weight is f32[3], expected f32[4]",
     [] {
       rms_norm(zeros({2, 4}), zeros({3}), 1e-6);
     }},
    {"rms_norm: weight is bf16[4], expected f32[4]",
     [] {
       rms_norm(zeros({2, 4}, DType::kBFloat16), zeros({4}, DType::kBFloat16), 1e-6);
     }},
    {"swiglu: expected an even width, got [2, 3]",
     [] {
       swiglu(zeros({2, 3}));
     }},
    {"embedding: token id 7 in a vocabulary of 7",
     [] {
       embedding(ids({3, 7}), zeros({7, 2}));
     }},
    {"embedding: token id -1 in a vocabulary of 7",
     [] {
       embedding(ids({-1}), zeros({7, 2}));
     }},
    {"add_bias: bias is f32[3], expected f32[4]",
     [] {
       add_bias(zeros({2, 4}), zeros({3}));
     }},
    {"head_norm: expected [6, 16], got [6, 12]",
     [] {
       head_norm(zeros({6, 12}), zeros({4}), zeros({4}), n, 1e-6);
     }},
    {"head_norm: a weight is f32[5], expected f32[4]",
     [] { head_norm(zeros(kQkv), zeros({4}), zeros({5}), n, 1e-6); }},
    {"rotate: expected [6, 16], got [6, 12]",
     [] {
       rotate(zeros({6, 12}), zeros({3, 4}), n);
     }},
    {"rotate: position 4 in a table of 4",
     [] {
       rotate(zeros(kQkv), zeros({4, 4}), n, 2);
     }},
    {"rotate: the table is f32[3, 6], expected f32[..., 4]",
     [] {
       rotate(zeros(kQkv), zeros({3, 6}), n);
     }},
    {"rotary_table: the head width must be even, got 3",
     [] { rotary_table(4, 3, 100, DType::kFloat32, Device::kCpu); }},
    {"local_attention: expected [6, 12], got [6, 16]",
     [] { local_attention(zeros(kQkv), zeros(kQkv), n, 1); }},
    {"local_attention: expected [6, 16], got [5, 16]",
     [] {
       local_attention(zeros({6, 12}), zeros({5, 16}), n, 1);
     }},
    {"window_attention: 2 segments, expected 1",
     [] {
       window_attention(zeros({6, 12}), zeros(kQkv), n, 1, 0);
     }},
    {"memory_sums: expected [6, 16], got [6, 12]",
     [] {
       memory_sums(zeros({6, 12}), {}, n);
     }},
    {"memory_sums: keep has 5 marks for 6 rows",
     [] { memory_sums(zeros(kQkv), zeros({5}, DType::kUInt8), n); }},
    {"memory_overlap: keep has 5 marks for 6 rows",
     [] { memory_overlap(zeros(kQkv), zeros({5}, DType::kUInt8), zeros(kNormalizer), n, 1e-6); }},
    {"memory_overlap: the state is f32[1, 2, 4], expected f32[1, 2, 1, 4]",
     [] {
       memory_overlap(zeros(kQkv), {}, zeros({1, 2, 4}), n, 1e-6);
     }},
    {"memory_recall: the state is f64[1, 2, 1, 4, 4], expected f32[1, 2, 1, 4, 4]",
     [] {
       memory_recall(zeros(kQkv), zeros(kMatrix, DType::kFloat64), zeros(kNormalizer), zeros({2}),
                     zeros({6, 8}), n, {});
     }},
    {"memory_recall: the state is f32[1], expected f32[2]",
     [] {
       memory_recall(zeros(kQkv), zeros(kMatrix), zeros(kNormalizer), zeros({1}), zeros({6, 8}), n,
                     {});
     }},
    {"memory_recall: expected [6, 8], got [6, 4]",
     [] {
       memory_recall(zeros(kQkv), zeros(kMatrix), zeros(kNormalizer), zeros({2}), zeros({6, 4}), n,
                     {});
     }},
    {"chosen_rows: present is [2, 4], expected [2, 3]",
     [] {
       chosen_rows(zeros({2, 3, 4}), zeros({2, 3, 4}), zeros({2, 4}, DType::kUInt8));
     }},
    {"chosen_rows: the others are f32[2, 3, 5], expected f32[2, 3, 4]",
     [] {
       chosen_rows(zeros({2, 3, 4}), zeros({2, 3, 5}), zeros({2, 3}, DType::kUInt8));
     }},
    {"marked_attention: what is seen is [2, 5] of 1 rows of 1 segments",
     [] {
       marked_attention(zeros({6, 8}), zeros({5, 4}), zeros({5, 4}), zeros({2, 5}, DType::kUInt8),
                        kWhole, {});
     }},
    {"marked_attention: the queries are 6 of 5 places",
     [] {
       marked_attention(zeros({6, 8}), zeros({5, 4}), zeros({5, 4}), zeros({1, 5}, DType::kUInt8),
                        kWhole, {.own = true});
     }},
    {"marked_attention: keys are [5, 4], values [4, 4], expected [5, 4]",
     [] {
       marked_attention(zeros({6, 8}), zeros({5, 4}), zeros({4, 4}), zeros({1, 5}, DType::kUInt8),
                        kWhole, {});
     }},
    {"timestep_norm: expected 6 rows, got [5, 4]",
     [] {
       timestep_norm(zeros({5, 4}), zeros({4}), zeros({4}), {}, {}, {}, kWhole, 2, 0.1);
     }},
    {"timestep_norm: 4 channels in 3 groups",
     [] {
       timestep_norm(zeros({6, 4}), zeros({4}), zeros({4}), {}, {}, {}, kWhole, 3, 0.1);
     }},
    {"timestep_norm: weight or bias is f32[3], expected f32[4]",
     [] {
       timestep_norm(zeros({6, 4}), zeros({4}), zeros({3}), {}, {}, {}, kWhole, 2, 0.1);
     }},
    {"timestep_norm: what came before is [1, 4, 2], expected [1, 2, 2]",
     [] {
       timestep_norm(zeros({6, 4}), zeros({4}), zeros({4}),
                     {.tokens = zeros({1, 1}), .moments = zeros({1, 4, 2})}, {}, {}, kWhole, 2,
                     0.1);
     }},
    {"complex_average: 33 averages of a channel, expected 1 to 32",
     [] {
       complex_average(zeros({6, 4}), averages_of(33), {}, {}, {}, kWhole);
     }},
    {"complex_average: what came before is f32[1, 4, 2, 2], expected f32[1, 4, 3, 2]",
     [] {
       complex_average(zeros({6, 4}), averages_of(3), zeros({1, 4, 2, 2}), {}, {}, kWhole);
     }},
    {"complex_average: alpha is f32[4, 3], expected f32[5, 3]",
     [] {
       complex_average(zeros({6, 5}), averages_of(3), {}, {}, {}, kWhole);
     }},
    {"shared_heads: 1 key heads for 2 query heads",
     [] {
       shared_heads(zeros({6, 8}), zeros({6, 8}), {}, kWhole);
     }},
    {"gated_heads: the gate is f32[6, 3], expected f32[6, 4]",
     [] {
       gated_heads(zeros({6, 3}), zeros({4}), zeros({6, 4}));
     }},
    {"retrieval_attention: 0 neighbours, expected at least 1",
     [] {
       retrieval_attention(zeros(kQkv), zeros({8, 8}), zeros({1, 3, 5}, DType::kUInt8), zeros({2}),
                           zeros({2}), zeros({6, 8}), n, {.neighbours = 0});
     }},
    {"retrieval_attention: what is seen is [1, 2, 5], expected [1, 3, N]",
     [] {
       retrieval_attention(zeros(kQkv), zeros({8, 8}), zeros({1, 2, 5}, DType::kUInt8), zeros({2}),
                           zeros({2}), zeros({6, 8}), n, {});
     }},
    {"retrieval_attention: pairs are f32[5, 8], expected f32[8, 8]",
     [] {
       retrieval_attention(zeros(kQkv), zeros({5, 8}), zeros({1, 3, 5}, DType::kUInt8), zeros({2}),
                           zeros({2}), zeros({6, 8}), n, {});
     }},
    {"retrieval_attention: scale and gate are f32[2], got f32[1]",
     [] {
       retrieval_attention(zeros(kQkv), zeros({8, 8}), zeros({1, 3, 5}, DType::kUInt8), zeros({2}),
                           zeros({1}), zeros({6, 8}), n, {});
     }},
    {"attention_reconstruction: pairs are f32[4, 8], expected f32[6, 8]",
     [] {
       const SegmentPairs pairs{.rows = zeros({4, 8}), .seen = zeros({1, 2, 3}, DType::kUInt8)};
       attention_reconstruction(zeros(kQkv), pairs, pairs, n, 1, 1);
     }},
    {"attention_reconstruction: the loss must be a root of the backward pass; its gradient is 2, "
     "expected 1",
     [] {
       Tape tape;
       const Tensor seen = zeros({1, 2, 2}, DType::kUInt8);
       const Tensor loss =
           attention_reconstruction(zeros(kQkv), {.rows = zeros({4, 8}), .seen = seen},
                                    {.rows = tape.watch(zeros({4, 8})), .seen = seen}, n, 1, 1);
       tape.seed(loss, Tensor::of(std::vector<float>{2}, {}));
       tape.backward();
     }},
    {"windows_seen: what is seen is [1, 3, 2], expected [1, 3, 3 or more]",
     [] {
       windows_seen(zeros({1, 3, 2}, DType::kUInt8), n, 2);
     }},
    {"window_means: 5 tokens are no windows of 2",
     [] {
       window_means(zeros({5, 3}), 2);
     }},
    {"scan: sums have shape [3], expected [B, S, ...]", [] { scan(zeros({3}), {}, {}); }},
    {"scan: the initial state is [2, 3], expected [1, 3]",
     [] {
       scan(zeros({1, 4, 3}), zeros({2, 3}), {});
     }},
    {"scan: resets are [4], expected [1, 4]",
     [] {
       scan(zeros({1, 4, 3}), {}, {.resets = zeros({4}, DType::kUInt8), .detach = {}});
     }},
    {"scan: 3 detach marks for 4 segments",
     [] {
       scan(zeros({1, 4, 3}), {}, {.resets = {}, .detach = {0, 1, 0}});
     }},
    {"affine_scan: overlap is [1, 2, 1, 4, 4], sums are [1, 3, 1, 4, 4], expected [B, S, Hk, K, K]",
     [] {
       affine_scan(zeros(kMatrix), zeros({1, 3, 1, 4, 4}), {}, {});
     }},
    {"cross_entropy: weight is f32[5, 3], x is f32[2, 4]",
     [] {
       cross_entropy(zeros({2, 4}), zeros({5, 3}), ids({0, 1}), {}, 1);
     }},
    {"cross_entropy: targets are [1], expected [2]",
     [] {
       cross_entropy(zeros({2, 4}), zeros({5, 4}), ids({0}), {}, 1);
     }},
    {"cross_entropy: weights are [3], expected [2]",
     [] {
       cross_entropy(zeros({2, 4}), zeros({5, 4}), ids({0, 1}), zeros({3}), 1);
     }},
    {"cross_entropy: target 5 in a vocabulary of 5",
     [] {
       cross_entropy(zeros({2, 4}), zeros({5, 4}), ids({0, 5}), {}, 1);
     }},
    {"cross_entropy: target -2 in a vocabulary of 5",
     [] {
       cross_entropy(zeros({2, 4}), zeros({5, 4}), ids({-2, 0}), {}, 1);
     }},
    {"cross_entropy: the loss must be the root of the backward pass; its gradient is 2, expected 1",
     [] {
       Tape tape;
       const Tensor x = tape.watch(zeros({2, 4}));
       const CrossEntropy out = cross_entropy(x, zeros({5, 4}), ids({0, 1}), {}, 1);
       tape.seed(out.loss, Tensor::of(std::vector<float>{2}, {}));
       tape.backward();
     }},
};

TEST(Ops, RefuseWhatDoesNotFitInWords) {
  for (const Refusal& refusal : kRefusals) {
    std::string message = "nothing was refused";
    try {
      refusal.call();
    } catch (const Error& error) {
      message = error.what();
    }
    EXPECT_EQ(message, refusal.message);
  }
}

}  // namespace
}  // namespace infini
