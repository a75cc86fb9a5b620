// Attention of one token: what a block finds for its keys and rows of the memory, and what the team
// makes of that.
#pragma once

#include "tensor/ops/decode_heads.cuh"

namespace infini {

// Scores of the keys of two octets, of which there are `count` from `key` on, for every head.
template <class M>
__device__ __forceinline__ void score_octets(const AttentionDesk<M>& desk, int key, int count,
                                             const std::byte* rows) {
  using N = typename M::N;
  const int width = desk.width, lane = desk.lane;
  if constexpr (sizeof(N) == 2) {
    const int column = lane / 8 * 16;
    const std::byte* const first = rows + desk.present(lane % 8, count) * desk.stride + column;
    const std::byte* const second =
        rows + desk.present(lane % 8 + kApart, count) * desk.stride + column;
    const std::byte* const query =
        reinterpret_cast<const std::byte*>(desk.query(min(lane % 8, desk.group - 1))) + column;
    float sums[4][4] = {};
#pragma unroll 4
    for (int chunk = 0; chunk < width / 32; ++chunk) {
      std::uint32_t q[4], k[2][4];
      load_matrices<false>(query + chunk * 64, q);
      load_matrices<false>(first + chunk * 64, k[0]);
      load_matrices<false>(second + chunk * 64, k[1]);
      const std::uint32_t low[4] = {q[0], 0, q[1], 0}, high[4] = {q[2], 0, q[3], 0};
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        multiply_add(sums[2 * i], low, k[i][0], k[i][1]);
        multiply_add(sums[2 * i + 1], high, k[i][2], k[i][3]);
      }
    }
    const int head = lane / 4;
    if (head >= desk.group) return;
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (const int at = lane % 4 * 2 + i % 2 + i / 2 * kApart; at < count)
        desk.row_of_scores(head)[key + at] = sums[i / 2 * 2][i % 2] + sums[i / 2 * 2 + 1][i % 2];
  } else {
    for (int i = 0; i < 16; ++i) {
      const int at = i % 8 + i / 8 * kApart;
      if (at >= count) return;
      const auto* const row = reinterpret_cast<const float*>(rows + at * desk.stride);
      for (int head = 0; head < desk.group; ++head) {
        float sum = 0;
        for (int c = lane; c < width; c += 32) sum += row[c] * float(desk.query(head)[c]);
        sum = warp_sum(sum);
        if (lane == 0) desk.row_of_scores(head)[key + at] = sum;
      }
    }
  }
}

// Turns the scores of this warp's keys into weights relative to the highest of them.
template <class M>
__device__ __forceinline__ void weigh(const AttentionDesk<M>& desk) {
  using N = typename M::N;
  const int keys = desk.share.keys.size(), width = desk.width;
#pragma unroll 1
  for (int head = 0; head < desk.group; ++head) {
    float* const scores = desk.row_of_scores(head);
    float own = -INFINITY;
    if (desk.has_token()) {
      float sum = 0;
      for (int c = desk.lane; c < width; c += 32)
        sum += float(desk.query(head)[c]) * float(desk.key()[c]);
      own = warp_sum(sum);
    }
    const int first = desk.key_of_warp(desk.lane);  // most have no other
    const float score = first < keys ? scores[first] : -INFINITY;
    float best = fmaxf(own, score), total = 0;
#pragma unroll 1
    for (int i = desk.lane + 32; desk.key_of_warp(i) < keys; i += 32)
      best = fmaxf(best, scores[desk.key_of_warp(i)]);
    best = warp_max(best);
    const auto weight = [&](float of) { return exp_of<N>(desk.args.scale * (of - best)); };
    if (first < keys) total = scores[first] = weight(score);
#pragma unroll 1
    for (int i = desk.lane + 32; desk.key_of_warp(i) < keys; i += 32) {
      float& other = scores[desk.key_of_warp(i)];
      total += other = weight(other);
    }
    if (desk.lane == 0 && desk.has_token()) total += scores[keys] = weight(own);
    total = warp_sum(total);
    if (desk.lane == 0) desk.highest(desk.warp)[head] = best, desk.total(desk.warp)[head] = total;
  }
  __syncwarp();
}

