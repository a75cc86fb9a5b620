#include "tensor/ops/attention_scores.cuh"
#include "tensor/ops/marked_attention.h"

namespace infini {
namespace {

using Attention = MarkedAttentionKernels::Attention;
using AttentionGrad = MarkedAttentionKernels::AttentionGrad;

ContentReads reads(const Attention& args, const AttentionChunk& chunk) {
  return {chunk,
          {args.queries},
          {args.keys},
          {args.values},
          {.seen = args.seen, .marked = args.places(), .own = args.options.own}};
}

// Most of what moves are the tables of scores and of probabilities, which go to memory and back.
class CudaMarkedAttention final : public MarkedAttentionKernels {
 public:
  void attention(const Attention& args, const Tensor& y) const override {
    for (const AttentionChunk& chunk : chunks(args)) {
      const ContentReads in = reads(args, chunk);
      const Tensor probabilities =
          softmax_rows(chunk, in.marks, in.scores, args.options.scale, y.dtype());
      unpack_queries(chunk, multiplied({.a = probabilities, .b = in.values}, y.dtype()), {}, {y},
                     false);
    }
  }

  // dq = dS K,  dK = dS^T q,  dV = P^T dy.
  void attention_grad(const AttentionGrad& args) const override {
    const DType type = args.dy.dtype(), wide = accumulator_of(type);
    for (const AttentionChunk& chunk : chunks(args.forward)) {
      const ContentReads in = reads(args.forward, chunk);
      const Tensor dy = pack_queries(chunk, {args.dy}, type);
      const ScoresGrad made =
          softmax_rows_grad(chunk, in.marks, in.scores, args.forward.options.scale,
                            multiplied({.a = dy, .b = in.values, .transpose_b = true}, wide), type);
      if (args.dqueries)
        unpack_queries(chunk, multiplied({.a = made.dscores, .b = in.keys}, wide), {},
                       {args.dqueries.tensor}, args.dqueries.accumulate);
      const auto put = [&](const GradTarget& target, const Tensor& by_place, const Tensor& rows) {
        if (target)
          unpack_places(chunk, multiplied({.a = by_place, .b = rows, .transpose_a = true}, wide), 0,
                        {target.tensor}, target.accumulate);
      };
      put(args.dkeys, made.dscores, in.queries);
      put(args.dvalues, made.probabilities, dy);
    }
  }

 private:
  static std::vector<AttentionChunk> chunks(const Attention& args) {
    return chunks_of(args.layout, args.places(), accumulator_of(args.queries.dtype()));
  }
};

}  // namespace

const MarkedAttentionKernels& cuda_marked_attention() {
  static const CudaMarkedAttention kernels;
  return kernels;
}

}  // namespace infini
