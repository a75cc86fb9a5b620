// Products of matrices with one vector. A warp multiplies units of 16 rows; bf16 goes through the
// tensor cores with the rows as A and the vector as every column of B. Where a block has few long
// rows its warps share the columns of each; where it has many short ones, the rows.
#pragma once

#include "tensor/ops/decode_matrix.cuh"

namespace infini {

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
    for (int i = 0; i < kUnits; ++i) {
      const int unit = first + i * kConsumerWarps;
      const auto* const from = reinterpret_cast<const std::uint32_t*>(own + unit * x.step);
#pragma unroll
      for (int word = 0; word < kWords; ++word)
        words[i][word] =
            unit < units ? from[sizeof(N) == 2 ? 4 * word : word % 4 + word / 4 * 8] : 0;
    }
  }
};

// The sums of a unit of rows as one warp makes them. Rows whose columns the warps share come in two
// steps: load() reads this warp's part of them, multiply() adds it.
template <class N>
class UnitSum;

template <>
class UnitSum<__nv_bfloat16> {
 public:
  using Share = ColumnShare<__nv_bfloat16>;
  using Words = std::uint32_t[Share::kUnits][4];

  // Every 8th 16 columns of the rows that begin at `rows`.
  static __device__ __forceinline__ void load(const std::byte* rows, int stride, const Share& x,
                                              int first, Words& a) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    rows += lane % 16 * stride + lane / 16 * 16 + first * 32;
    if (x.count == x.kUnits * kConsumerWarps) {  // no branches between loads
#pragma unroll
      for (int i = 0; i < x.kUnits; ++i) load_matrices<false>(rows + i * kConsumerWarps * 32, a[i]);
      return;
    }
#pragma unroll
    for (int i = 0; i < x.kUnits; ++i)
      if (first + i * kConsumerWarps < x.count)
        load_matrices<false>(rows + i * kConsumerWarps * 32, a[i]);
      else
        a[i][0] = a[i][1] = a[i][2] = a[i][3] = 0;
  }
  __device__ __forceinline__ void multiply(const Words& a, const Share& x) {
#pragma unroll
    for (int i = 0; i < x.kUnits; ++i)
      multiply_add(sums_[i % 4], a[i], x.words[i][0], x.words[i][1]);
  }
  // All columns, `count` times 16. A lane reads 8 columns of both rows and of x at once; the order
  // of columns within a product of 16 is free, as long as it is that of x. As many are on their way
  // at a time as registers allow.
  __device__ __forceinline__ void add(const std::byte* rows, int stride, const std::byte* x,
                                      int count) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    rows += lane / 4 * stride + lane % 4 * 16;
    x += lane % 4 * 16;
    constexpr int kPairs = 6;
    const int pairs = (count + (lane % 4 < 2)) / 2;  // of this lane: the last may be half a one