// The sum of values by weights over this warp's keys. Lanes share a key, a pack of columns each;
// several keys are read at a time.
template <class M>
__device__ __forceinline__ void add_values(const AttentionDesk<M>& desk, Consumer& ring) {
  using N = typename M::N;
  constexpr int n = kPackSize<N>;
  const int width = desk.width, packs = width / n, keys = desk.share.keys.size();
  int lanes = 32;  // of a key
  while (lanes / 2 >= packs) lanes /= 2;
  const int at_once = 32 / lanes, own = desk.lane / lanes, pack = desk.lane % lanes;
  float sums[M::kGroup][n] = {};
  const auto add = [&](int key, const N* row) {
    float values[n];
    load_pack<n>(row + pack * n, values);
#pragma unroll
    for (int head = 0; head < M::kGroup; ++head)
      if (head < desk.group) {
        const float weight = desk.row_of_scores(head)[key];
#pragma unroll
        for (int e = 0; e < n; ++e) sums[head][e] += weight * values[e];
      }
  };
  desk.each_octets(ring, [&](int key, int count, const std::byte* rows) {
    if (pack >= packs) return;
#pragma unroll 2
    for (int i = own; i < 16; i += at_once)
      if (const int at = i % 8 + i / 8 * kApart; at < count)
        add(key + at, reinterpret_cast<const N*>(rows + at * desk.stride));
  });
  if (desk.has_token() && own == 0 && pack < packs) add(keys, desk.value());
#pragma unroll
  for (int head = 0; head < M::kGroup; ++head)
    if (head < desk.group) {
#pragma unroll 1
      for (int distance = lanes; distance < 32; distance *= 2)
#pragma unroll
        for (int e = 0; e < n; ++e)
          sums[head][e] += __shfl_xor_sync(kAllLanes, sums[head][e], distance);
      if (own == 0 && pack < packs)
        store_pack<n>(desk.local + (desk.warp * desk.group + head) * width + pack * n, sums[head]);
    }
}

// The same by tensor cores, for heads of known width: the weights are the left factor, with a row
// for each head, and two octets of keys are summed over at a time.
template <class M>
__device__ __forceinline__ void multiply_values(const AttentionDesk<M>& desk, Consumer& ring) {
  constexpr int kWidth = M::kHeadWidth;
  const int lane = desk.lane, head = lane / 4, column = lane % 4 * 2;
  const float* const weights = desk.row_of_scores(min(head, desk.group - 1));
  float sums[kWidth / 8][4] = {};
  const auto add = [&](int key, int count, const std::byte* rows) {
    const auto weight = [&](int at) {
      return head < desk.group && at < count ? weights[key + at] : 0.0f;
    };
    const auto pair = [&](int at) { return pack_bf16(weight(at), weight(at + 1)); };
    const std::uint32_t left[4] = {pair(column), 0, pair(column + kApart), 0};
    const std::byte* const row =
        rows + desk.present(lane % 8 + lane / 8 % 2 * kApart, count) * desk.stride + lane / 16 * 16;
#pragma unroll
    for (int part = 0; part < kWidth / 16; ++part) {
      std::uint32_t values[4];
      load_matrices<true>(row + part * 32, values);
      multiply_add(sums[2 * part], left, values[0], values[1]);
      multiply_add(sums[2 * part + 1], left, values[2], values[3]);
    }
  };
  desk.each_octets(ring, add);
  if (desk.has_token())
    add(desk.share.keys.size(), 1, reinterpret_cast<const std::byte*>(desk.value()));
  if (head >= desk.group) return;
  float* const to = desk.local + (desk.warp * desk.group + head) * kWidth + column;
#pragma unroll
  for (int part = 0; part < kWidth / 8; ++part)
    *reinterpret_cast<float2*>(to + 8 * part) = make_float2(sums[part][0], sums[part][1]);
}

template <class N>
__device__ __forceinline__ float mapped(float q) {
  return q > 0 ? q + 1 : exp_of<N>(q);
}

