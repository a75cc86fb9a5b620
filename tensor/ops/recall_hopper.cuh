// The gradient of recall on Hopper, for heads 128 wide whose dqkv and dlocal are written over:
// recall_fast.cuh says what is computed. The products are those of a warpgroup; what is left to the
// other units are few instructions, which bound it.
#pragma once

#include "tensor/ops/hopper_wgmma.cuh"
#include "tensor/ops/recall_fast.cuh"

namespace infini {

// Tiles lie as hopper_wgmma.cuh says.
struct HopperRecallGradShared {
  static constexpr int K = 128;
  uint4 matrix[2][K][8];  // its rows in the order of `place`
  uint4 q[2][2][kTileTokens][8], dy[2][2][kTileTokens][8];
  Bf16 z_parts[2][K];  // z and what is left of it, each rounded
  float z[K];
  // Of each token g / denominator, -1 / denominator or 0 where that was clamped, and what either
  // half of the columns gives to d.
  float scale[kTileTokens], factor[kTileTokens], partial[2][kTileTokens];
  Bf16 rounded_scale[kTileTokens], e[2][kTileTokens];  // e in two parts
};

// Where row r of the matrix stands, that the sums of a lane be 8 neighbouring columns: of 32, those
// that an instruction numbers 8 p + 2 j + e are 8 j + 2 p + e.
__device__ __forceinline__ int place(int r) {
  return (r & ~31) | (r & 6) << 2 | (r & 24) >> 2 | (r & 1);
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// A factor in two parts, whose product with a number is rounded once.
struct Factor {
  __nv_bfloat162 high, low;

  __device__ __forceinline__ explicit Factor(float factor) {
    const Bf16 rounded = __float2bfloat16_rn(factor);
    high = __bfloat162bfloat162(rounded);
    low = __bfloat162bfloat162(__float2bfloat16_rn(factor - __bfloat162float(rounded)));
  }
  __device__ __forceinline__ std::uint32_t operator*(std::uint32_t x) const {
    return as_word(__hfma2(as_pair(x), high, __hmul2_rn(as_pair(x), low)));
  }
};

// Adds to the diagonal of sums the products of 8 numbers of a lane with 8 of the same lane, summed
// over the 4 lanes of a row; `more` numbers give the diagonal of the lower half.
__device__ __forceinline__ void add_dots(float (&sums)[4], const uint4& x, const uint4& more,
                                         const uint4& y) {
  multiply_add(sums, {x.x, more.x, x.y, more.y}, y.x, y.y);
  multiply_add(sums, {x.z, more.z, x.w, more.w}, y.z, y.w);
}
// Whether this lane has the element of the diagonal of its row lane / 4, and which it is.
__device__ __forceinline__ bool has_diagonal() { return threadIdx.x % 32 / 8 == threadIdx.x % 4; }
__device__ __forceinline__ float diagonal(float even, float odd) {
  return threadIdx.x / 4 % 2 ? odd : even;
}

#endif

__global__ void __launch_bounds__(kTileThreads, 2) hopper_recall_grad_kernel(FastRecallGrad args) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  constexpr int K = HopperRecallGradShared::K;
  extern __shared__ __align__(1024) std::byte memory[];
  auto& s = *reinterpret_cast<HopperRecallGradShared*>(memory);
  const FastReading& from = args.from;
  const int tokens = from.queries.tokens, state = blockIdx.x;
  const int warp = __shfl_sync(0xffffffff, static_cast<int>(threadIdx.x) / 32, 0);
  const int lane = threadIdx.x % 32, g = lane / 4, j = lane % 4;

  // In the first part of the walk a thread has row own_row of a tile, and chunks chunk(i) of it:
  // odd rows begin with the other half of 128 bytes, for the banks.
  const int own_row = warp * 8 + g, first_chunk = j + g % 2 * 4, first_piece = first_chunk ^ g;
  const auto chunk = [&](int i) { return (first_chunk ^ i % 2 * 4) + i / 2 * 8; };
  const auto own = [&](uint4(&tile)[2][kTileTokens][8], int i) -> uint4& {
    return tile[i / 2][own_row][first_piece ^ i % 2 * 4];
  };
  const auto begin = [&](const FastWalk& at) {
    const int token = min(at.token() + own_row, tokens - 1);
    const Bf16* q = TokenRows(from.queries, at.segment, at.head, 0).at(token);
    const Bf16* dy = TokenRows(args.dy, at.segment, at.head, 0).at(token);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      copy_async<16>(&own(s.q[at.turn], i), q + chunk(i) * 8, true);
      copy_async<16>(&own(s.dy[at.turn], i), dy + chunk(i) * 8, true);
    }
    copy_async_group();
    bring_near<K>(from.local, at);
  };
  FastWalk at(from);
  begin(at);
  if (threadIdx.x < K) {
    const float z = from.normalizer[state * K + threadIdx.x];
    const Bf16 rounded = __float2bfloat16_rn(z);
    s.z[threadIdx.x] = z;
    s.z_parts[0][threadIdx.x] = rounded;
    s.z_parts[1][threadIdx.x] = __float2bfloat16_rn(z - __bfloat162float(rounded));
  }
#pragma unroll 4
  for (int i = threadIdx.x; i < K * K / 8; i += kTileThreads) {
    const int row = place(i / 16), column = i % 16;
    float values[8];
    load_pack<8>(from.matrix + std::int64_t{state} * K * K + i * 8, values);
    s.matrix[column / 8][row][column % 8 ^ row % 8] = pack(values);
  }
  const bool bypassed = is_bypassed<K>(from);

