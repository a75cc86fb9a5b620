// Products of matrices with one vector. A warp multiplies units of 16 rows; bf16 goes through the
// tensor cores with the rows as A and the vector as every column of B. Where a block has few long
// rows its warps share the columns of each; where it has many short ones, the rows.
#pragma once

#include "tensor/ops/decode_args.cuh"

namespace infini {

constexpr int kPieceBytes = 2048;  // of a row, at most in a tile
template <class N>
constexpr int kPiece = kPieceBytes / static_cast<int>(sizeof(N));  // columns

// The rows that this block multiplies with: units of two octets, for what makes numbers of two rows
// has a pair of them in one unit. Rows that a unit lacks are not read and their sums mean nothing.
template <class N>
struct Product {
  const N* matrix;  // at the first column
  int leading;      // numbers from a row to the next
  int columns, units;
  Part part;
  int first, end;  // rows; for heads, units of a head
  int head_width, group, heads, kv_heads, kv_head;
  int partner;  // rows from an octet to that which it is paired with, 0 for the next octet

  // The first row of an octet of a unit.
  __device__ int row(int unit, int octet) const {
    if (part != Part::kHeads)
      return first + (partner ? unit * 8 + octet * partner : unit * 16 + octet * 8);
    const int section = quotient(first + unit, head_width / 16);
    const int column = (first + unit - section * (head_width / 16)) * 8;
    const int head = section < group    ? kv_head * group + section
                     : section == group ? heads + kv_head
                                        : heads + kv_heads + kv_head;
    return head * head_width + column + octet * (head_width / 2);
  }
  __device__ int rows(int unit, int octet) const {
    if (part == Part::kHeads) return 8;
    return max(0, min(8, end - row(unit, octet) + (octet ? partner : 0)));
  }
  __device__ int piece_columns(int column) const { return min(kPiece<N>, columns - column); }
  // Bytes from a row to the next in a tile, so that threads that read together meet different
  // banks: those of 8 rows at the same 16 bytes where warps share the columns, otherwise those of 2
  // rows at the same 64 bytes.
  __device__ int stride() const {
    const int bytes = min(kPiece<N>, columns) * static_cast<int>(sizeof(N));
    if (part != Part::kOutput && part != Part::kDown) return (bytes / 16 | 1) * 16;
    return (bytes + 63) / 128 * 128 + 64;
  }
  __device__ int units_of_tile() const {
    if (columns > kPiece<N>) return 1;
    const int unit = kUnit * stride();
    return 8 * unit <= kTileBytes ? 8 : 4 * unit <= kTileBytes ? 4 : 2 * unit <= kTileBytes ? 2 : 1;
  }
};

template <class N>
__device__ __forceinline__ Product<N> product_of(const DecodeArgs<N>& args, const Place& place,
                                                 const LayerPointers<N>& layer, Part part,
                                                 int kv_head) {
  const int width = args.head_width, group = args.group(), queries = args.heads * width;
  Product<N> product{.matrix = layer.qkv,
                     .leading = args.width,
                     .columns = args.width,
                     .units = 0,
                     .part = part,
                     .first = 0,
                     .end = 0,
                     .head_width = width,
                     .group = group,
                     .heads = args.heads,
                     .kv_heads = args.kv_heads,
                     .kv_head = kv_head,
                     .partner = 0};
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
  return product;
}

// A copying warp's side.
template <class N>
__device__ __forceinline__ void stream_rows(Producer& ring, const Product<N>& product,
                                            std::uint64_t policy) {
  const int stride = product.stride(), at_once = product.units_of_tile();
#pragma unroll 1
  for (int first = 0; first < product.units; first += at_once) {
    const int slots = min(at_once, product.units - first) * kUnit;
#pragma unroll 1
    for (int column = 0; column < product.columns; column += kPiece<N>) {
      const int bytes = product.piece_columns(column) * static_cast<int>(sizeof(N));
      std::byte* const to = ring.claim(slots * stride);
      int rows = 0;
#pragma unroll 1
      for (int begin = 0; begin < slots; begin += ring.kThreads) {
        const int slot = begin + ring.thread(), unit = first + slot / kUnit, octet = slot / 8 % 2;
        const bool valid = slot < slots && slot % 8 < product.rows(unit, octet);
        rows += __popc(__ballot_sync(0xffffffff, valid));
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

// A vector in shared memory, in units of 16 numbers that lie `step` bytes apart.
struct Operand {
  const std::byte* bytes;
  int step;
};

// What a warp needs of a piece of the vector whose columns the warps share.
template <class N>
struct ColumnShare {
  static constexpr int kUnits = kPiece<N> / kUnit / kConsumerWarps;
  static constexpr int kWords = sizeof(N) == 2 ? 2 : 8;  // a lane's of a unit

  std::uint32_t words[kUnits][kWords];
  int count;  // units of the piece

  __device__ __forceinline__ void load(const Operand& x, int first, int units) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const std::byte* const own = x.bytes + (sizeof(N) == 2 ? lane % 4 * 4 : lane % 2 * 16);
    count = units;
#pragma unroll
    for (int i = 0; i < kUnits; ++i)
      if (const int unit = first + i * kConsumerWarps; unit < units) {
        const auto* const from = reinterpret_cast<const std::uint32_t*>(own + unit * x.step);
#pragma unroll
        for (int word = 0; word < kWords; ++word)
          words[i][word] = from[sizeof(N) == 2 ? 4 * word : word % 4 + word / 4 * 8];
      }
  }
};

// The sums of a unit of rows as one warp makes them.
template <class N>
class UnitSum;

template <>
class UnitSum<__nv_bfloat16> {
 public:
  // Every 8th 16 columns of the rows that begin at `rows`.
  __device__ __forceinline__ void add_columns(const std::byte* rows, int stride,
                                              const ColumnShare<__nv_bfloat16>& x, int first) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    rows += lane % 16 * stride + lane / 16 * 16 + first * 32;
    std::uint32_t a[x.kUnits][4];
    if (x.count == x.kUnits * kConsumerWarps) {  // no branches between loads
#pragma unroll
      for (int i = 0; i < x.kUnits; ++i) load_matrices<false>(rows + i * kConsumerWarps * 32, a[i]);
#pragma unroll
      for (int i = 0; i < x.kUnits; ++i)
        multiply_add(sums_[i % 4], a[i], x.words[i][0], x.words[i][1]);
      return;
    }
#pragma unroll
    for (int i = 0; i < x.kUnits; ++i)
      if (first + i * kConsumerWarps < x.count) {
        load_matrices<false>(rows + i * kConsumerWarps * 32, a[0]);
        multiply_add(sums_[0], a[0], x.words[i][0], x.words[i][1]);
      }
  }
  // All columns, `count` times 16. A lane reads 8 columns of both rows and of x at once; the order
  // of columns within a product of 16 is free, as long as it is that of x.
  __device__ __forceinline__ void add(const std::byte* rows, int stride, const std::byte* x,
                                      int count) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    rows += lane / 4 * stride + lane % 4 * 16;
    x += lane % 4 * 16;
    const auto add = [&](int pair, bool valid, float(&first)[4], float(&second)[4]) {
      uint4 low{}, high{}, b{};
      if (valid) {
        low = *reinterpret_cast<const uint4*>(rows + pair * 64);
        high = *reinterpret_cast<const uint4*>(rows + 8 * stride + pair * 64);
        b = *reinterpret_cast<const uint4*>(x + pair * 64);
      }
      multiply_add(first, {low.x, high.x, low.y, high.y}, b.x, b.y);
      multiply_add(second, {low.z, high.z, low.w, high.w}, b.z, b.w);
    };
    int pair = 0;
#pragma unroll 1
    for (; pair + 3 < count / 2; pair += 4)
#pragma unroll
      for (int i = 0; i < 4; ++i) add(pair + i, true, sums_[i % 2 * 2], sums_[i % 2 * 2 + 1]);
#pragma unroll 1
    for (; pair < (count + 1) / 2; ++pair)
      add(pair, pair < count / 2 || lane % 4 < 2, sums_[0], sums_[1]);
  }
  // Of rows lane / 4 and lane / 4 + 8.
  __device__ __forceinline__ void get(float (&values)[2]) const {
#pragma unroll
    for (int i = 0; i < 2; ++i)
      values[i] = (sums_[0][2 * i] + sums_[1][2 * i]) + (sums_[2][2 * i] + sums_[3][2 * i]);
  }

 private:
  float sums_[4][4] = {};  // four of them, for products wait for each other
};

// fp32: two lanes have a row.
template <>
class UnitSum<float> {
 public:
  __device__ __forceinline__ void add_columns(const std::byte* rows, int stride,
                                              const ColumnShare<float>& x, int first) {
    rows += offset(stride) + first * 64;
#pragma unroll
    for (int i = 0; i < x.kUnits; ++i)
      if (first + i * kConsumerWarps < x.count)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float a[4];
          load_pack<4>(reinterpret_cast<const float*>(rows + i * kConsumerWarps * 64 + half * 32),
                       a);
#pragma unroll
          for (int e = 0; e < 4; ++e) sum_ += a[e] * __uint_as_float(x.words[i][4 * half + e]);
        }
  }
  __device__ __forceinline__ void add(const std::byte* rows, int stride, const std::byte* x,
                                      int count) {
    rows += offset(stride);
    x += threadIdx.x % 2 * 16;
#pragma unroll 1
    for (int i = 0; i < 2 * count; ++i) {
      float a[4], b[4];
      load_pack<4>(reinterpret_cast<const float*>(rows + i * 32), a);
      load_pack<4>(reinterpret_cast<const float*>(x + i * 32), b);
#pragma unroll
      for (int e = 0; e < 4; ++e) sum_ += a[e] * b[e];
    }
  }
  __device__ __forceinline__ void get(float (&values)[2]) const {
    const float sum = sum_ + __shfl_xor_sync(0xffffffff, sum_, 1);
    const int row = static_cast<int>(threadIdx.x) % 32 / 4;
    values[0] = __shfl_sync(0xffffffff, sum, 2 * row);
    values[1] = __shfl_sync(0xffffffff, sum, 2 * (row + 8));
  }

 private:
  static __device__ __forceinline__ int offset(int stride) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    return lane / 2 * stride + lane % 2 * 16;
  }