// sigma(q) M over this warp's rows, every 8th of the block's, and sigma(q) z by the warp of a head.
template <class M>
__device__ __forceinline__ void add_memory(const AttentionDesk<M>& desk, Consumer& ring) {
  const int width = desk.width, rows = desk.share.rows.size();
  const auto sigma = [&](int head, int row) {
    return mapped<typename M::N>(float(desk.raw_query(head)[desk.share.rows.begin + row]));
  };
  float sums[M::kGroup][2][4] = {};
  const std::byte* const tile = ring.acquire(rows * (width + 1) * static_cast<int>(sizeof(float)));
  const auto* const matrix = reinterpret_cast<const float*>(tile);
#pragma unroll 1
  for (int row = desk.warp; row < rows; row += kConsumerWarps)
#pragma unroll
    for (int part = 0; part < 2; ++part)
      if (const int c = 4 * (desk.lane + 32 * part); c < width) {
        float values[4];
        load_pack<4>(matrix + row * width + c, values);
#pragma unroll
        for (int head = 0; head < M::kGroup; ++head)
          if (head < desk.group) {
            const float factor = sigma(head, row);
#pragma unroll
            for (int e = 0; e < 4; ++e) sums[head][part][e] += factor * values[e];
          }
      }
  // The last warp has the token as well, the first ones have keys when there are few.
  if (const int head = (desk.warp + 2) % kConsumerWarps; head < desk.group) {
    const float* const normalizer = matrix + rows * width;
    float denominator = 0, written = 0;
    for (int row = desk.lane; row < rows; row += 32) {
      denominator += sigma(head, row) * normalizer[row];
      if (normalizer[row] != 0) written = 1;
    }
    denominator = warp_sum(denominator);
    written = __any_sync(kAllLanes, written != 0) ? 1 : 0;
    if (desk.lane == 0)
      desk.denominators()[head] = denominator, desk.denominators()[kMostGroup + head] = written;
  }
  ring.release();
#pragma unroll
  for (int head = 0; head < M::kGroup; ++head)
    if (head < desk.group)
#pragma unroll
      for (int part = 0; part < 2; ++part)
        if (const int c = 4 * (desk.lane + 32 * part); c < width)
          store_pack<4>(desk.recalled + (desk.warp * desk.group + head) * width + c,
                        sums[head][part]);
}

// Over eight neighbouring lanes, in each of them.
template <class Join>
__device__ __forceinline__ float join_octet(float value, Join join) {
#pragma unroll
  for (int distance = 1; distance < 8; distance *= 2)
    value = join(value, __shfl_xor_sync(kAllLanes, value, distance));
  return value;
}
__device__ __forceinline__ float octet_sum(float value) {
  return join_octet(value, [](float a, float b) { return a + b; });
}
__device__ __forceinline__ float octet_max(float value) {
  return join_octet(value, [](float a, float b) { return fmaxf(a, b); });
}
static_assert(kConsumerWarps == 8 && kTeam == 8);

// What weights relative to `own` are multiplied by to be relative to `best`.
template <class M>
__device__ __forceinline__ float relative(const DecodeArgs<M>& args, float own, float best) {
  return own == -INFINITY ? 0 : exp_of<typename M::N>(args.scale * (own - best));
}