#pragma unroll 1
    for (int pair = 0; pair < (count + 1) / 2; pair += kPairs) {
      uint4 low[kPairs], high[kPairs], b[kPairs];
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        low[i] = high[i] = b[i] = {};
        if (pair + i < pairs) {
          low[i] = *reinterpret_cast<const uint4*>(rows + (pair + i) * 64);
          high[i] = *reinterpret_cast<const uint4*>(rows + 8 * stride + (pair + i) * 64);
          b[i] = *reinterpret_cast<const uint4*>(x + (pair + i) * 64);
        }
      }
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        multiply_add(sums_[i % 2 * 2], {low[i].x, high[i].x, low[i].y, high[i].y}, b[i].x, b[i].y);
        multiply_add(sums_[i % 2 * 2 + 1], {low[i].z, high[i].z, low[i].w, high[i].w}, b[i].z,
                     b[i].w);
      }
    }
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
  using Share = ColumnShare<float>;
  using Words = float[Share::kUnits][8];

  static __device__ __forceinline__ void load(const std::byte* rows, int stride, const Share& x,
                                              int first, Words& a) {
    rows += offset(stride) + first * 64;
#pragma unroll
    for (int i = 0; i < x.kUnits; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float values[4] = {};
        if (first + i * kConsumerWarps < x.count)
          load_pack<4>(reinterpret_cast<const float*>(rows + i * kConsumerWarps * 64 + half * 32),
                       values);
#pragma unroll
        for (int e = 0; e < 4; ++e) a[i][4 * half + e] = values[e];
      }
  }
  __device__ __forceinline__ void multiply(const Words& a, const Share& x) {
#pragma unroll
    for (int i = 0; i < x.kUnits; ++i)
#pragma unroll
      for (int e = 0; e < 8; ++e) sum_ += a[i][e] * __uint_as_float(x.words[i][e]);
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
    const float sum = sum_ + __shfl_xor_sync(kAllLanes, sum_, 1);
    const int row = static_cast<int>(threadIdx.x) % 32 / 4;
    values[0] = __shfl_sync(kAllLanes, sum, 2 * row);
    values[1] = __shfl_sync(kAllLanes, sum, 2 * (row + 8));
  }

 private:
  static __device__ __forceinline__ int offset(int stride) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    return lane / 2 * stride + lane % 2 * 16;
  }

  float sum_ = 0;
};

// Warps share the columns; then a warp for each unit calls use(unit, sum) with the sum of row
// lane % 16 in every lane. The warp of the norm is met before that, once for every 8 units. The
// sums of a unit are put away while the next one is read.
template <class M, class Use>
__device__ __forceinline__ void multiply_columns(const Desk<M>& desk, Consumer& ring,
                                                 const Product<M>& product, const Operand& x,
                                                 int& turn, Use use) {
  using N = typename M::N;
  const int columns = desk.args.width(), stride = tile_stride<N>(columns, true);
  const int at_once = tile_units<N>(columns, stride, true);
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
    UnitSum<N> sum;
#pragma unroll 1
    for (int first = 0; first < count; first += at_once) {
      const int slots = min(at_once, count - first);
#pragma unroll 1
      for (int column = 0; column < columns; column += kPiece<N>) {
        if (batch + first == 0 || columns > kPiece<N>)
          share.load({x.bytes + column / kUnit * x.step, x.step}, desk.warp,
                     min(kPiece<N>, columns - column) / kUnit);
        const std::byte* const tile = ring.acquire(slots * kUnit * stride);
#pragma unroll 1
        for (int unit = 0; unit < slots; ++unit) {  // one, where there are several pieces
          typename UnitSum<N>::Words words;
          sum.load(tile + unit * kUnit * stride, stride, share, desk.warp, words);
          if (column == 0) {
            if (first + unit > 0) put(first + unit - 1, sum);
            sum = {};
          }
          sum.multiply(words, share);
        }
        ring.release();
      }
    }
    if (count > 0) put(count - 1, sum);
    meet_norm();  // the other turn's sums may still be read, these were read a turn ago
    if (desk.warp < count) {
      const float* const sums =
          partials + (desk.warp * kConsumerWarps + desk.lane / 16) * kUnit + desk.lane % 16;
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kConsumerWarps / 2; ++i) sum += sums[2 * i * kUnit];
      use(batch + desk.warp, sum + __shfl_xor_sync(kAllLanes, sum, 16));
    }
    batch += kBatch;
  } while (batch < product.units);
}

// Warps share the rows, x lies in order. They call use(unit, sum): lanes 0 and 1 of every four have
// the sums of rows lane / 4 and lane / 4 + 8.
template <class M, class Use>
__device__ __forceinline__ void multiply_rows(const Desk<M>& desk, Consumer& ring,
                                              const Product<M>& product, const std::byte* x,
                                              Use use) {
  using N = typename M::N;
  const int stride = product.stride, at_once = product.units_of_tile;
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
