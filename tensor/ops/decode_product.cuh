// Products of matrices with one vector. A block has whole rows, eight at a time; bf16 goes through
// the tensor cores with the rows as columns of B and the vector as the first row of A, every warp
// taking some columns of the matrix.
#pragma once

#include "tensor/ops/decode_args.cuh"

namespace infini {

// Vectors for octets. bf16: the 32 numbers of a chunk lie so that one access gives lane c what it
// needs of A in two products: columns 8 m + 2 c and the next, for m = 0..3. fp32: in order.
template <class N>
__device__ __forceinline__ void store_operand(std::byte* x, int pack,
                                              const float (&values)[kPackSize<N>]) {
  if constexpr (sizeof(N) == 2) {
    std::uint32_t* const words = reinterpret_cast<std::uint32_t*>(x) + pack / 4 * 16 + pack % 4;
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const __nv_bfloat162 pair = __floats2bfloat162_rn(values[2 * c], values[2 * c + 1]);
      words[4 * c] = *reinterpret_cast<const std::uint32_t*>(&pair);
    }
  } else {
    store_pack<4>(reinterpret_cast<float*>(x) + 4 * pack, values);
  }
}

// sums [8 vectors, 8 rows] += vectors rows^T over one chunk. `row` is where this lane's piece of
// the chunk begins: row lane % 8, 16 bytes times lane / 8. `x` is what the lane holds of vector
// lane / 4, zeros where there is none; it gets the sums of rows 2 (lane % 4) and the next in [0]
// and [1].
__device__ __forceinline__ void multiply_chunk(const std::byte* row, uint4 x, float (&first)[4],
                                               float (&second)[4]) {
  std::uint32_t rows[4];
  load_matrices<false>(row, rows);
  const std::uint32_t low[4] = {x.x, 0, x.y, 0}, high[4] = {x.z, 0, x.w, 0};
  multiply_add(first, low, rows[0], rows[1]);
  multiply_add(second, high, rows[2], rows[3]);
}

// How warps share the stages of a product: each team takes every `count`-th one. A stage takes a
// while however few its columns are, so where there are several, several are under way.
struct Teams {
  int count;

  __device__ explicit Teams(int stages) : count(stages >= 4 ? 4 : stages >= 2 ? 2 : 1) {}
};
static_assert(kConsumerWarps % 4 == 0);

// The sums of an octet as warps make them, part by part.
template <class N>
class OctetSum;

template <>
class OctetSum<__nv_bfloat16> {
 public:
  static constexpr int kParts = kConsumerWarps;

  // `columns` of the rows in stage number `turn`, times x from there on.
  __device__ __forceinline__ void add(const Desk<__nv_bfloat16>& desk, const Teams& teams, int turn,
                                      const std::byte* stage, int first_column, int columns) {
    if (turn % teams.count != desk.warp % teams.count) return;
    const int step = kConsumerWarps / teams.count, chunks = columns / 32;
    const std::byte* const row = stage + desk.lane % 8 * kRowStride + desk.lane / 8 * 16;
    const bool holds = desk.lane < 4;
    const uint4* const x =
        holds ? reinterpret_cast<const uint4*>(desk.x + 2 * first_column) + desk.lane : desk.zero;
    const int x_step = holds ? 4 : 0;
    const auto multiply = [&](int chunk, int i) {
      multiply_chunk(row + chunk * 64, x[chunk * x_step], sums_[2 * (i % 2)],
                     sums_[2 * (i % 2) + 1]);
    };
    int chunk = desk.warp / teams.count;
    for (; chunk + 3 * step < chunks; chunk += 4 * step)
#pragma unroll
      for (int i = 0; i < 4; ++i) multiply(chunk + i * step, i);
    for (; chunk < chunks; chunk += step) multiply(chunk, 0);
  }
  __device__ __forceinline__ void put(const Desk<__nv_bfloat16>& desk, float* partials) const {
    if (desk.lane >= 4) return;
#pragma unroll
    for (int i = 0; i < 2; ++i)
      partials[desk.warp * kOctet + 2 * desk.lane + i] =
          (sums_[0][i] + sums_[1][i]) + (sums_[2][i] + sums_[3][i]);
  }

 private:
  float sums_[4][4] = {};  // four of them, for products wait for each other
};

// fp32: a warp has a row.
template <>
class OctetSum<float> {
 public:
  static constexpr int kParts = 1;

  __device__ __forceinline__ void add(const Desk<float>& desk, const Teams&, int,
                                      const std::byte* stage, int first_column, int columns) {
    const auto* const row = reinterpret_cast<const float*>(stage + desk.warp * kRowStride);
    const auto* const x = reinterpret_cast<const float*>(desk.x) + first_column;
    for (int c = 4 * desk.lane; c < columns; c += 128) {
      float a[4], b[4];
      load_pack<4>(row + c, a);
      load_pack<4>(x + c, b);
#pragma unroll
      for (int e = 0; e < 4; ++e) sum_ += a[e] * b[e];
    }
  }
  __device__ __forceinline__ void put(const Desk<float>& desk, float* partials) const {
    const float sum = warp_sum(sum_);
    if (desk.lane == 0) partials[desk.warp] = sum;
  }

 private:
  float sum_ = 0;
};

