#include "tensor/ops/memory.h"

#include <algorithm>

#include "tensor/ops/gemm.h"
#include "tensor/ops/mapped_tokens.h"
#include "tensor/ops/tile.h"

namespace infini {
namespace {

enum Buffer { kMapped, kMappedGrad, kWeighted, kRowGrad, kTermGrad };

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
    const Tensor dqkv = zeroed(args.dqkv, args.layout.key_value_columns()).tensor;
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
             tokens.columns(dqkv, value), tokens.leading, true);
        gemm(false, true, tokens.count, width, width, tokens.columns(args.qkv, value),
             tokens.leading, dmatrix, width, dmapped, width, false);
      } else {
        std::fill_n(dmapped, tokens.count * width, A(0));
      }
      if (args.dnormalizer) {
        const A* dnormalizer = args.dnormalizer.data<A>() + at * width;
        for (std::int64_t t = 0; t < tokens.count; ++t)
          for (std::int64_t c = 0; c < width; ++c) dmapped[t * width + c] += dnormalizer[c];
      }
      tokens.map_grad(mapped, dmapped, tokens.columns(dqkv, key));
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

  // With w_t = k_t / den_t, A = W^T k:  dk = W dA,  dW = k dA^T,  dk += dW / den,  dden = -(dW . w)
  // / den, and where den was not clamped:  dk += dden z,  dz += sum_t dden_t k_t.
  void overlap_grad(const OverlapGrad& args) const override {
    zeroed(args.dqkv, args.layout.key_columns());
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
      gemm(false, true, tokens.count, width, width, mapped, width, doverlap, width, dweighted,
           width, false);
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
      gemm(false, false, tokens.count, width, width, weighted, width, doverlap, width, dmapped,
           width, true);
      if (args.dqkv) {
        const std::int64_t key = args.layout.key_column(head);
        tokens.map_grad(mapped, dmapped, tokens.columns(args.dqkv.tensor, key));
      }
      if (args.dnormalizer)
        store_tile(dz, 1, width, args.dnormalizer.tensor.data<A>() + at * width, width,
                   args.dnormalizer.accumulate);
    });
  }
};

const CpuMemory cpu_memory;

void check_keep(const char* who, const Tensor& keep, const HeadLayout& layout) {
  check(!keep || keep.size() == layout.rows(), who, ": keep has ", keep.size(), " marks for ",
        layout.rows(), " rows");
}

}  // namespace

const MemoryKernels& memory_kernels(Device device) { return on<cpu_memory, cuda_memory>(device); }

MemorySums memory_sums(const Tensor& qkv, const Tensor& keep, const HeadLayout& layout) {
  layout.check_rows("memory_sums", qkv, layout.qkv_width());
  check_keep("memory_sums", keep, layout);
  const DType full = accumulator_of(qkv.dtype());
  const Tensor matrix = Tensor::empty(layout.matrix_shape(), full, qkv.device());
  const Tensor normalizer = Tensor::empty(layout.normalizer_shape(), full, qkv.device());
  const MemoryKernels& device = memory_kernels(qkv.device());
  device.sums(
      {.qkv = qkv, .keep = keep, .layout = layout, .matrix = matrix, .normalizer = normalizer});

  const auto outputs =
      record_all<2>({matrix, normalizer}, {qkv},
                    [=, &device](std::span<const Tensor> doutputs, Gradients& gradients) {
                      device.sums_grad({.qkv = qkv,
                                        .keep = keep,
                                        .layout = layout,
                                        .dmatrix = doutputs[0],
                                        .dnormalizer = doutputs[1],
                                        .dqkv = gradients.of(0, layout.key_value_columns())});
                    });
  return {.matrix = outputs[0], .normalizer = outputs[1]};
}

Tensor memory_overlap(const Tensor& qkv, const Tensor& keep, const Tensor& normalizer,
                      const HeadLayout& layout, double eps) {
  layout.check_rows("memory_overlap", qkv, layout.qkv_width());
  check_keep("memory_overlap", keep, layout);
  check_state("memory_overlap", qkv, normalizer, layout.normalizer_shape());
  const Tensor overlap = Tensor::empty(layout.matrix_shape(), normalizer.dtype(), qkv.device());
  const MemoryKernels& device = memory_kernels(qkv.device());
  device.overlap({.qkv = qkv,
                  .keep = keep,
                  .normalizer = normalizer,
                  .layout = layout,
                  .eps = eps,
                  .overlap = overlap});

  return record(overlap, {qkv, normalizer},
                [=, &device](const Tensor& doverlap, Gradients& gradients) {
                  device.overlap_grad({.qkv = qkv,
                                       .keep = keep,
                                       .normalizer = normalizer,
                                       .layout = layout,
                                       .eps = eps,
                                       .doverlap = doverlap,
                                       .dqkv = gradients.of(0, layout.key_columns()),
                                       .dnormalizer = gradients.of(1)});
                });
}

}  // namespace infini