  float sum_ = 0;
};

// Warps share the columns; then a warp for each unit calls use(unit, sum) with the sum of row
// lane % 16 in every lane. The warp of the norm is met before that, once for every 8 units.
template <class N, class Use>
__device__ __forceinline__ void multiply_columns(const Desk<N>& desk, Consumer& ring,
                                                 const Product<N>& product, const Operand& x,
                                                 int& turn, Use use) {
  const int stride = product.stride(), at_once = product.units_of_tile();
  ColumnShare<N> share;
  int batch = 0;
#pragma unroll 1
  do {
    const int count = min(kBatch, product.units - batch);
    float* const partials = desk.partials + turn * kPartials;
    turn ^= 1;
    const auto put = [&](int unit, const UnitSum<N>& sum) {
      float values[2];
      sum.get(values);
      if (desk.lane % 4 < 2)
        partials[(unit * kConsumerWarps + desk.warp) * kUnit + desk.lane / 4 + desk.lane % 4 * 8] =
            desk.lane % 4 == 0 ? values[0] : values[1];
    };
#pragma unroll 1
    for (int first = 0; first < count; first += at_once) {
      const int slots = min(at_once, count - first);
      UnitSum<N> sum;
#pragma unroll 1
      for (int column = 0; column < product.columns; column += kPiece<N>) {
        if (batch + first == 0 || product.columns > kPiece<N>)
          share.load({x.bytes + column / kUnit * x.step, x.step}, desk.warp,
                     product.piece_columns(column) / kUnit);
        const std::byte* const tile = ring.acquire(slots * kUnit * stride);
#pragma unroll 1
        for (int unit = 0; unit < slots; ++unit) {  // one, where there are several pieces
          if (column == 0) sum = {};
          sum.add_columns(tile + unit * kUnit * stride, stride, share, desk.warp);
          if (column + kPiece<N> >= product.columns) put(first + unit, sum);
        }
        ring.release();
      }
    }
    meet_norm();  // the other turn's sums may still be read, these were read a turn ago
    if (desk.warp < count) {
      const float* const sums =
          partials + (desk.warp * kConsumerWarps + desk.lane / 16) * kUnit + desk.lane % 16;
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kConsumerWarps / 2; ++i) sum += sums[2 * i * kUnit];
      use(batch + desk.warp, sum + __shfl_xor_sync(0xffffffff, sum, 16));
    }
    batch += kBatch;
  } while (batch < product.units);
}

