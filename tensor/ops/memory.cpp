#include "tensor/ops/memory.h"

#include "tensor/ops/elementwise.h"
#include "tensor/ops/gemm.h"
#include "tensor/ops/scalar_math.h"
#include "tensor/ops/tile.h"
#include "tensor/parallel.h"

namespace infini {
namespace {

enum Buffer { kMapped, kMappedGrad, kNumerator, kWeighted, kRowGrad, kTermGrad };

// One segment of one batch row, its tokens at distance `leading` in the packed projection.
template <class T>
struct Tokens {
  std::int64_t count, width, leading, first_row;
  const std::uint8_t* keep;  // of the first token, or null

  Tokens(const HeadLayout& layout, const Tensor& keep_all, std::int64_t segment)
      : count(layout.tokens), width(layout.head_width), leading(layout.qkv_width()),
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

  // dx[t, :] += dmapped[t, :] * sigma'(x[t, :]), from mapped = sigma(x), which is 0 for padding and so is its slope.
  template <class A>
  void map_grad(const A* mapped, const A* dmapped, T* dx) const {
    for (std::int64_t t = 0; t < count; ++t) {
      const A *value = mapped + t * width, *upstream = dmapped + t * width;
      T* out = dx + t * leading;
#pragma omp simd
      for (std::int64_t c = 0; c < width; ++c) out[c] = T(A(out[c]) + upstream[c] * feature_map_grad(value[c]));
    }
  }
};

class CpuMemory final : public MemoryKernels {
 public:
  void sums(const Sums& args) const override {
    each_kv_head(args.qkv, args.layout, [&]<class T>(std::int64_t segment, int head) {
      using A = Accumulator<T>;
      const Tokens<T> tokens(args.layout, args.keep, segment);
      const std::int64_t width = tokens.width, at = segment * args.layout.kv_heads + head;
      A* mapped = scratch<A, kMapped>(tokens.count * width);
      tokens.map(tokens.columns(args.qkv, args.layout.key_column(head)), mapped);
      gemm(true, false, width, width, tokens.count, mapped, width,
           tokens.columns(args.qkv, args.layout.value_column(head)), tokens.leading,
           args.matrix.data<A>() + at * width * width, width, false);
      A* normalizer = args.normalizer.data<A>() + at * width;
      std::fill_n(normalizer, width, A(0));
      for (std::int64_t t = 0; t < tokens.count; ++t)
        for (std::int64_t c = 0; c < width; ++c) normalizer[c] += mapped[t * width + c];
    });
  }

  // With k = sigma(K):  dV = k dU,  dk = V dU^T + 1 du^T.
  void sums_grad(const SumsGrad& args) const override {
    each_kv_head(args.qkv, args.layout, [&]<class T>(std::int64_t segment, int head) {
      using A = Accumulator<T>;
      const Tokens<T> tokens(args.layout, args.keep, segment);
      const std::int64_t width = tokens.width, at = segment * args.layout.kv_heads + head;
      const std::int64_t key = args.layout.key_column(head), value = args.layout.value_column(head);
      A* dmapped = scratch<A, kMappedGrad>(tokens.count * width);
      A* mapped = scratch<A, kMapped>(tokens.count * width);
      tokens.map(tokens.columns(args.qkv, key), mapped);
      if (args.dmatrix) {
        const A* dmatrix = args.dmatrix.data<A>() + at * width * width;
        gemm(false, false, tokens.count, width, width, mapped, width, dmatrix, width,
             tokens.columns(args.dqkv, value), tokens.leading, true);
        gemm(false, true, tokens.count, width, width, tokens.columns(args.qkv, value), tokens.leading,
             dmatrix, width, dmapped, width, false);
      } else {
        std::fill_n(dmapped, tokens.count * width, A(0));
      }
      if (args.dnormalizer) {
        const A* dnormalizer = args.dnormalizer.data<A>() + at * width;
        for (std::int64_t t = 0; t < tokens.count; ++t)
          for (std::int64_t c = 0; c < width; ++c) dmapped[t * width + c] += dnormalizer[c];
      }
      tokens.map_grad(mapped, dmapped, tokens.columns(args.dqkv, key));
    });
  }

  void overlap(const Overlap& args) const override {
    each_kv_head(args.qkv, args.layout, [&]<class T>(std::int64_t segment, int head) {
      using A = Accumulator<T>;
      const Tokens<T> tokens(args.layout, args.keep, segment);
      const std::int64_t width = tokens.width, at = segment * args.layout.kv_heads + head;
      const A* z = args.normalizer.data<A>() + at * width;
      A* mapped = scratch<A, kMapped>(tokens.count * width);
      A* weighted = scratch<A, kWeighted>(tokens.count * width);
      tokens.map(tokens.columns(args.qkv, args.layout.key_column(head)), mapped);
      for (std::int64_t t = 0; t < tokens.count; ++t) {
        const A inverse = A(1) / std::max(dot(mapped + t * width, z, width), A(args.eps));
        for (std::int64_t c = 0; c < width; ++c)
          weighted[t * width + c] = mapped[t * width + c] * inverse;
      }
      gemm(true, false, width, width, tokens.count, weighted, width, mapped, width,
           args.overlap.data<A>() + at * width * width, width, false);
    });
  }

