// Which rows of which matrix a block multiplies, how they lie in shared memory and how they come
// there.
#pragma once

#include "tensor/ops/decode_args.cuh"

namespace infini {

constexpr int kPieceBytes = 2048;  // of a row, at most in a tile
template <class N>
constexpr int kPiece = kPieceBytes / static_cast<int>(sizeof(N));  // columns

// The rows that this block multiplies with: units of two octets, for what makes numbers of two rows
// has a pair of them in one unit. Rows that a unit lacks are not read and their sums mean nothing.
template <class M>
struct Product {
  using N = typename M::N;
  const N* matrix;  // at the first column
  int leading;      // numbers from a row to the next
  int columns, units;
  Part part;
  int first, end;  // rows; for heads, units of a head
  int head_width, group, heads, kv_heads, kv_head;
  int partner;  // rows from an octet to that which it is paired with, 0 for the next octet
  int stride, units_of_tile;  // see below

  // A unit of a head: what it is of, queries in turn, the key or the value, and its first column.
  struct HeadUnit {
    int section, column;
  };
  __device__ int units_of_head() const { return (M::kHeadWidth ? M::kHeadWidth : head_width) / 16; }
  __device__ HeadUnit head_unit(int unit) const {
    const int number = first + unit;
    const int section =
        M::kHeadWidth ? number / units_of_head() : quotient(number, units_of_head());
    return {section, (number - section * units_of_head()) * 8};
  }
  __device__ int row(const HeadUnit& unit, int octet) const {
    const int head = unit.section < group    ? kv_head * group + unit.section
                     : unit.section == group ? heads + kv_head
                                             : heads + kv_heads + kv_head;
    return head * units_of_head() * 16 + unit.column + octet * units_of_head() * 8;
  }
  // The first row of an octet of a unit.
  __device__ int row(int unit, int octet) const {
    if (part == Part::kHeads) return row(head_unit(unit), octet);
    return first + (partner ? unit * 8 + octet * partner : unit * 16 + octet * 8);
  }
  __device__ int rows(int unit, int octet) const {
    if (part == Part::kHeads) return 8;
    return max(0, min(8, end - row(unit, octet) + (octet ? partner : 0)));
  }
  __device__ int piece_columns(int column) const { return min(kPiece<N>, columns - column); }
};

// Bytes from a row to the next in a tile, so that threads that read together meet different banks:
// those of 8 rows at the same 16 bytes where warps share the columns, otherwise those of 2 rows at
// the same 64 bytes.
template <class N>
__device__ __forceinline__ int tile_stride(int columns, bool warps_share_columns) {
  const int bytes = min(kPiece<N>, columns) * static_cast<int>(sizeof(N));
  return warps_share_columns ? (bytes / 16 | 1) * 16 : (bytes + 63) / 128 * 128 + 64;
}
// Units of a tile: where warps share the columns, as many as divide a batch of 8.
template <class N>
__device__ __forceinline__ int tile_units(int columns, int stride, bool warps_share_columns) {
  const int unit = kUnit * stride;
  if (columns > kPiece<N>) return 1;
  if (!warps_share_columns) return max(1, min(8, kTileBytes / unit));
  return 8 * unit <= kTileBytes ? 8 : 4 * unit <= kTileBytes ? 4 : 2 * unit <= kTileBytes ? 2 : 1;
}

template <class M>
__device__ __forceinline__ Product<M> product_of(const DecodeArgs<M>& args, const Place& place,
                                                 const LayerPointers<typename M::N>& layer,
                                                 Part part, int kv_head) {
  const int width = args.head_width(), group = args.group(), queries = args.heads * width;
  Product<M> product{.matrix = layer.qkv,
                     .leading = args.width(),
                     .columns = args.width(),
                     .units = 0,
                     .part = part,
                     .first = 0,
                     .end = 0,
                     .head_width = width,
                     .group = group,
                     .heads = args.heads,
                     .kv_heads = args.kv_heads,
                     .kv_head = kv_head,
                     .partner = 0,
                     .stride = 0,
                     .units_of_tile = 0};
  switch (part) {
    case Part::kHeads: {
      const Share share = share_of((group + 2) * (width / 16), place.rank, kTeam);
      product.first = share.begin, product.end = share.end;
      product.units = share.size();
      break;
    }
    case Part::kInner:
      product.matrix = layer.up;
      product.first = place.own.begin, product.end = place.own.end;
      if (args.activation == DecodeActivation::kSwiglu) {
        product.partner = args.inner;
        product.units = place.own.size() / 8;
      } else {
        product.units = (place.own.size() + 15) / 16;
      }
      break;
    case Part::kOutput:
    case Part::kDown: {
      const bool output = part == Part::kOutput;
      product.leading = output ? queries : args.inner;
      product.columns = output ? group * width : place.inner.size();
      product.matrix =
          output ? layer.output + kv_head * group * width : layer.down + place.inner.begin;
      product.first = place.units.begin * kUnit, product.end = place.units.end * kUnit;
      product.units = product.columns > 0 ? place.units.size() : 0;
      break;
    }
    default: {
      product.matrix = args.head;
      const Share share = share_of((args.vocabulary + kUnit - 1) / kUnit, blockIdx.x, gridDim.x);
      product.first = share.begin * kUnit;
      product.end = min(args.vocabulary, share.end * kUnit);
      product.units = args.head ? share.size() : 0;
    }
  }
  product.stride = tile_stride<typename M::N>(product.columns, shares_columns(part));
  product.units_of_tile =
      tile_units<typename M::N>(product.columns, product.stride, shares_columns(part));
  return product;
}

// A copying warp's side.
template <class M>
__device__ __forceinline__ void stream_rows(Producer& ring, const Product<M>& product,
                                            std::uint64_t policy) {
  using N = typename M::N;
  const int stride = product.stride, at_once = product.units_of_tile;
#pragma unroll 1
  for (int first = 0; first < product.units; first += at_once) {
    const int slots = min(at_once, product.units - first) * kUnit;
#pragma unroll 1
    for (int column = 0; column < product.columns; column += kPiece<N>) {
      const int bytes = product.piece_columns(column) * static_cast<int>(sizeof(N));
      std::byte* const to = ring.claim(slots * stride);
      if (!shares_columns(product.part) && bytes < kShortRow) {
        const int row = product.row(first, 0);
        ring.copy_rows(to, stride, product.matrix + std::int64_t{row} * product.leading + column,
                       product.leading * std::int64_t{sizeof(N)}, min(slots, product.end - row),
                       bytes, policy);
        continue;
      }
      int rows = 0;
#pragma unroll 1
      for (int begin = 0; begin < slots; begin += ring.kThreads) {
        const int slot = begin + ring.spread(), unit = first + slot / kUnit, octet = slot / 8 % 2;
        const bool valid = slot < slots && slot % 8 < product.rows(unit, octet);
        rows += __popc(__ballot_sync(kAllLanes, valid));
        if (valid)
          ring.copy(to + slot * stride,
                    product.matrix +
                        std::int64_t{product.row(unit, octet) + slot % 8} * product.leading +
                        column,
                    bytes, policy);
      }
      ring.commit(rows * bytes);
    }
  }
}

}  // namespace infini
