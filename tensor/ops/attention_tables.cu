#include <algorithm>

#include "tensor/ops/attention_tables.cuh"
#include "tensor/ops/attention_tables.h"
#include "tensor/ops/launch.cuh"
#include "tensor/ops/product.h"

namespace infini {
namespace {

constexpr int kThreads = 128;
constexpr std::int64_t kMostMatrices = 32768;  // in a batch; grids end at 65535

std::int64_t most_table_bytes = std::int64_t{144} << 20;

std::int64_t padded(std::int64_t count) {
  return std::max<std::int64_t>((count + kPiece - 1) / kPiece, 1) * kPiece;
}

// Threads of kernels that move a piece of a table each: [rows, K'].
unsigned pieces_of(const AttentionChunk& chunk, std::int64_t rows) {
  return static_cast<unsigned>(rows * (chunk.padded_width / kPiece));
}
struct Piece {
  unsigned row;
  int column;
};
__device__ Piece piece_at(const AttentionChunk& chunk, unsigned piece) {
  const unsigned across = chunk.padded_width / kPiece;
  return {.row = piece / across, .column = static_cast<int>(piece % across) * kPiece};
}

template <class From, class To>
__global__ void __launch_bounds__(kThreads)
    pack_queries_kernel(AttentionChunk chunk, unsigned pieces, const From* from,
                        std::int64_t leading, const Compute<To>* bias, Compute<To> factor, To* to) {
  const unsigned piece = blockIdx.x * kThreads + threadIdx.x;
  if (piece >= pieces) return;
  const auto [row, c] = piece_at(chunk, piece);
  const QueryAt at = chunk.query(row);
  Compute<To> values[kPiece];
  load_piece(from + (at.unit * chunk.queries + at.i) * leading + at.head * chunk.width, c,
             chunk.width, values);
#pragma unroll
  for (int n = 0; n < kPiece; ++n) {
    values[n] *= factor;
    if (bias && c + n < chunk.width) values[n] += bias[at.head * chunk.width + c + n];
  }
  store_pack<kPiece>(to + std::int64_t{piece} * kPiece, values);
}

template <class From, class To>
__global__ void __launch_bounds__(kThreads)
    unpack_queries_kernel(AttentionChunk chunk, unsigned pieces, const From* table,
                          const From* other, To* to, std::int64_t leading, bool accumulate) {
  const unsigned piece = blockIdx.x * kThreads + threadIdx.x;
  if (piece >= pieces) return;
  const auto [row, c] = piece_at(chunk, piece);
  const QueryAt at = chunk.query(row);
  Compute<To> values[kPiece], more[kPiece];
  load_pack<kPiece>(table + std::int64_t{piece} * kPiece, values);
  if (other) {
    load_pack<kPiece>(other + std::int64_t{piece} * kPiece, more);
#pragma unroll
    for (int n = 0; n < kPiece; ++n) values[n] += more[n];
  }
  put_piece(to + (at.unit * chunk.queries + at.i) * leading + at.head * chunk.width, c, chunk.width,
            accumulate, values);
}

// PlaceRows as a kernel reads them.
template <class N>
struct Places {
  const N *own, *cached;
  std::int64_t own_leading, cached_leading;
  int cache, segments;
  std::int64_t context, step;

