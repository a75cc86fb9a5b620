#include "tensor/ops/attention_scores.cuh"
#include "tensor/ops/column_sums.cuh"
#include "tensor/ops/launch.cuh"
#include "tensor/ops/product.h"
#include "tensor/ops/relative_attention.h"

namespace infini {
namespace {

using Attention = RelativeAttentionKernels::Attention;
using AttentionGrad = RelativeAttentionKernels::AttentionGrad;

constexpr int kThreads = 128;

__global__ void seen_kernel(const std::uint8_t* present, const std::uint8_t* keep,
                            const std::uint8_t* resets, int segments, std::int64_t tokens,
                            std::int64_t cache, std::int64_t count, std::uint8_t* seen) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const std::int64_t m = i % cache, s = i / cache % (segments + 1), b = i / cache / (segments + 1);
  const std::int64_t place = s * tokens + m, token = place - cache;
  bool stands = token < 0 ? present && present[b * cache + place]
                          : !keep || keep[b * segments * tokens + token];
  for (std::int64_t n = 0; resets && n <= s && n < segments; ++n)
    if (resets[b * segments + n]) stands = stands && place >= cache + n * tokens;
  seen[i] = stands;
}

// What a vector of each head scores with the rows of a table of places, u . k or v . r: [Hk U,
// group, P']. A warp for each row. Added to scores in the accumulator, u and v lose nothing; q + u
// in bf16 would.
template <class N, class A = Compute<N>>
__global__ void __launch_bounds__(kThreads)
    added_scores_kernel(AttentionChunk chunk, unsigned rows, const N* places, const A* bias,
                        A* scores) {
  const unsigned row = blockIdx.x * (kThreads / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  const unsigned table = row / chunk.padded_places, j = row % chunk.padded_places;
  const N* place = places + std::int64_t{row} * chunk.padded_width;
  for (int h = 0; h < chunk.group; ++h) {
    const A* numbers = bias + (table / chunk.units * chunk.group + h) * chunk.width;
    A sum = 0;
    for (int c = lane; c < chunk.width; c += 32) sum += numbers[c] * A(place[c]);
    sum = warp_sum(sum);
    if (lane == 0) scores[(std::int64_t{table} * chunk.group + h) * chunk.padded_places + j] = sum;
  }
}

constexpr int kSlices = 8;  // threads that share the sum of a column

// The sums over the queries of each unit and head of a table: sums [B S, H K]. A block for each,
// which adds what slices of its queries give in their order.
template <class A>
__global__ void __launch_bounds__(32 * kSlices)
    query_sums_kernel(AttentionChunk chunk, const A* table, A* sums) {
  __shared__ A slices[kSlices][32];
  const int lane = threadIdx.x % 32, slice = threadIdx.x / 32;
  const QueryAt at = chunk.query(blockIdx.x * chunk.queries);
  table += std::int64_t{blockIdx.x} * chunk.queries * chunk.padded_width;
  sums += (at.unit * chunk.kv_heads * chunk.group + at.head) * chunk.width;
  for (int c = lane; c - lane < chunk.width; c += 32) {
    A sum = 0;
    if (c < chunk.width)
      for (int i = slice; i < chunk.queries; i += kSlices)
        sum += table[std::int64_t{i} * chunk.padded_width + c];
    __syncthreads();  // the columns before may still be read
    slices[slice][lane] = sum;
    __syncthreads();
    if (slice > 0 || c >= chunk.width) continue;
    sum = 0;
    for (int s = 0; s < kSlices; ++s) sum += slices[s][lane];
    sums[c] = sum;
  }
}

// The cached rows that segments of a chunk read: `count` of each batch row from `batch` on, from
// row `begin` of its context on.
struct CachedRows {
  std::int64_t batch, begin, count, context, step;
  int cache, segments;
};

// A thread for each piece of each such row: dcached [B context, 2 Hk K] += what the segments that
// read it give, in their order.
template <class A>
__global__ void __launch_bounds__(kThreads)
    cached_grad_kernel(AttentionChunk chunk, CachedRows rows, unsigned pieces, const A* dkeys,
                       const A* dvalues, A* dcached) {
  const unsigned piece = blockIdx.x * kThreads + threadIdx.x;
  if (piece >= pieces) return;
  const unsigned across = chunk.padded_width / kPiece, head = piece / across,
                 row = head / chunk.kv_heads, count = rows.count;
  const int c = static_cast<int>(piece % across) * kPiece, g = head % chunk.kv_heads;
  const std::int64_t b = rows.batch + row / count, place = rows.begin + row % count,
                     first_unit = b * rows.segments;
  const std::int64_t oldest = place < rows.cache ? 0 : (place - rows.cache) / rows.step + 1,
                     newest = min(std::int64_t{rows.segments} - 1, place / rows.step);
  const std::int64_t begin = max(oldest, chunk.first - first_unit),
                     last = min(newest, chunk.first + chunk.units - 1 - first_unit);
  if (begin > last) return;

  A* to = dcached + (b * rows.context + place) * 2 * chunk.kv_heads * chunk.width + g * chunk.width;
  A* to_value = to + chunk.kv_heads * chunk.width;
  A dkey[kPiece], dvalue[kPiece];
  load_piece(to, c, chunk.width, dkey);
  load_piece(to_value, c, chunk.width, dvalue);
  for (std::int64_t s = begin; s <= last; ++s) {
    const std::int64_t table = g * chunk.units + first_unit + s - chunk.first,
                       at = (table * chunk.padded_places + place - s * rows.step) *
                                chunk.padded_width +
                            c;
    A more_key[kPiece], more_value[kPiece];
    load_pack<kPiece>(dkeys + at, more_key);
    load_pack<kPiece>(dvalues + at, more_value);
#pragma unroll
    for (int n = 0; n < kPiece; ++n) {
      dkey[n] += more_key[n];
      dvalue[n] += more_value[n];
    }
  }
  put_piece(to, c, chunk.width, false, dkey);
  put_piece(to_value, c, chunk.width, false, dvalue);
}

// r and its scores: what all units share.
struct Distances {
  AttentionChunk chunk;  // of one unit, whose places are distances
  Tensor keys;           // [Hk, P', K']
  Tensor added;          // [H, P'], v . r
};

Tensor added_scores(const AttentionChunk& chunk, const Tensor& places, const Tensor& bias) {
  const Tensor scores =
      Tensor::empty({std::int64_t{chunk.kv_heads} * chunk.units, chunk.group, chunk.padded_places},
                    bias.dtype(), Device::kCuda);
  const unsigned rows = static_cast<unsigned>(places.size() / chunk.padded_width);
  dispatch_float(places.dtype(), [&]<class T>() {
    using A = Compute<Native<T>>;
    launch("attention_added_scores", added_scores_kernel<Native<T>>,
           blocks_for(rows, kThreads / 32), kThreads, 0, chunk, rows, native<T>(places),
           bias.data<A>(), scores.data<A>());
  });
  return scores;
}

Distances distances_of(const Attention& args) {
  const AttentionChunk chunk = chunk_of(args.layout, args.cache_tokens + args.layout.tokens, 0, 1);
  const Tensor keys = pack_places(chunk, {.own = {args.positions.keys}});
  return {.chunk = chunk,
          .keys = keys,
          .added = added_scores(chunk, keys, args.positions.position_bias)};
}

// What the segments of a chunk read.
class ChunkReads {
 public:
  Tensor queries, keys, values;
  ReadMarks marks;
  Scores scores;

  ChunkReads(const Attention& args, const AttentionChunk& chunk, const Distances& distances)
      : queries(pack_queries(chunk, {args.qkv}, args.qkv.dtype())),
        keys(packed(args, chunk, args.layout.key_column(0), 0)),
        values(packed(args, chunk, args.layout.value_column(0),
                      std::int64_t{chunk.kv_heads} * chunk.width)),
        marks{.seen = args.seen,
              .marked = args.cache_tokens,
              .segments = args.layout.segments,
              .borders = args.layout.segments + 1,
              .own = true} {
    const DType wide = accumulator_of(args.qkv.dtype());
    scores = {.content = multiplied({.a = queries, .b = keys, .transpose_b = true}, wide),
              .position = multiplied(
                  {.a = by_head(chunk, queries), .b = distances.keys, .transpose_b = true}, wide),
              .content_added = added_scores(chunk, keys, args.positions.content_bias),
              .position_added = distances.added};
  }

  // A table of queries or scores as one matrix for each key head.
  static Tensor by_head(const AttentionChunk& chunk, const Tensor& table) {
    return table.reshape({chunk.kv_heads, chunk.query_rows() / chunk.kv_heads, table.shape()[2]});
  }

 private:
  static Tensor packed(const Attention& args, const AttentionChunk& chunk, std::int64_t own,
                       std::int64_t cached) {
    return pack_places(chunk, {.own = {args.qkv, own},
                               .cached = {args.cached, cached},
                               .cache = args.cache_tokens,
                               .segments = args.layout.segments,
                               .context = args.context_tokens(),
                               .step = args.step});
  }
};

// Most of what moves are the tables of scores and of probabilities, which go to memory and back.
class CudaRelativeAttention final : public RelativeAttentionKernels {
 public:
  void seen(const Seen& args) const override {
    const HeadLayout& n = args.layout;
    const std::int64_t count = args.seen.size();
    const auto flags = [](const Tensor& tensor) {
      return tensor ? tensor.data<std::uint8_t>() : nullptr;
    };
    launch("cache_seen", seen_kernel, blocks_for(count, kThreads), kThreads, 0, flags(args.present),
           flags(args.keep), flags(args.resets), static_cast<int>(n.segments), n.tokens,
           args.cache_tokens, count, flags(args.seen));
  }

  void attention(const Attention& args, const Tensor& y) const override {
    const DType type = args.qkv.dtype();
    const Distances distances = distances_of(args);
    for (const AttentionChunk& chunk : chunks(args)) {
      const ChunkReads in(args, chunk, distances);
      const Tensor probabilities = softmax_rows(chunk, in.marks, in.scores, args.scale, type);
      unpack_queries(chunk, multiplied({.a = probabilities, .b = in.values}, type), {}, {y}, false);
    }
  }

  // With dD the dS by distance:  dq = dS K + dD r,  dK = dS^T (q + u),  dr = dD^T (q + v),  dV =
  // P^T dy;  du and dv are the sums of dS K and of dD r over queries. The forward pass keeps
  // nothing: scores are made again.
  void attention_grad(const AttentionGrad& args) const override {
    const Attention& forward = args.forward;
    const HeadLayout& layout = forward.layout;
    const DType type = args.dy.dtype(), wide = accumulator_of(type);
    const Distances distances = distances_of(forward);
    const Tensor dcached =
        args.dcached ? Tensor::zeros(forward.cached.shape(), wide, Device::kCuda) : Tensor{};
    const Tensor dkeys = Tensor::zeros(distances.keys.shape(), wide, Device::kCuda);
    const Shape by_unit{layout.batch * layout.segments, layout.query_width()};
    const Tensor by_content = Tensor::empty(by_unit, wide, Device::kCuda),
                 by_position = Tensor::empty_like(by_content);
    for (const AttentionChunk& chunk : chunks(forward)) {
      const ChunkReads in(forward, chunk, distances);
      const Tensor dy = pack_queries(chunk, {args.dy}, type);
      const ScoresGrad made =
          softmax_rows_grad(chunk, in.marks, in.scores, forward.scale,
                            multiplied({.a = dy, .b = in.values, .transpose_b = true}, wide), type);
      const Tensor dvalues =
          multiplied({.a = made.probabilities, .b = dy, .transpose_a = true}, wide);
      const Tensor content =
          pack_queries(chunk, {forward.qkv}, type, forward.positions.content_bias);
      const Tensor dplaces =
          multiplied({.a = made.dscores, .b = content, .transpose_a = true}, wide);
      if (dcached) add_cached(forward, chunk, dplaces, dvalues, dcached);
      if (args.dqkv) {
        const auto put = [&](const Tensor& table, std::int64_t column) {
          unpack_places(chunk, table, forward.cache_tokens, {args.dqkv.tensor, column},
                        args.dqkv.accumulate);
        };
        put(dplaces, layout.key_column(0));
        put(dvalues, layout.value_column(0));
      }

      const Tensor position =
          pack_queries(chunk, {forward.qkv}, type, forward.positions.position_bias);
      const Tensor ddistances = ChunkReads::by_head(chunk, made.ddistances);
      multiply({.a = ddistances,
                .b = ChunkReads::by_head(chunk, position),
                .c = dkeys,
                .transpose_a = true,
                .accumulate = true});
      const Tensor dcontent = multiplied({.a = made.dscores, .b = in.keys}, wide);
      const Tensor dposition =
          multiplied({.a = ddistances, .b = distances.keys}, wide).reshape(dcontent.shape());
      if (args.dqkv)
        unpack_queries(chunk, dcontent, dposition, {args.dqkv.tensor}, args.dqkv.accumulate);
      sum_queries(chunk, dcontent, by_content);
      sum_queries(chunk, dposition, by_position);
    }
    if (args.dcached) add_into(args.dcached, dcached);
    if (args.dkeys)
      unpack_places(distances.chunk, dkeys, 0, {args.dkeys.tensor}, args.dkeys.accumulate);
    dispatch_accumulator(wide, [&]<class A>() {
      if (args.dcontent_bias)
        add_column_sums<A>("relative_attention_grad", by_content, 0, args.dcontent_bias);
      if (args.dposition_bias)
        add_column_sums<A>("relative_attention_grad", by_position, 0, args.dposition_bias);
    });
  }

 private:
  static std::vector<AttentionChunk> chunks(const Attention& args) {
    return chunks_of(args.layout, args.cache_tokens + args.layout.tokens,
                     accumulator_of(args.qkv.dtype()));
  }

  static void sum_queries(const AttentionChunk& chunk, const Tensor& table, const Tensor& sums) {
    dispatch_accumulator(table.dtype(), [&]<class A>() {
      launch("relative_attention_grad", query_sums_kernel<A>,
             static_cast<unsigned>(chunk.query_rows() / chunk.queries), 32 * kSlices, 0, chunk,
             table.data<A>(), sums.data<A>());
    });
  }

  static void add_cached(const Attention& args, const AttentionChunk& chunk, const Tensor& dkeys,
                         const Tensor& dvalues, const Tensor& dcached) {
    const std::int64_t segments = args.layout.segments, last = chunk.first + chunk.units - 1,
                       batches = last / segments - chunk.first / segments + 1;
    CachedRows rows{.batch = chunk.first / segments,
                    .begin = 0,
                    .count = args.context_tokens(),
                    .context = args.context_tokens(),
                    .step = args.step,
                    .cache = static_cast<int>(args.cache_tokens),
                    .segments = static_cast<int>(segments)};
    if (batches == 1) {
      rows.begin = chunk.first % segments * args.step;
      rows.count = (chunk.units - 1) * args.step + args.cache_tokens;
    }
    const unsigned pieces = static_cast<unsigned>(batches * rows.count * chunk.kv_heads *
                                                  (chunk.padded_width / kPiece));
    dispatch_accumulator(dcached.dtype(), [&]<class A>() {
      launch("relative_attention_grad", cached_grad_kernel<A>, blocks_for(pieces, kThreads),
             kThreads, 0, chunk, rows, pieces, dkeys.data<A>(), dvalues.data<A>(),
             dcached.data<A>());
    });
  }
};

}  // namespace

const RelativeAttentionKernels& cuda_relative_attention() {
  static const CudaRelativeAttention kernels;
  return kernels;
}

}  // namespace infini
