#include "tensor/ops/attention_reconstruction.h"
#include "tensor/ops/attention_scores.cuh"
#include "tensor/ops/launch.cuh"

namespace infini {
namespace {

using Attention = AttentionReconstructionKernels::Attention;

constexpr int kThreads = 256;

// y = factor (y - minus), where minus may be null.
template <class A>
__global__ void __launch_bounds__(kThreads)
    lost_kernel(std::int64_t count, const A* minus, A factor, A* y) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) y[i] = factor * (y[i] - (minus ? minus[i] : A(0)));
}

std::int64_t value_column(const Attention& args) {
  return std::int64_t{args.layout.kv_heads} * args.layout.head_width;
}

ContentReads reads(const Attention& args, const AttentionChunk& chunk) {
  return {chunk,
          {args.qkv},
          {args.pairs.rows},
          {args.pairs.rows, value_column(args)},
          {.seen = args.pairs.seen, .marked = args.places, .own = false}};
}

// Most of what moves are the tables of scores and of probabilities, which go to memory and back.
class CudaAttentionReconstruction final : public AttentionReconstructionKernels {
 public:
  void attention(const Attention& args, const Tensor& minus, double factor,
                 const Tensor& y) const override {
    for (const AttentionChunk& chunk : chunks(args)) {
      const ContentReads in = reads(args, chunk);
      const Tensor probabilities =
          softmax_rows(chunk, in.marks, in.scores, args.scale, args.qkv.dtype());
      unpack_queries(chunk, multiplied({.a = probabilities, .b = in.values}, y.dtype()), {}, {y},
                     false);
    }
    if (!minus && factor == 1) return;
    dispatch_accumulator(y.dtype(), [&]<class A>() {
      launch("attention_reconstruction", lost_kernel<A>, blocks_for(y.size(), kThreads), kThreads,
             0, y.size(), minus ? minus.data<A>() : nullptr, static_cast<A>(factor), y.data<A>());
    });
  }

  // dK = dS^T q,  dV = P^T dA,  dA = factor dy in the type of rows.
  void attention_grad(const Attention& args, const Tensor& dy, double factor,
                      const Tensor& drows) const override {
    const DType type = args.qkv.dtype(), wide = dy.dtype();
    for (const AttentionChunk& chunk : chunks(args)) {
      const ContentReads in = reads(args, chunk);
      const Tensor given = pack_queries(chunk, {dy}, type, {}, factor);
      const ScoresGrad made = softmax_rows_grad(
          chunk, in.marks, in.scores, args.scale,
          multiplied({.a = given, .b = in.values, .transpose_b = true}, wide), type);
      const auto put = [&](const Tensor& by_place, const Tensor& rows, std::int64_t column) {
        unpack_places(chunk, multiplied({.a = by_place, .b = rows, .transpose_a = true}, wide), 0,
                      {drows, column}, false);
      };
      put(made.dscores, in.queries, 0);
      put(made.probabilities, given, value_column(args));
    }
  }

 private:
  static std::vector<AttentionChunk> chunks(const Attention& args) {
    return chunks_of(args.layout, args.places, accumulator_of(args.qkv.dtype()));
  }
};

}  // namespace

const AttentionReconstructionKernels& cuda_attention_reconstruction() {
  static const CudaAttentionReconstruction kernels;
  return kernels;
}

}  // namespace infini