  __device__ const N* row(const AttentionChunk& chunk, const PlaceAt& at) const {
    const unsigned unit = at.unit;
    const N* first =
        at.j < cache
            ? cached + (unit / segments * context + unit % segments * step + at.j) * cached_leading
            : own + (at.unit * (chunk.places - cache) + at.j - cache) * own_leading;
    return first + at.kv_head * chunk.width;
  }
};

template <class N>
__global__ void __launch_bounds__(kThreads)
    pack_places_kernel(AttentionChunk chunk, unsigned pieces, Places<N> from, N* to) {
  const unsigned piece = blockIdx.x * kThreads + threadIdx.x;
  if (piece >= pieces) return;
  const auto [row, c] = piece_at(chunk, piece);
  const PlaceAt at = chunk.place(row, chunk.padded_places);
  Compute<N> values[kPiece] = {};
  if (at.j < chunk.places) load_piece(from.row(chunk, at), c, chunk.width, values);
  store_pack<kPiece>(to + std::int64_t{piece} * kPiece, values);
}

template <class N>
__global__ void __launch_bounds__(kThreads)
    unpack_places_kernel(AttentionChunk chunk, unsigned pieces, const Compute<N>* table, int begin,
                         N* to, std::int64_t leading, bool accumulate) {
  const unsigned piece = blockIdx.x * kThreads + threadIdx.x;
  if (piece >= pieces) return;
  const auto [row, c] = piece_at(chunk, piece);
  const int count = chunk.places - begin;
  const PlaceAt at = chunk.place(row, count);
  const std::int64_t from = std::int64_t{row / count} * chunk.padded_places + begin + at.j;
  Compute<N> values[kPiece];
  load_pack<kPiece>(table + from * chunk.padded_width + c, values);
  put_piece(to + (at.unit * count + at.j) * leading + at.kv_head * chunk.width, c, chunk.width,
            accumulate, values);
}

}  // namespace

std::int64_t attention_table_bytes() { return most_table_bytes; }
void set_attention_table_bytes(std::int64_t bytes) { most_table_bytes = bytes; }

AttentionChunk chunk_of(const HeadLayout& layout, std::int64_t places, std::int64_t first,
                        std::int64_t units) {
  return {.first = first,
          .units = static_cast<int>(units),
          .kv_heads = layout.kv_heads,
          .group = layout.group(),
          .width = layout.head_width,
          .padded_width = static_cast<int>(padded(layout.head_width)),
          .queries = static_cast<int>(layout.tokens),
          .places = static_cast<int>(places),
          .padded_places = static_cast<int>(padded(places))};
}

// Chunks are of one size but for the last, which is little smaller: each size has its own products.
std::vector<AttentionChunk> chunks_of(const HeadLayout& layout, std::int64_t places,
                                      DType numbers) {
  const std::int64_t all = layout.batch * layout.segments;
  const AttentionChunk one = chunk_of(layout, places, 0, 1);
  const std::int64_t largest = std::max({one.score_table().size(), one.place_table().size(),
                                         one.query_table().size(), std::int64_t{1}});
  const std::int64_t most =
      std::clamp<std::int64_t>(most_table_bytes / (largest * bytes_of(numbers)), 1,
                               std::max<std::int64_t>(kMostMatrices / layout.kv_heads, 1));
  const std::int64_t count = (all + most - 1) / most;
  std::vector<AttentionChunk> chunks;
  for (std::int64_t first = 0; first < all;) {
    const std::int64_t units = std::min((all + count - 1) / count, all - first);
    chunks.push_back(chunk_of(layout, places, first, units));
    first += units;
  }
  return chunks;
}

Tensor pack_queries(const AttentionChunk& chunk, const HeadRows& from, DType type,
                    const Tensor& bias, double factor) {
  const Tensor table = Tensor::empty(chunk.query_table(), type, Device::kCuda);
  const unsigned pieces = pieces_of(chunk, chunk.query_rows());
  dispatch_float(type, [&]<class T>() {
    using N = Native<T>;
    using A = Compute<N>;
    const auto start = [&]<class From>(const From* rows) {
      launch("pack_queries", pack_queries_kernel<From, N>, blocks_for(pieces, kThreads), kThreads,
             0, chunk, pieces, rows + from.column, from.rows.shape()[1],
             bias ? bias.data<A>() : nullptr, static_cast<A>(factor), native<T>(table));
    };
    if (from.rows.dtype() == type)
      start(native<T>(from.rows));
    else
      start(from.rows.data<A>());
  });
  return table;
}

void unpack_queries(const AttentionChunk& chunk, const Tensor& table, const Tensor& other,
                    const HeadRows& to, bool accumulate) {
  const unsigned pieces = pieces_of(chunk, chunk.query_rows());
  dispatch_float(to.rows.dtype(), [&]<class T>() {
    const auto start = [&]<class From>(const From* first, const From* second) {
      launch("unpack_queries", unpack_queries_kernel<From, Native<T>>, blocks_for(pieces, kThreads),
             kThreads, 0, chunk, pieces, first, second, native<T>(to.rows) + to.column,
             to.rows.shape()[1], accumulate);
    };
    using A = Compute<Native<T>>;
    if (table.dtype() == to.rows.dtype())
      start(native<T>(table), native<T>(other));
    else
      start(table.data<A>(), other ? other.data<A>() : nullptr);
  });
}

Tensor pack_places(const AttentionChunk& chunk, const PlaceRows& from) {
  const DType type = from.own.rows.dtype();
  const Tensor table = Tensor::empty(chunk.place_table(), type, Device::kCuda);
  const unsigned pieces =
      pieces_of(chunk, std::int64_t{chunk.kv_heads} * chunk.units * chunk.padded_places);
  dispatch_float(type, [&]<class T>() {
    const auto leading = [](const HeadRows& some) { return some.rows ? some.rows.shape()[1] : 0; };
    const Places<Native<T>> places{.own = native<T>(from.own.rows) + from.own.column,
                                   .cached = native<T>(from.cached.rows) + from.cached.column,
                                   .own_leading = leading(from.own),
                                   .cached_leading = leading(from.cached),
                                   .cache = static_cast<int>(from.cache),
                                   .segments = static_cast<int>(from.segments),
                                   .context = from.context,
                                   .step = from.step};
    launch("pack_places", pack_places_kernel<Native<T>>, blocks_for(pieces, kThreads), kThreads, 0,
           chunk, pieces, places, native<T>(table));
  });
  return table;
}

void unpack_places(const AttentionChunk& chunk, const Tensor& table, std::int64_t begin,
                   const HeadRows& to, bool accumulate) {
  const unsigned pieces =
      pieces_of(chunk, std::int64_t{chunk.kv_heads} * chunk.units * (chunk.places - begin));
  dispatch_float(to.rows.dtype(), [&]<class T>() {
    launch("unpack_places", unpack_places_kernel<Native<T>>, blocks_for(pieces, kThreads), kThreads,
           0, chunk, pieces, table.data<Compute<Native<T>>>(), static_cast<int>(begin),
           native<T>(to.rows) + to.column, to.rows.shape()[1], accumulate);
  });
}

Tensor multiplied(const TableProduct& product, DType type) {
  const auto [count, a_rows, a_columns] = product.a.dims<3>();
  const Tensor c = Tensor::empty({count, product.transpose_a ? a_columns : a_rows,
                                  product.b.shape()[product.transpose_b ? 1 : 2]},
                                 type, Device::kCuda);
  multiply({.a = product.a,
            .b = product.b,
            .c = c,
            .transpose_a = product.transpose_a,
            .transpose_b = product.transpose_b});
  return c;
}

}  // namespace infini
