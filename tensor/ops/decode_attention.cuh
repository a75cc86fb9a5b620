// Attention of one token. A block hands what it found for its keys and rows of the memory to the
// others of the same key/value head; each of them then merges a few columns.
#pragma once

#include "tensor/ops/decode_heads.cuh"

namespace infini {

// What a block found for a query head, in words: the weighted sum of values [K], sigma(q) M [K],
// then the highest score, the sum of weights, sigma(q) z, and 1 where z is not all zeros.
constexpr int kRecordExtra = 4;

// Scores of the keys of an octet, for every head.
template <class N>
__device__ __forceinline__ void score_octet(const AttentionDesk<N>& desk, int key,
                                            const std::byte* rows) {
  const int width = desk.width, lane = desk.lane;
  if constexpr (sizeof(N) == 2) {
    const int head = lane / 4;
    const bool holds = head < desk.group;
    const uint4* const x =
        holds ? reinterpret_cast<const uint4*>(desk.queries + head * width * 2) + lane % 4
              : desk.zero;
    const int step = holds ? 4 : 0;
    const std::byte* const row = rows + lane % 8 * key_stride<N>(width) + lane / 8 * 16;
    float first[4] = {}, second[4] = {};
    for (int chunk = 0; chunk < width / 32; ++chunk)
      multiply_chunk(row + chunk * 64, x[chunk * step], first, second);
    if (!holds) return;
#pragma unroll
    for (int i = 0; i < 2; ++i)
      if (const int at = key + lane % 4 * 2 + i; at < desk.share.keys.size())
        desk.row_of_scores(head)[at] = first[i] + second[i];
  } else {
    for (int i = 0; i < min(kOctet, desk.share.keys.size() - key); ++i) {
      const auto* const row = reinterpret_cast<const float*>(rows + i * key_stride<N>(width));
      for (int head = 0; head < desk.group; ++head) {
        float sum = 0;
        for (int c = lane; c < width; c += 32) sum += row[c] * desk.turned[head * width + c];
        sum = warp_sum(sum);
        if (lane == 0) desk.row_of_scores(head)[key + i] = sum;
      }
    }
  }
}

// Turns the scores of this warp's keys into weights relative to the highest of them.
template <class N>
__device__ void weigh(const AttentionDesk<N>& desk) {
  const int keys = desk.share.keys.size(), width = desk.width;
  for (int head = 0; head < desk.group; ++head) {
    float* const scores = desk.row_of_scores(head);
    float own = -INFINITY;
    if (desk.has_token()) {
      float sum = 0;
      for (int c = desk.lane; c < width; c += 32)
        sum += desk.turned[head * width + c] * desk.turned[desk.group * width + c];
      own = warp_sum(sum);
    }
    float best = own;
    for (int i = desk.lane; desk.key_of_warp(i) < keys; i += 32)
      best = fmaxf(best, scores[desk.key_of_warp(i)]);
    best = warp_max(best);
    float total = 0;
    for (int i = desk.lane; desk.key_of_warp(i) < keys; i += 32) {
      float& score = scores[desk.key_of_warp(i)];
      score = expf(desk.args.scale * (score - best));
      total += score;
    }
    if (desk.lane == 0 && desk.has_token()) {
      scores[keys] = expf(desk.args.scale * (own - best));
      total += scores[keys];
    }
    total = warp_sum(total);
    if (desk.lane == 0) desk.highest(desk.warp)[head] = best, desk.total(desk.warp)[head] = total;
  }
  __syncwarp();
}

// The sum of values by weights over this warp's keys. Lanes share a key, a pack of columns each;
// `teams` keys are read at a time.
template <class N>
__device__ void add_values(const AttentionDesk<N>& desk, Ring& ring) {
  constexpr int n = kPackSize<N>;
  const int width = desk.width, packs = width / n, keys = desk.share.keys.size();
  int team_lanes = 32;
  while (team_lanes / 2 >= packs) team_lanes /= 2;
  const int teams = 32 / team_lanes, team = desk.lane / team_lanes, pack = desk.lane % team_lanes;
  float sums[kMostGroup][n] = {};
  const auto add = [&](int key, const float(&values)[n]) {
#pragma unroll
    for (int head = 0; head < kMostGroup; ++head)
      if (head < desk.group) {
        const float weight = desk.row_of_scores(head)[key];
#pragma unroll
        for (int e = 0; e < n; ++e) sums[head][e] += weight * values[e];
      }
  };
  float values[n];
  desk.each_stage(ring, [&](int first, const std::byte* stage) {
    desk.each_octet(first, stage, [&](int key, const std::byte* rows) {
      if (pack >= packs) return;
#pragma unroll 2
      for (int i = team; i < min(kOctet, keys - key); i += teams) {
        load_pack<n>(reinterpret_cast<const N*>(rows + i * key_stride<N>(width)) + pack * n,
                     values);
        add(key + i, values);
      }
    });
  });
  if (desk.has_token() && team == 0 && pack < packs) {
    load_pack<n>(desk.raw + (desk.group + 1) * width + pack * n, values);
    add(keys, values);
  }
#pragma unroll
  for (int head = 0; head < kMostGroup; ++head)
    if (head < desk.group) {
#pragma unroll 1
      for (int distance = team_lanes; distance < 32; distance *= 2)
#pragma unroll
        for (int e = 0; e < n; ++e)
          sums[head][e] += __shfl_xor_sync(0xffffffff, sums[head][e], distance);
      if (team == 0 && pack < packs)
        store_pack<n>(desk.local + (desk.warp * desk.group + head) * width + pack * n, sums[head]);
    }
}

// sigma(q) M over this warp's rows, every 8th of the block's, and sigma(q) z by the warp of a head.
template <class N>
__device__ void add_memory(const AttentionDesk<N>& desk, Ring& ring) {
  const int width = desk.width, rows = desk.share.rows.size(), at_once = rows_of_stage(width);
  const int slice = desk.args.shared.slice;
  float sums[kMostGroup][2][4] = {};
  for (int first = 0; first < rows; first += at_once) {
    const auto* const stage = reinterpret_cast<const float*>(ring.acquire());
#pragma unroll 1
    for (int row = first + desk.warp; row < min(rows, first + at_once); row += kConsumerWarps)
#pragma unroll
      for (int part = 0; part < 2; ++part)
        if (const int c = 4 * (desk.lane + 32 * part); c < width) {
          float values[4];
          load_pack<4>(stage + (row - first) * width + c, values);
#pragma unroll
          for (int head = 0; head < kMostGroup; ++head)
            if (head < desk.group)
#pragma unroll
              for (int e = 0; e < 4; ++e)
                sums[head][part][e] += desk.mapped[head * slice + row] * values[e];
        }
    ring.release();
  }
#pragma unroll
  for (int head = 0; head < kMostGroup; ++head)
    if (head < desk.group)
#pragma unroll
      for (int part = 0; part < 2; ++part)
        if (const int c = 4 * (desk.lane + 32 * part); c < width)
          store_pack<4>(desk.recalled + (desk.warp * desk.group + head) * width + c,
                        sums[head][part]);
  if (desk.warp >= desk.group) return;
  float denominator = 0, written = 0;
  for (int row = desk.lane; row < rows; row += 32) {
    denominator += desk.mapped[desk.warp * slice + row] * desk.normalizer[row];
    if (desk.normalizer[row] != 0) written = 1;
  }
  denominator = warp_sum(denominator);
  written = warp_max(written);
  if (desk.lane == 0)
    desk.denominators()[desk.warp] = denominator,
    desk.denominators()[kMostGroup + desk.warp] = written;
}

// A column of the sums of all warps, in a fixed order, to the blocks of the same head.
template <class N>
__device__ void publish_records(const AttentionDesk<N>& desk, bool recalls,
                                std::uint32_t* records) {
  const int group = desk.group, width = desk.width, words = desk.args.words.record_words;
#pragma unroll 1
  for (int item = desk.tid; item < group * width; item += kConsumers) {
    const int head = item / width, c = item % width;
    float best = -INFINITY, total = 0, local = 0, recalled = 0;
#pragma unroll
    for (int warp = 0; warp < kConsumerWarps; ++warp) best = fmaxf(best, desk.highest(warp)[head]);
#pragma unroll
    for (int warp = 0; warp < kConsumerWarps; ++warp) {
      const float own = desk.highest(warp)[head];
      const float factor = own == -INFINITY ? 0 : expf(desk.args.scale * (own - best));
      const int at = (warp * group + head) * width + c;
      local += factor * desk.local[at];
      total += factor * desk.total(warp)[head];
      if (recalls) recalled += desk.recalled[at];
    }
    std::uint32_t* const record =
        records +
        ((desk.share.kv_head * desk.args.splits + desk.share.split) * group + head) * words;
    publish(record + c, local);
    if (recalls) publish(record + width + c, recalled);
    if (c < kRecordExtra) {
      const float* const sums = desk.denominators() + head;
      const float extra[kRecordExtra] = {best, total, recalls ? sums[0] : 0,
                                         recalls ? sums[kMostGroup] : 0};
      publish(record + 2 * width + c, c == 0   ? extra[0]
                                      : c == 1 ? extra[1]
                                      : c == 2 ? extra[2]
                                               : extra[3]);
    }
  }
}

// g A_mem + (1 - g) A_dot in this block's columns. A warp takes a pair of columns, a lane the
// record of a block.
template <class N>
__device__ void merge_records(const AttentionDesk<N>& desk, const LayerPointers<N>& layer,
                              const std::uint32_t* records, std::uint32_t* mixed) {
  const DecodeArgs<N>& args = desk.args;
  const HeadShare& share = desk.share;
  const int group = desk.group, width = desk.width, pairs = share.pairs.size();
  const bool active = desk.lane < args.splits;
#pragma unroll 1
  for (int item = desk.warp; item < group * pairs; item += kConsumerWarps) {
    const int head = item / pairs, column = 2 * (share.pairs.begin + item % pairs);
    const std::uint32_t* const record =
        records + ((share.kv_head * args.splits + (active ? desk.lane : 0)) * group + head) *
                      args.words.record_words;
    const auto* const extra_at = reinterpret_cast<const uint4*>(record + 2 * width);
    const auto* const local_at = reinterpret_cast<const uint2*>(record + column);
    const auto* const recalled_at = reinterpret_cast<const uint2*>(record + width + column);
    uint4 extra = load_relaxed(extra_at);
    uint2 local = load_relaxed(local_at), recalled = {};
    if (layer.matrix) recalled = load_relaxed(recalled_at);
    const int query_head = share.kv_head * group + head;
    const float opening = args.recalls ? layer.gate[query_head] : 0;
    extra = await(extra_at, extra, desk.patience);
    local = await(local_at, local, desk.patience);
    if (layer.matrix) recalled = await(recalled_at, recalled, desk.patience);

    const float own = active ? __uint_as_float(extra.x) : -INFINITY;
    const float best = warp_max(own);
    const float factor = own == -INFINITY ? 0 : expf(args.scale * (own - best));
    const float total = warp_sum(factor * (active ? __uint_as_float(extra.y) : 0));
    const float counts = active ? 1 : 0;
    const float denominator = warp_sum(counts * __uint_as_float(extra.z));
    const bool written = warp_max(counts * __uint_as_float(extra.w)) != 0;
    float y[2] = {factor * __uint_as_float(local.x), factor * __uint_as_float(local.y)};
    float memory[2] = {counts * __uint_as_float(recalled.x), counts * __uint_as_float(recalled.y)};
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      y[e] = rounded<N>(warp_sum(y[e]) / total);
      memory[e] = warp_sum(memory[e]) / fmaxf(denominator, args.recall_eps);
    }
    if (args.recalls) {
      const float gate = args.bypass_empty && !written ? 0 : 1 / (1 + expf(-opening));
#pragma unroll
      for (int e = 0; e < 2; ++e) y[e] = gate * memory[e] + (1 - gate) * y[e];
    }
    if (desk.lane == 0) publish_pair<N>(mixed, query_head * width + column, y[0], y[1]);
  }
}

template <class N>
__device__ void attend(const AttentionDesk<N>& desk, const LayerPointers<N>& layer, Ring& ring,
                       std::uint32_t* words) {
  if (!desk.share.any) return;
  const bool recalls = layer.matrix != nullptr;
  stage_heads(desk, layer, words);
  desk.each_stage(ring, [&](int first, const std::byte* stage) {
    desk.each_octet(first, stage,
                    [&](int key, const std::byte* rows) { score_octet(desk, key, rows); });
  });
  __syncwarp();
  weigh(desk);
  add_values(desk, ring);
  if (recalls) add_memory(desk, ring);
  sync_consumers();
  publish_records(desk, recalls, words + desk.args.words.records);
  merge_records(desk, layer, words + desk.args.words.records, words + desk.args.words.mixed);
}

}  // namespace infini
