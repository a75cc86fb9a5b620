#include "tensor/ops/recall.h"

#include <algorithm>
#include <cmath>

#include "tensor/ops/elementwise.h"
#include "tensor/ops/gemm.h"
#include "tensor/ops/mapped_tokens.h"
#include "tensor/ops/tile.h"

namespace infini {
namespace {

enum Buffer { kMapped, kMappedGrad, kNumerator, kWeighted, kRowGrad, kTermGrad };

// The memory before one segment, read by the query heads of one key/value head.
template <class T>
struct Reading {
  using A = Accumulator<T>;
  Tokens<T> tokens;
  std::int64_t at, leading;
  const A *m, *z;
  bool bypass;
  A* mapped = nullptr;              // sigma(Q) of the last recall [T, K]
  A* inverse = nullptr;             // 1 / denominator of each token
  std::uint8_t* clamped = nullptr;  // whether the denominator was below eps

  template <class Args>
  Reading(const Args& args, std::int64_t segment, int kv_head)
      : tokens(args.layout, {}, segment),
        at(segment * args.layout.kv_heads + kv_head),
        leading(args.layout.query_width()),
        m(args.matrix.template data<A>() + at * tokens.width * tokens.width),
        z(args.normalizer.template data<A>() + at * tokens.width),
        bypass(args.options.bypass_empty &&
               std::all_of(z, z + tokens.width, [](A value) { return value == 0; })),
        mapped(scratch<A, kMapped>(tokens.count * tokens.width)),
        inverse(scratch<A, kWeighted>(tokens.count)),
        clamped(scratch<std::uint8_t, kWeighted>(tokens.count)) {}

  template <class Args>
  A gate(const Args& args, int head) const {
    return bypass ? A(0) : A(1) / (A(1) + std::exp(-args.gate.template data<A>()[head]));
  }
  T* output_columns(const Tensor& rows, int head) const {
    return rows.data<T>() + tokens.first_row * leading + head * tokens.width;
  }
  // A_mem [T, K] of one query head.
  template <class Args>
  const A* recall(const Args& args, int head) const {
    const std::int64_t width = tokens.width;
    A* numerator = scratch<A, kNumerator>(tokens.count * width);
    tokens.map(tokens.columns(args.qkv, std::int64_t{head} * width), mapped);
    gemm(false, false, tokens.count, width, width, mapped, width, m, width, numerator, width,
         false);
    for (std::int64_t t = 0; t < tokens.count; ++t) {
      const A read = dot(mapped + t * width, z, width);
      clamped[t] = !(read > A(args.options.eps));
      inverse[t] = A(1) / std::max(read, A(args.options.eps));
      for (std::int64_t c = 0; c < width; ++c) numerator[t * width + c] *= inverse[t];
    }
    return numerator;
  }
};

class CpuRecall final : public RecallKernels {
 public:
  void recall(const Recall& args) const override {
    each_kv_head(args.qkv, args.layout, [&]<class T>(std::int64_t segment, int kv_head) {
      using A = Accumulator<T>;
      const Reading<T> reading(args, segment, kv_head);
      for (int head = kv_head * args.layout.group(); head < (kv_head + 1) * args.layout.group();
           ++head) {
        const A gate = reading.gate(args, head);
        const A* memory = reading.recall(args, head);
        const T* local = reading.output_columns(args.local, head);
        T* y = reading.output_columns(args.y, head);
        for (std::int64_t t = 0; t < reading.tokens.count; ++t)
#pragma omp simd
          for (std::int64_t c = 0; c < reading.tokens.width; ++c)
            y[t * reading.leading + c] = T(gate * memory[t * reading.tokens.width + c] +
                                           (A(1) - gate) * A(local[t * reading.leading + c]));
      }
    });
  }