// The copying warp's side of multiply_rows.
template <class N>
__device__ __forceinline__ void stream_rows(Ring& ring, const Product<N>& product,
                                            std::uint64_t policy) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const auto [matrix, rows, columns, halves] = product;
  const Share octets = share_of((rows + kOctet - 1) / kOctet, blockIdx.x, gridDim.x);
  for (int octet = octets.begin; octet < octets.end; ++octet)
    for (int half = 0; half < halves; ++half) {
      const int count = min(kOctet, rows - octet * kOctet);
      const N* const row = matrix + (std::int64_t{half} * rows + octet * kOctet + lane) * columns;
#pragma unroll 1
      for (int first = 0; first < columns; first += kPiece<N>) {
        const int bytes = min(kPiece<N>, columns - first) * static_cast<int>(sizeof(N));
        std::byte* const to = ring.claim(count * bytes);
        if (lane < count) ring.copy(to + lane * kRowStride, row + first, bytes, policy);
        ring.advance();
      }
    }
}

// The product with x for this block's rows: warp 0 calls use(row, valid, values), a lane for a row,
// with the sums of that row in both halves.
template <class N, class Use>
__device__ __forceinline__ void multiply_rows(const Desk<N>& desk, Ring& ring,
                                              const Product<N>& product, Use use) {
  const auto [matrix, rows, columns, halves] = product;
  const Share octets = share_of((rows + kOctet - 1) / kOctet, blockIdx.x, gridDim.x);
  const int pieces = (columns + kPiece<N> - 1) / kPiece<N>;
  const Teams teams(min(kBatch, octets.size()) * halves * pieces);
  int turn = 0, stages = 0;
#pragma unroll 1
  for (int batch = octets.begin; batch < octets.end; batch += kBatch, turn ^= 1) {
    const int count = min(kBatch, octets.end - batch);
    float* const partials = desk.partials + turn * kBatch * 2 * kPartialStride;
#pragma unroll 1
    for (int i = 0; i < count * halves; ++i) {
      OctetSum<N> sum;
#pragma unroll 1
      for (int first = 0; first < columns; first += kPiece<N>, ++stages) {
        sum.add(desk, teams, stages, ring.acquire(), first, min(kPiece<N>, columns - first));
        ring.release();
      }
      sum.put(desk, partials + i * kPartialStride);
    }
    sync_consumers();  // the other turn's sums may still be read, these were read a turn ago
    if (desk.warp != 0) continue;
    const int octet = desk.lane / kOctet, row = (batch + octet) * kOctet + desk.lane % kOctet;
    const bool valid = octet < count && row < rows;
    float values[2] = {};
    const float* const parts = partials + octet * halves * kPartialStride + desk.lane % kOctet;
    if (valid)
#pragma unroll
      for (int part = 0; part < OctetSum<N>::kParts; ++part) {
        values[0] += parts[part * kOctet];
        if (halves == 2) values[1] += parts[kPartialStride + part * kOctet];
      }
    use(row, valid, values);
  }
}

// Hands neighbouring rows to the other blocks: warp 0 alone, all its lanes.
template <class N>
__device__ __forceinline__ void publish_rows(std::uint32_t* vector, int row, bool valid,
                                             float value) {
  const float next = __shfl_down_sync(0xffffffff, value, 1);
  if (valid && row % 2 == 0) publish_pair<N>(vector, row, value, next);
}

// x = a vector from other blocks.
template <class N>
__device__ __forceinline__ void stage_vector(const Desk<N>& desk, const void* from, int size) {
  desk.each_vector(from, true, size / kPackSize<N>, [&](int i, uint4 words) {
    float values[kPackSize<N>];
    unpack<N>(words, values);
    store_operand<N>(desk.x, i, values);
  });
  sync_consumers();
}

// stream = a vector, from other blocks where it has to be waited for; x = its norm, which may also
// be written to `hidden`. Every block does the same, in the same order.
template <class N>
__device__ __forceinline__ void stage_norm(const Desk<N>& desk, const void* from, bool waits,
                                           const float* weight, N* hidden) {
  constexpr int n = kPackSize<N>;
  const int packs = desk.args.width / n;
  // The first weights in registers and the others near, before the wait.
  float weights[n] = {};
  if (desk.tid < packs) load_pack<n>(weight + desk.tid * n, weights);
  for (int i = desk.tid + kConsumers; i < packs; i += kConsumers) prefetch_line(weight + i * n);

  float squares = 0;
  desk.each_vector(from, waits, packs, [&](int i, uint4 words) {
    float values[n];
    unpack<N>(words, values);
    store_pack<n>(desk.stream + i * n, values);
#pragma unroll
    for (int e = 0; e < n; ++e) squares += values[e] * values[e];
  });
  squares = warp_sum(squares);
  if (desk.lane == 0) desk.sums[desk.warp] = squares;
  sync_consumers();
  float total = 0;
#pragma unroll
  for (int warp = 0; warp < kConsumerWarps; ++warp) total += desk.sums[warp];
  const float inv = 1 / sqrtf(total / static_cast<float>(desk.args.width) + desk.args.norm_eps);
  for (int i = desk.tid; i < packs; i += kConsumers) {
    float values[n];
    if (i != desk.tid) load_pack<n>(weight + i * n, weights);
    load_pack<n>(desk.stream + i * n, values);
#pragma unroll
    for (int e = 0; e < n; ++e) values[e] = values[e] * inv * weights[e];
    store_operand<N>(desk.x, i, values);
    if (hidden) store_pack<n>(hidden + i * n, values);
  }
  sync_consumers();
}

}  // namespace infini