  // With w_t = k_t / den_t, A = W^T k:  dk = W dA,  dW = k dA^T,  dk += dW / den,  dden = -(dW . w) / den,
  // and where den was not clamped:  dk += dden z,  dz += sum_t dden_t k_t.
  void overlap_grad(const OverlapGrad& args) const override {
    each_kv_head(args.qkv, args.layout, [&]<class T>(std::int64_t segment, int head) {
      using A = Accumulator<T>;
      const Tokens<T> tokens(args.layout, args.keep, segment);
      const std::int64_t width = tokens.width, at = segment * args.layout.kv_heads + head;
      const std::int64_t count = tokens.count * width;
      const A* z = args.normalizer.data<A>() + at * width;
      const A* doverlap = args.doverlap.data<A>() + at * width * width;
      A *mapped = scratch<A, kMapped>(count), *dmapped = scratch<A, kMappedGrad>(count);
      A *weighted = scratch<A, kWeighted>(count), *dweighted = scratch<A, kRowGrad>(count);
      A* dz = scratch<A, kTermGrad>(width);
      std::fill_n(dz, width, A(0));
      tokens.map(tokens.columns(args.qkv, args.layout.key_column(head)), mapped);
      gemm(false, true, tokens.count, width, width, mapped, width, doverlap, width, dweighted, width, false);
      for (std::int64_t t = 0; t < tokens.count; ++t) {
        const A *k = mapped + t * width, *dw = dweighted + t * width;
        A *w = weighted + t * width, *dk = dmapped + t * width;
        const A read = dot(k, z, width), inverse = A(1) / std::max(read, A(args.eps));
        for (std::int64_t c = 0; c < width; ++c) w[c] = k[c] * inverse;
        const A dread = read > A(args.eps) ? -dot(dw, w, width) * inverse : A(0);
        for (std::int64_t c = 0; c < width; ++c) {
          dk[c] = dw[c] * inverse + dread * z[c];
          dz[c] += dread * k[c];
        }
      }
      gemm(false, false, tokens.count, width, width, weighted, width, doverlap, width, dmapped, width, true);
      if (args.dqkv) {
        const std::int64_t key = args.layout.key_column(head);
        tokens.map_grad(mapped, dmapped, tokens.columns(args.dqkv.tensor, key));
      }
      if (args.dnormalizer)
        store_tile(dz, 1, width, args.dnormalizer.tensor.data<A>() + at * width, width,
                   args.dnormalizer.accumulate);
    });
  }

