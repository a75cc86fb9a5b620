#include <algorithm>
#include <numeric>

#include "tensor/ops/cuda_math.cuh"
#include "tensor/ops/rotary.h"

namespace infini {
namespace {

constexpr int kThreads = 128;
constexpr int kHeads = 4;  // of a thread, which all turn by the same angles

// Heads of `width` numbers lie side by side in rows of `in` and of `out`.
template <class N>
struct Turn {
  const N* in;
  N* out;
  std::int64_t in_leading, out_leading;
  const Compute<N>* table;  // [positions, K]
  Compute<N> direction;     // 1, or -1 to turn back
  std::int64_t rows, tokens, first_position;
  int heads, width;
  int query_heads;             // the first ones, with a way of writing of their own
  bool add_queries, add_keys;  // to what stands in `out`
  int block_rows;              // rows of a block
};

// A block takes some rows. A thread holds the cosines and sines of n pairs of a row and turns those
// pairs of every slots-th head, at most kHeads of them.
template <int n, class N>
__global__ void __launch_bounds__(kThreads) turn_kernel(const Turn<N> args) {
  using A = Compute<N>;
  const int half = args.width / 2, packs = half / n, slots = (args.heads + kHeads - 1) / kHeads;
  const int row_items = packs * slots;
  for (int item = threadIdx.x; item < args.block_rows * row_items; item += kThreads) {
    const std::int64_t r = std::int64_t{blockIdx.x} * args.block_rows + item / row_items;
    if (r >= args.rows) return;
    const int slot = item % row_items / packs, i = item % packs * n;
    const N* const in = args.in + r * args.in_leading + i;
    N* const out = args.out + r * args.out_leading + i;

    Held<n, N> lows[kHeads], highs[kHeads];
#pragma unroll
    for (int h = 0; h < kHeads; ++h)
      if (const int head = slot + h * slots; head < args.heads) {
        lows[h] = hold<n>(in + head * args.width);
        highs[h] = hold<n>(in + head * args.width + half);
      }
    A cosine[n], sine[n];
    const A* const angles = args.table + (args.first_position + r % args.tokens) * args.width + i;
    load_pack<n>(angles, cosine);
    load_pack<n>(angles + half, sine);
#pragma unroll
    for (int e = 0; e < n; ++e) sine[e] *= args.direction;
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      const int head = slot + h * slots;
      if (head >= args.heads) continue;
      A low[n], high[n];
#pragma unroll
      for (int e = 0; e < n; ++e) {
        const A a = lows[h][e], b = highs[h][e];
        low[e] = a * cosine[e] - b * sine[e];
        high[e] = b * cosine[e] + a * sine[e];
      }
      const bool accumulate = head < args.query_heads ? args.add_queries : args.add_keys;
      put_pack<n>(out + head * args.width, accumulate, low);
      put_pack<n>(out + head * args.width + half, accumulate, high);
    }
  }
}

// The members of `turn` that do not follow from the layout are given.
template <class N>
void launch(Turn<N> turn, const HeadLayout& layout) {
  turn.rows = layout.rows();
  turn.tokens = layout.tokens;
  turn.heads = layout.heads + layout.kv_heads;
  turn.query_heads = layout.heads;
  turn.width = layout.head_width;
  if (turn.rows == 0) return;
  const auto launch_packs = [&]<int n>() {
    const int row_items = turn.width / 2 / n * ((turn.heads + kHeads - 1) / kHeads);
    // Rows enough that few threads have nothing to do in the last turn of a block.
    turn.block_rows =
        std::max(kThreads / row_items, std::min(16, kThreads / std::gcd(kThreads, row_items)));
    turn_kernel<n><<<blocks_for(turn.rows, turn.block_rows), kThreads, 0, cuda_stream()>>>(turn);
  };
  constexpr int kSize = kPackSize<N>;
  if (turn.width % (2 * kSize) == 0 && takes_packs<kSize>(turn.in, turn.out) &&
      takes_packs<kSize>(turn.table))
    launch_packs.template operator()<kSize>();
  else
    launch_packs.template operator()<1>();
  check_launch("rotate");
}

class CudaRotary final : public RotaryKernels {
 public:
  void rotate(const Tensor& qkv, const Tensor& table, const HeadLayout& layout,
              std::int64_t first_position, const Tensor& rotated) const override {
    dispatch_float(qkv.dtype(), [&]<class T>() {
      using N = Native<T>;
      Turn<N> turn{};
      turn.in = native<T>(qkv);
      turn.in_leading = layout.qkv_width();
      turn.out = native<T>(rotated);
      turn.out_leading = layout.rotated_width();
      turn.table = table.data<Compute<N>>();
      turn.direction = 1;
      turn.first_position = first_position;
      launch(turn, layout);
    });
  }

  // The gradient of a rotation is the rotation back.
  void rotate_grad(const RotateGrad& args) const override {
    dispatch_float(args.drotated.dtype(), [&]<class T>() {
      using N = Native<T>;
      Turn<N> turn{};
      turn.in = native<T>(args.drotated);
      turn.in_leading = args.layout.rotated_width();
      turn.out = native<T>(args.dqueries.tensor);
      turn.out_leading = args.layout.qkv_width();
      turn.add_queries = args.dqueries.accumulate;
      turn.add_keys = args.dkeys.accumulate;
      turn.table = args.table.data<Compute<N>>();
      turn.direction = -1;
      turn.first_position = args.first_position;
      launch(turn, args.layout);
    });
  }
};

}  // namespace

const RotaryKernels& cuda_rotary() {
  static const CudaRotary kernels;
  return kernels;
}

}  // namespace infini