  // Thereafter it has rows row(h) of the product of its warpgroup, columns 32 b + 8 j and on of the
  // half of that; and of dM rows 16 warp + g + 8 h.
  const int half = warp / 4;
  const auto row = [&](int h) { return warp % 4 * 16 + g + h * 8; };
  const auto mapped = [&](int h, int b) -> const uint4& {
    return s.q[at.turn][half][row(h)][(b * 4 + j) ^ g];
  };
  const auto left_factor = [&](int k, std::uint32_t(&a)[4]) {
    const int token = k * 16 + lane / 16 * 8 + lane % 8;
    load_matrices<true>(&s.q[at.turn][half][token][(warp % 4 * 2 + lane / 8 % 2) ^ lane % 8], a);
  };
  float dmatrix[K / 2] = {}, dz[4] = {}, dgate = 0;
  for (bool more = true; more; at.step()) {
    more = !at.ends();
    const float gate = gate_of(from, at.head, bypassed);
    const int own_token = at.token() + own_row;
    const bool valid = own_token < tokens;
    uint4 local[4];
    {
      const Bf16* rows = TokenRows(from.local, at.segment, at.head, 0).at(own_token);
#pragma unroll
      for (int i = 0; i < 4; ++i)
        local[i] = valid ? __ldg(reinterpret_cast<const uint4*>(rows + chunk(i) * 8)) : uint4{};
    }
    copy_async_wait<0>();
    {
      Bf16* dlocal = TokenRows(args.dlocal, at.segment, at.head, 0).at(own_token);
      const Factor kept(1.0f - gate);
      float mixed[4] = {};  // dy . local
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint4 dy = own(s.dy[at.turn], i);
        add_dots(mixed, dy, {}, local[i]);
        if (valid)
          *reinterpret_cast<uint4*>(dlocal + chunk(i) * 8) = {kept * dy.x, kept * dy.y, kept * dy.z,
                                                              kept * dy.w};
      }
      if (has_diagonal()) {
        const float dot = diagonal(mixed[0], mixed[1]);
        dgate -= gate * dot;
        if (args.row_dots && valid)
          args.row_dots[(at.segment * from.queries.count + at.head) * tokens + own_token] =
              (1.0f - gate) * dot;
      }
      float readings[4] = {};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        uint4& at_q = own(s.q[at.turn], i);
        const uint4 x = at_q;
        const uint4 q = {map_pair(x.x), map_pair(x.y), map_pair(x.z), map_pair(x.w)};
        at_q = q;
        add_dots(readings, *reinterpret_cast<const uint4*>(&s.z_parts[0][chunk(i) * 8]),
                 *reinterpret_cast<const uint4*>(&s.z_parts[1][chunk(i) * 8]), q);
      }
      if (has_diagonal()) {
        const float reading = diagonal(readings[0] + readings[2], readings[1] + readings[3]);
        const float inverse = reciprocal_approx(fmaxf(reading, from.eps));
        // Tokens past the end are repeated ones: with no weight they give nothing.
        const float scale = valid ? gate * inverse : 0;
        s.scale[own_row] = scale;
        s.rounded_scale[own_row] = __float2bfloat16_rn(scale);
        s.factor[own_row] = reading > from.eps ? -inverse : 0;
      }
    }
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");  // the products see the tile
    __syncthreads();  // it is there, and the one before is no longer read
    if (more) begin(at.next());

    // dM += (scale q)^T dy, the left factor in registers; then W = dy M^T, for which those are
    // free.
    {
      hopper::LeftFactor scaled[kTileTokens / 16];
#pragma unroll
      for (int k = 0; k < kTileTokens / 16; ++k) {
        left_factor(k, scaled[k]);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const auto scale = *reinterpret_cast<const __nv_bfloat162*>(
              &s.rounded_scale[k * 16 + i / 2 * 8 + j * 2]);
          scaled[k][i] = as_word(__hmul2_rn(as_pair(scaled[k][i]), scale));
        }
      }
      hopper::multiply_add(dmatrix, scaled, hopper::DownColumns<kTileTokens>(s.dy[at.turn]));
      hopper::wgmma_wait<0>();
      hopper::settle(dmatrix);
    }
    float w[K / 4];
    {
      const hopper::AlongRows<kTileTokens> left(s.dy[at.turn]);
      const hopper::AlongRows<K> right(s.matrix, half * 64);
      hopper::wgmma_fence();
      hopper::wgmma<false>(w, left.step(0), right.step(0));
#pragma unroll
      for (int k = 1; k < K / 16; ++k) hopper::wgmma<true>(w, left.step(k), right.step(k));
      hopper::wgmma_group();
      hopper::wgmma_wait<0>();
      hopper::settle(w);
    }

    // d = scale q . W.
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float dots[4] = {};
#pragma unroll
      for (int b = 0; b < 2; ++b) {
        const float* sums = w + 16 * b + 2 * h;
        const uint4 rounded = {
            pack_bf16(sums[0], sums[1]), pack_bf16(sums[4], sums[5]),
            pack_bf16(sums[8], sums[9]), pack_bf16(sums[12], sums[13])};
        add_dots(dots, rounded, {}, mapped(h, b));
      }
      if (has_diagonal()) {
        const float d = s.scale[row(h)] * diagonal(dots[0], dots[1]);
        s.partial[half][row(h)] = d;
        dgate += d;
      }
    }
    __syncthreads();

    // dq = (scale W + e z) sigma'(Q), by both of its factors rounded.
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float scale = s.scale[row(h)];
      const float e = s.factor[row(h)] * (s.partial[0][row(h)] + s.partial[1][row(h)]);
      if (half == 0 && j == 0) {
        const Bf16 rounded = __float2bfloat16_rn(e);
        s.e[0][row(h)] = rounded;
        s.e[1][row(h)] = __float2bfloat16_rn(e - __bfloat162float(rounded));
      }
      const int token = at.token() + row(h);
      Bf16* dq = TokenRows(args.dqueries, at.segment, at.head, half * 64 + j * 8).at(token);