  void recall(const Recall& args) const override {
    each_kv_head(args.qkv, args.layout, [&]<class T>(std::int64_t segment, int kv_head) {
      using A = Accumulator<T>;
      const Reading<T> reading(args, segment, kv_head);
      for (int head = kv_head * args.layout.group(); head < (kv_head + 1) * args.layout.group(); ++head) {
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
  // dq = n M^T + e z^T,  dM = q^T n,  dz = q^T e,  dlocal = (1 - g) dy,  dgate = sum dy (A_mem - local) g (1 - g).
  void recall_grad(const RecallGrad& args) const override {
    const std::int64_t segments = args.layout.batch * args.layout.segments;
    const Tensor partial = Tensor::zeros({segments, args.layout.heads}, args.gate.dtype());
    each_kv_head(args.qkv, args.layout, [&]<class T>(std::int64_t segment, int kv_head) {
      using A = Accumulator<T>;
      const Reading<T> reading(args, segment, kv_head);
      const std::int64_t width = reading.tokens.width, count = reading.tokens.count * width;
      A *dnumerator = scratch<A, kRowGrad>(count), *dmapped = scratch<A, kMappedGrad>(count);
      A* dz = scratch<A, kTermGrad>(width);
      std::fill_n(dz, width, A(0));
      for (int head = kv_head * args.layout.group(); head < (kv_head + 1) * args.layout.group(); ++head) {
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
          gemm(true, false, width, width, reading.tokens.count, reading.mapped, width, dnumerator, width,
               args.dmatrix.tensor.data<A>() + reading.at * width * width, width,
               !first || args.dmatrix.accumulate);
        if (args.dqkv) {
          gemm(false, true, reading.tokens.count, width, width, dnumerator, width, reading.m, width, dmapped,
               width, true);
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

 private:
  // The memory before one segment, read by the query heads of one key/value head.
  template <class T>
  struct Reading {
    using A = Accumulator<T>;
    Tokens<T> tokens;
    std::int64_t at, leading;
    const A *m, *z;
    bool bypass;
    A* mapped = nullptr;             // sigma(Q) of the last recall [T, K]
    A* inverse = nullptr;            // 1 / denominator of each token
    std::uint8_t* clamped = nullptr;  // whether the denominator was below eps

    template <class Args>
    Reading(const Args& args, std::int64_t segment, int kv_head)
        : tokens(args.layout, {}, segment), at(segment * args.layout.kv_heads + kv_head),
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
      gemm(false, false, tokens.count, width, width, mapped, width, m, width, numerator, width, false);
      for (std::int64_t t = 0; t < tokens.count; ++t) {
        const A read = dot(mapped + t * width, z, width);
        clamped[t] = !(read > A(args.options.eps));
        inverse[t] = A(1) / std::max(read, A(args.options.eps));
        for (std::int64_t c = 0; c < width; ++c) numerator[t * width + c] *= inverse[t];
      }
      return numerator;
    }
  };

  template <class Task>
  static void each_kv_head(const Tensor& qkv, const HeadLayout& layout, Task task) {
    dispatch_float(qkv.dtype(), [&]<class T>() {
      parallel_for(layout.batch * layout.segments * layout.kv_heads, [&](std::int64_t i) {
        task.template operator()<T>(i / layout.kv_heads, static_cast<int>(i % layout.kv_heads));
      });
    });
  }
};

const CpuMemory cpu_memory;

void check_state(const char* who, const Tensor& qkv, const Tensor& state, const Shape& shape) {
  check(state.shape() == shape && state.dtype() == accumulator_of(qkv.dtype()), who, ": the state is ",
        state.dtype(), state.shape(), ", expected ", accumulator_of(qkv.dtype()), shape);
}

void check_keep(const char* who, const Tensor& keep, const HeadLayout& layout) {
  check(!keep || keep.size() == layout.rows(), who, ": keep has ", keep.size(), " marks for ",
        layout.rows(), " rows");
}

}  // namespace

MemorySums memory_sums(const Tensor& qkv, const Tensor& keep, const HeadLayout& layout) {
  layout.check_rows("memory_sums", qkv, layout.qkv_width());
  check_keep("memory_sums", keep, layout);
  const DType full = accumulator_of(qkv.dtype());
  const Tensor matrix = Tensor::empty(layout.matrix_shape(), full, qkv.device());
  const Tensor normalizer = Tensor::empty(layout.normalizer_shape(), full, qkv.device());
  const MemoryKernels& device = on<cpu_memory>(qkv.device());
  device.sums({.qkv = qkv, .keep = keep, .layout = layout, .matrix = matrix, .normalizer = normalizer});

  const auto outputs = record_all<2>(
      {matrix, normalizer}, {qkv}, [=, &device](std::span<const Tensor> doutputs, Gradients& gradients) {
        device.sums_grad({.qkv = qkv, .keep = keep, .layout = layout, .dmatrix = doutputs[0],
                          .dnormalizer = doutputs[1], .dqkv = zeroed(gradients.of(0)).tensor});
      });
  return {.matrix = outputs[0], .normalizer = outputs[1]};
}

Tensor memory_overlap(const Tensor& qkv, const Tensor& keep, const Tensor& normalizer,
                      const HeadLayout& layout, double eps) {
  layout.check_rows("memory_overlap", qkv, layout.qkv_width());
  check_keep("memory_overlap", keep, layout);
  check_state("memory_overlap", qkv, normalizer, layout.normalizer_shape());
  const Tensor overlap = Tensor::empty(layout.matrix_shape(), normalizer.dtype(), qkv.device());
  const MemoryKernels& device = on<cpu_memory>(qkv.device());
  device.overlap({.qkv = qkv, .keep = keep, .normalizer = normalizer, .layout = layout, .eps = eps,
                  .overlap = overlap});

  return record(overlap, {qkv, normalizer}, [=, &device](const Tensor& doverlap, Gradients& gradients) {
    device.overlap_grad({.qkv = qkv, .keep = keep, .normalizer = normalizer, .layout = layout, .eps = eps,
                         .doverlap = doverlap, .dqkv = zeroed(gradients.of(0)),
                         .dnormalizer = gradients.of(1)});
  });
}

Tensor memory_recall(const Tensor& qkv, const Tensor& matrix, const Tensor& normalizer, const Tensor& gate,
                     const Tensor& local, const HeadLayout& layout, const RecallOptions& options) {
  layout.check_rows("memory_recall", qkv, layout.qkv_width());
  layout.check_rows("memory_recall", local, layout.query_width());
  check_state("memory_recall", qkv, matrix, layout.matrix_shape());
  check_state("memory_recall", qkv, normalizer, layout.normalizer_shape());
  check_state("memory_recall", qkv, gate, {layout.heads});
  const Tensor y = Tensor::empty_like(local);
  const MemoryKernels& device = on<cpu_memory>(qkv.device());
  device.recall({.qkv = qkv, .matrix = matrix, .normalizer = normalizer, .gate = gate, .local = local,
                 .layout = layout, .options = options, .y = y});

  return record(y, {qkv, matrix, normalizer, gate, local}, [=, &device](const Tensor& dy,
                                                                       Gradients& gradients) {
    device.recall_grad({.qkv = qkv, .matrix = matrix, .normalizer = normalizer, .gate = gate,
                        .local = local, .layout = layout, .options = options, .dy = dy,
                        .dqkv = zeroed(gradients.of(0)), .dmatrix = gradients.of(1),
                        .dnormalizer = gradients.of(2), .dgate = gradients.of(3),
                        .dlocal = gradients.of(4)});
  });
}

}  // namespace infini