  // With q = sigma(Q), g = sigmoid(gate), n = g dy / den, e = -(n . A_mem):
  // dq = n M^T + e z^T,  dM = q^T n,  dz = q^T e,  dlocal = (1 - g) dy,  dgate = sum dy (A_mem -
  // local) g (1 - g).
  void recall_grad(const RecallGrad& args) const override {
    zeroed(args.dqkv, args.layout.query_columns());
    const std::int64_t segments = args.layout.batch * args.layout.segments;
    const Tensor partial = Tensor::zeros({segments, args.layout.heads}, args.gate.dtype());
    each_kv_head(args.qkv, args.layout, [&]<class T>(std::int64_t segment, int kv_head) {
      using A = Accumulator<T>;
      const Reading<T> reading(args, segment, kv_head);
      const std::int64_t width = reading.tokens.width, count = reading.tokens.count * width;
      A *dnumerator = scratch<A, kRowGrad>(count), *dmapped = scratch<A, kMappedGrad>(count);
      A* dz = scratch<A, kTermGrad>(width);
      std::fill_n(dz, width, A(0));
      for (int head = kv_head * args.layout.group(); head < (kv_head + 1) * args.layout.group();
           ++head) {
        const bool first = head == kv_head * args.layout.group();
        const A gate = reading.gate(args, head);
        const A* memory = reading.recall(args, head);
        const T* local = reading.output_columns(args.local, head);
        const T* dy = reading.output_columns(args.dy, head);
        A dgate = 0;
        for (std::int64_t t = 0; t < reading.tokens.count; ++t) {
          const T *dy_row = dy + t * reading.leading, *local_row = local + t * reading.leading;
          const A *memory_row = memory + t * width, *q = reading.mapped + t * width;
          A *n = dnumerator + t * width, *dq = dmapped + t * width;
          const A inverse = reading.inverse[t];
          A towards = 0, apart = 0;
#pragma omp simd reduction(+ : towards, apart)
          for (std::int64_t c = 0; c < width; ++c) {
            n[c] = gate * A(dy_row[c]) * inverse;
            towards += n[c] * memory_row[c];
            apart += A(dy_row[c]) * (memory_row[c] - A(local_row[c]));
          }
          dgate += apart;
          const A e = reading.clamped[t] ? A(0) : -towards;
          for (std::int64_t c = 0; c < width; ++c) {
            dq[c] = e * reading.z[c];
            dz[c] += e * q[c];
          }
        }
        partial.data<A>()[segment * args.layout.heads + head] = dgate * gate * (A(1) - gate);
        if (args.dmatrix)
          gemm(true, false, width, width, reading.tokens.count, reading.mapped, width, dnumerator,
               width, args.dmatrix.tensor.data<A>() + reading.at * width * width, width,
               !first || args.dmatrix.accumulate);
        if (args.dqkv) {
          gemm(false, true, reading.tokens.count, width, width, dnumerator, width, reading.m, width,
               dmapped, width, true);
          const std::int64_t query = std::int64_t{head} * width;
          reading.tokens.map_grad(reading.mapped, dmapped,
                                  reading.tokens.columns(args.dqkv.tensor, query));
        }
        if (args.dlocal) {
          T* dlocal = reading.output_columns(args.dlocal.tensor, head);
          const A keep = args.dlocal.accumulate ? A(1) : A(0);
          for (std::int64_t t = 0; t < reading.tokens.count; ++t)
            for (std::int64_t c = 0; c < width; ++c) {
              const A old = keep > 0 ? A(dlocal[t * reading.leading + c]) : A(0);
              dlocal[t * reading.leading + c] =
                  T(old + (A(1) - gate) * A(dy[t * reading.leading + c]));
            }
        }
      }
      if (args.dnormalizer)
        store_tile(dz, 1, width, args.dnormalizer.tensor.data<A>() + reading.at * width, width,
                   args.dnormalizer.accumulate);
    });
    if (args.dgate) {
      const Tensor total = Tensor::zeros({args.layout.heads}, partial.dtype());
      for (std::int64_t segment = 0; segment < segments; ++segment)
        add_into({.tensor = total, .accumulate = true}, partial.slice(segment, 1));
      add_into(args.dgate, total);
    }
  }
};

const CpuRecall cpu_recall;

}  // namespace

Tensor memory_recall(const Tensor& qkv, const Tensor& matrix, const Tensor& normalizer,
                     const Tensor& gate, const Tensor& local, const HeadLayout& layout,
                     const RecallOptions& options, const Tensor& row_dots) {
  layout.check_rows("memory_recall", qkv, layout.qkv_width());
  layout.check_rows("memory_recall", local, layout.query_width());
  check_state("memory_recall", qkv, matrix, layout.matrix_shape());
  check_state("memory_recall", qkv, normalizer, layout.normalizer_shape());
  check_state("memory_recall", qkv, gate, {layout.heads});
  const Tensor y = Tensor::empty_like(local);
  const RecallKernels& device = on<cpu_recall, cuda_recall>(qkv.device());
  device.recall({.qkv = qkv,
                 .matrix = matrix,
                 .normalizer = normalizer,
                 .gate = gate,
                 .local = local,
                 .layout = layout,
                 .options = options,
                 .y = y});

  return record(y, {qkv, matrix, normalizer, gate, local, row_dots},
                [=, &device](const Tensor& dy, Gradients& gradients) {
                  RecallKernels::RecallGrad args{.qkv = qkv,
                                                 .matrix = matrix,
                                                 .normalizer = normalizer,
                                                 .gate = gate,
                                                 .local = local,
                                                 .layout = layout,
                                                 .options = options,
                                                 .dy = dy,
                                                 .dqkv = gradients.of(0, layout.query_columns()),
                                                 .dmatrix = gradients.of(1),
                                                 .dnormalizer = gradients.of(2),
                                                 .dgate = gradients.of(3),
                                                 .dlocal = gradients.of(4)};
                  if (device.makes_row_dots(args)) args.row_dots = gradients.of(5).tensor;
                  device.recall_grad(args);
                });
}

}  // namespace infini