#pragma unroll
      for (int b = 0; b < 2; ++b) {
        const float* sums = w + 16 * b + 2 * h;
        const uint4 q = mapped(h, b);
        const std::uint32_t words[4] = {q.x, q.y, q.z, q.w};
        const __nv_bfloat162 one = as_pair(0x3f803f80);
        float z[8];
        load_pack<8>(s.z + half * 64 + b * 32 + j * 8, z);
        std::uint32_t results[4];
#pragma unroll
        for (int p = 0; p < 4; ++p) {
          const std::uint32_t pair = pack_bf16(scale * sums[4 * p] + e * z[2 * p],
                                                       scale * sums[4 * p + 1] + e * z[2 * p + 1]);
          results[p] = as_word(__hmul2_rn(as_pair(pair), __hmin2_nan(as_pair(words[p]), one)));
        }
        if (token < tokens)
          *reinterpret_cast<uint4*>(dq + b * 32) = {results[0], results[1], results[2], results[3]};
      }
    }
    __syncthreads();  // e is there

    // dz += q^T e, column 0 the rounded e, column 1 what is left of it.
#pragma unroll
    for (int k = 0; k < kTileTokens / 16; ++k) {
      std::uint32_t a[4], b[2];
      left_factor(k, a);
#pragma unroll
      for (int i = 0; i < 2; ++i)
        b[i] = g < 2 ? *reinterpret_cast<const std::uint32_t*>(&s.e[g][k * 16 + i * 8 + j * 2]) : 0;
      multiply_add(dz, a, b[0], b[1]);
    }
    if (at.ends_head()) {
      const float sum = block_sum<kTileThreads>(dgate);
      const std::int64_t part = std::int64_t{at.segment} * gridDim.y + blockIdx.y;
      if (threadIdx.x == 0)
        args.gate_parts[part * from.queries.count + at.head] = (1.0f - gate) * sum;
      dgate = 0;
    }
  }
  if (args.dgate && comes_last(0, gridDim.x * gridDim.y))
    sum_gates(args, gridDim.x / from.kv_heads * gridDim.y);
  if (!args.dmatrix && !args.dnormalizer) return;
  if (!add_up_runs(args.parts, dmatrix, dz)) return;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int r = warp * 16 + g + h * 8;
    if (args.dmatrix) {
      float* to = args.dmatrix + (std::int64_t{state} * K + r) * K + j * 2;
#pragma unroll
      for (int n = 0; n < K / 8; ++n) {
        auto* pair = reinterpret_cast<float2*>(to + n * 8);
        const float2 stood = args.add_matrix ? *pair : float2{0, 0};
        *pair = {stood.x + dmatrix[4 * n + 2 * h], stood.y + dmatrix[4 * n + 2 * h + 1]};
      }
    }
    if (args.dnormalizer && j == 0)
      put(args.dnormalizer + state * K + r, dz[2 * h] + dz[2 * h + 1], args.add_normalizer);
  }
#endif
}

// Whether the kernel above can run, and is what was asked for.
inline bool takes_hopper(const RecallKernels::RecallGrad& args) {
  static const bool there = [] {
    cudaFuncAttributes attributes{};
    cuda_check(cudaFuncGetAttributes(&attributes, hopper_recall_grad_kernel), "memory_recall_grad");
    return attributes.ptxVersion == 90;  // devices other than of capability 9.0 are given less
  }();
  return there && args.layout.head_width == 128 && args.dqkv && !args.dqkv.accumulate &&
         args.dlocal && !args.dlocal.accumulate;
}

}  // namespace infini