// The sums of all warps, in a fixed order, to the team: a warp has 32 columns at a time, of which a
// lane looks after one, and after the numbers of one of eight warps.
template <class M>
__device__ __forceinline__ void send_records(const AttentionDesk<M>& desk, const Mailbox& mailbox,
                                             bool recalls) {
  const int group = desk.group, width = desk.width, numbers = record_numbers(width);
  auto* const letter = reinterpret_cast<float*>(desk.letter);
#pragma unroll 1
  for (int first = desk.warp * 32; first < 2 * group * width; first += kConsumers) {
    const int head = first / (2 * width), begin = first % (2 * width);
    float* const record = desk.records + (desk.place.rank * group + head) * numbers;
    const bool is_local = begin < width;
    const float own = desk.highest(desk.lane % 8)[head], best = octet_max(own);
    const float factor = relative(desk.args, own, best);
    const float total = octet_sum(factor * desk.total(desk.lane % 8)[head]);
    float sum = 0;
    if (is_local || recalls) {
      const float weight = is_local ? factor : 1;
      const float* const from = (is_local ? desk.local + begin : desk.recalled + (begin - width)) +
                                head * width + desk.lane;
#pragma unroll
      for (int warp = 0; warp < kConsumerWarps; ++warp)
        sum += __shfl_sync(kAllLanes, weight, warp) * from[warp * group * width];
    }
    letter[desk.lane] = sum;
    const bool is_last = begin == width;
    if (is_last && desk.lane == 0) {
      const float* const sums = desk.denominators() + head;
      const float extra[kRecordExtra] = {best, total, recalls ? sums[0] : 0,
                                         recalls ? sums[kMostGroup] : 0};
      store_pack<kRecordExtra>(letter + 32, extra);
    }
    // The extra numbers follow all columns.
    mailbox.send_all(letter, is_last ? 9 : 8, [&](int i) {
      return reinterpret_cast<std::byte*>(i < 8 ? record + begin + 4 * i : record + 2 * width);
    });
  }
}

// g A_mem + (1 - g) A_dot, in every block. A lane looks after a column, and after the numbers of
// one of eight blocks.
template <class M>
__device__ __forceinline__ void merge_records(const AttentionDesk<M>& desk) {
  using N = typename M::N;
  const DecodeArgs<M>& args = desk.args;
  const int group = desk.group, width = desk.width, apart = group * record_numbers(width);
#pragma unroll 1
  for (int first = desk.warp * 32; first < group * width; first += kConsumers) {
    const int head = first / width, c = first % width + desk.lane;
    const float* const records = desk.records + head * record_numbers(width);
    float extra[kRecordExtra];
    load_pack<kRecordExtra>(records + desk.lane % 8 * apart + 2 * width, extra);
    const float factor = relative(args, extra[0], octet_max(extra[0]));
    const float total = octet_sum(factor * extra[1]), denominator = octet_sum(extra[2]);
    const float written = octet_max(extra[3]);
    float y = 0, memory = 0;
#pragma unroll
    for (int block = 0; block < kTeam; ++block) {
      y += __shfl_sync(kAllLanes, factor, block) * records[block * apart + c];
      memory += records[block * apart + width + c];
    }
    y = rounded<N>(y / total);
    if (args.recalls) {
      const float gate = args.bypass_empty && written == 0 ? 0 : desk.gates()[head];
      y = gate * (memory / fmaxf(denominator, args.recall_eps)) + (1 - gate) * y;
    }
    reinterpret_cast<N*>(desk.mixed)[head * width + c] = N(y);
  }
  sync_consumers();
}

template <class M>
__device__ __forceinline__ void attend(const AttentionDesk<M>& desk,
                                       const LayerPointers<typename M::N>& layer, int kv_head,
                                       Consumer& ring, const Mailbox& heads, const Mailbox& records,
                                       int turn) {
  using N = typename M::N;
  const bool recalls = layer.matrix != nullptr;
  const bool has_gate = desk.args.recalls && desk.tid < desk.group;
  int gate = 0;
  if (has_gate)
    gate = load_relaxed(reinterpret_cast<const int*>(layer.gate + kv_head * desk.group + desk.tid));
  heads.wait(turn, desk.patience);
  desk.each_octets(ring, [&](int key, int count, const std::byte* rows) {
    score_octets(desk, key, count, rows);
  });
  __syncwarp();
  weigh(desk);
  if constexpr (sizeof(typename M::N) == 2 && M::kHeadWidth > 0)
    multiply_values(desk, ring);
  else
    add_values(desk, ring);
  if (recalls) add_memory(desk, ring);
  if (has_gate) desk.gates()[desk.tid] = sigmoid_of<N>(__int_as_float(gate));
  sync_consumers();
  send_records(desk, records, recalls);
  records.wait(turn, desk.patience);
  merge_records(desk);
}

}  // namespace infini