// Warps share the rows, x lies in order. They call use(unit, sum): lanes 0 and 1 of every four have
// the sums of rows lane / 4 and lane / 4 + 8.
template <class N, class Use>
__device__ __forceinline__ void multiply_rows(const Desk<N>& desk, Consumer& ring,
                                              const Product<N>& product, const std::byte* x,
                                              Use use) {
  const int stride = product.stride(), at_once = product.units_of_tile();
#pragma unroll 1
  for (int first = 0; first < product.units; first += at_once) {
    const int slots = min(at_once, product.units - first);
    const int unit = first + (desk.warp - first % kConsumerWarps + kConsumerWarps) % kConsumerWarps;
    const bool takes = unit < first + slots;
    UnitSum<N> sum;
#pragma unroll 1
    for (int column = 0; column < product.columns; column += kPiece<N>) {
      const std::byte* const tile = ring.acquire(slots * kUnit * stride);
      if (takes)
        sum.add(tile + (unit - first) * kUnit * stride, stride, x + column * sizeof(N),
                product.piece_columns(column) / kUnit);
      ring.release();
    }
    if (!takes) continue;
    float values[2];
    sum.get(values);
    use(unit, desk.lane % 4 == 0 ? values[0] : values[1]);
  }
}

}  // namespace infini
