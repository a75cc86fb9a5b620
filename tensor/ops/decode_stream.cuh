// The residual stream. Every team has a part of each of its numbers: blocks of the same rank add up
// the parts of some rows, all teams the same ones, and hand them to their team.
#pragma once

#include "tensor/ops/decode_product.cuh"

namespace infini {

// Where teams leave their parts of a unit: [teams, kUnit].
template <class M>
__device__ __forceinline__ std::uint32_t* parts_of(const DecodeArgs<M>& args, int layer, Part part,
                                                   int unit) {
  const int meeting = 2 * layer + (part == Part::kOutput || part == Part::kMiddle ? 0 : 1);
  return args.exchange + (meeting * args.units() + unit) * args.teams * kUnit;
}

// What goes into a letter: 16 numbers of N, then the sum of squares.
template <class N>
__device__ __forceinline__ void write_numbers(std::byte* unit, int quarter,
                                              const float (&values)[4]) {
  store_pack<4>(reinterpret_cast<N*>(unit) + 4 * quarter, values);
}
template <class N>
__device__ __forceinline__ float* square_of(std::byte* unit) {
  return reinterpret_cast<float*>(unit + kUnit * sizeof(N));
}

// The first stream is a row of the embedding, which every block reads for itself.
template <class M>
__device__ __forceinline__ void embed(const Desk<M>& desk, const typename M::N* row,
                                      const float* weight) {
  using N = typename M::N;
#pragma unroll 1
  for (int begin = 0; begin < desk.args.width(); begin += 4 * kConsumers) {
    const int at = begin + 4 * desk.tid;
    const bool valid = at < desk.args.width();
    float values[4] = {}, weights[4] = {}, square = 0;
    if (valid) {
      load_pack<4>(row + at, values);
      load_pack<4>(weight + at, weights);
    }
    const int unit = at / kUnit - desk.place.units.begin;
    if (valid && unit >= 0 && unit < desk.place.units.size())
      store_pack<4>(desk.stream + unit * kUnit + at % kUnit, values);
#pragma unroll
    for (int e = 0; e < 4; ++e) square += values[e] * values[e], values[e] *= weights[e];
    square += __shfl_xor_sync(kAllLanes, square, 1);
    square += __shfl_xor_sync(kAllLanes, square, 2);
    if (!valid) continue;
    std::byte* const to = desk.sum + at / kUnit * kNormUnitBytes<N>;
    write_numbers<N>(to, at % kUnit / 4, values);
    if (at % kUnit == 0) *square_of<N>(to) = square;
  }
  meet_norm();
}

template <class M>
__device__ __forceinline__ void send_nothing(const Desk<M>& desk, const Mailbox& mailbox) {
  if (desk.warp == 0) mailbox.send_all(desk.nothing, desk.letter, kNothingBytes);
}

// Adds what `teams` teams found to the block's units of the stream and hands these, times the
// weights of the next norm, to the team. A warp has a unit, a lane four rows of every 8th team.
template <class M>
__device__ __forceinline__ void gather(const Desk<M>& desk, const Mailbox& mailbox,
                                       std::byte* units, const std::uint32_t* parts, int teams,
                                       const float* weight) {
  using N = typename M::N;
  constexpr int kRounds = kMostTeams / 8;
  if (desk.place.units.size() == 0) send_nothing(desk, mailbox);
  const int quarter = desk.lane % 4, team = desk.lane / 4;
#pragma unroll 1
  for (int own = desk.warp; own < desk.place.units.size(); own += kConsumerWarps) {
    const int unit = desk.place.units.begin + own;
    const auto* const from =
        reinterpret_cast<const uint4*>(parts + unit * desk.args.teams * kUnit) + desk.lane;
    const int rounds = (teams - team + 7) / 8;  // of this lane
    uint4 words[kRounds];
#pragma unroll
    for (int i = 0; i < kRounds; ++i)
      words[i] = i < rounds ? load_relaxed(from + 32 * i) : uint4{0, 0, 0, 0};
    // This load is not to be put off until after the wait.
    const uint4 factors =
        load_relaxed(reinterpret_cast<const uint4*>(weight + unit * kUnit + 4 * quarter));
    float values[4] = {}, before[4];
    float* const stream = desk.stream + own * kUnit + 4 * quarter;
    load_pack<4>(stream, before);
    await(from, 32, rounds, words, desk.patience);
#pragma unroll
    for (int i = 0; i < kRounds; ++i) {
      values[0] += __uint_as_float(words[i].x), values[1] += __uint_as_float(words[i].y);
      values[2] += __uint_as_float(words[i].z), values[3] += __uint_as_float(words[i].w);
    }
    float square = 0;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
#pragma unroll
      for (int distance = 4; distance < 32; distance *= 2)
        values[e] += __shfl_xor_sync(kAllLanes, values[e], distance);
      values[e] = rounded<N>(before[e] + rounded<N>(values[e]));
      square += values[e] * values[e];
    }
    square += __shfl_xor_sync(kAllLanes, square, 1);
    square += __shfl_xor_sync(kAllLanes, square, 2);
    __syncwarp();
    if (team == 0) {
      store_pack<4>(stream, values);
      values[0] *= __uint_as_float(factors.x), values[1] *= __uint_as_float(factors.y);
      values[2] *= __uint_as_float(factors.z), values[3] *= __uint_as_float(factors.w);
      write_numbers<N>(desk.letter, quarter, values);
      if (quarter == 0) *square_of<N>(desk.letter) = square;
    }
    mailbox.send_all(units + unit * kNormUnitBytes<N>, desk.letter, kNormUnitBytes<N>);
  }
}

// 1 over the root of the mean square, in every lane of a warp.
template <class M>
__device__ __forceinline__ float inverse_rms(const Desk<M>& desk, std::byte* units) {
  using N = typename M::N;
  float sum = 0;
  for (int unit = desk.lane; unit < desk.args.units(); unit += 32)
    sum += *square_of<N>(units + unit * kNormUnitBytes<N>);
  return 1 / sqrtf(warp_sum(sum) / static_cast<float>(desk.args.width()) + desk.args.norm_eps);
}

// The last norm itself, by one team.
template <class M>
__device__ __forceinline__ void write_hidden(const Desk<M>& desk, float inverse) {
  using N = typename M::N;
  const DecodeArgs<M>& args = desk.args;
#pragma unroll 1
  for (int i = desk.tid; i < desk.place.units.size() * kUnit; i += kConsumers) {
    const int column = desk.place.units.begin * kUnit + i;
    args.hidden[column] = N(desk.stream[i] * inverse * args.final_norm[column]);
  }
}

}  // namespace infini
