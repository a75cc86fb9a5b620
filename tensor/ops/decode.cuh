// The kernel: a grid of as many teams as the device holds at a time, a block on each
// multiprocessor, walks through the layers together. A team works on its heads and on its part of
// the feed-forward network by itself; all teams meet twice in a layer, where they add up what each
// found for the residual stream. The weights come by themselves, see decode_ring.cuh.
#pragma once

#include "tensor/ops/decode_attention.cuh"

namespace infini {

// The order of everything that a block copies: that in which consume() asks for it.
template <class M>
__device__ __forceinline__ void produce(const DecodeArgs<M>& args, const Ring& ring_) {
  using N = typename M::N;
  const std::uint64_t policy = read_once();
  const Place place(args);
  Producer ring(ring_);
  int loaded = 0;  // the layer that `next` follows; it is read ahead
  LayerPointers<N> layer = args.layers[0], next = args.layers[min(1, args.layer_count - 1)];
  each_part(args, [&](int number, Part part, int kv_head) {
    if (part == Part::kMiddle || part == Part::kSum) return;
    if (number != loaded) {
      layer = next;
      next = args.layers[min(number + 1, args.layer_count - 1)];
      loaded = number;
    }
    stream_rows(ring, product_of(args, place, layer, part, kv_head), policy);
    if (part == Part::kHeads) stream_heads(args, layer, kv_head, ring, policy);
  });
  // Where someone has given up, copies may still be on their way to a block that nothing else
  // keeps.
  if (load_relaxed(args.status) != 0) __nanosleep(1'000'000);
}

template <class M>
__device__ __forceinline__ int token_of_step(const DecodeArgs<M>& args) {
  if (!args.from) return args.token;
  const std::uint32_t token = ~static_cast<std::uint32_t>(*args.from);
  return token < static_cast<std::uint32_t>(args.vocabulary) ? static_cast<int>(token) : 0;
}

// What the layers hold and the angles come to shared memory, small things that many blocks read to
// the L2 cache; the words of the next step are emptied.
template <class M>
__device__ __forceinline__ void prepare(const Desk<M>& desk) {
  using N = typename M::N;
  constexpr int kLine = 32;  // floats
  const DecodeArgs<M>& args = desk.args;
  const int pointers = args.layer_count * static_cast<int>(sizeof(LayerPointers<N>) / 8);
#pragma unroll 1
  for (int i = desk.tid; i < pointers; i += kConsumers)
    reinterpret_cast<std::uint64_t*>(desk.layers)[i] =
        reinterpret_cast<const std::uint64_t*>(args.layers)[i];
  for (int i = desk.tid; i < args.head_width(); i += kConsumers) desk.angles[i] = args.angles[i];
  if (desk.tid < kParts)
    desk.products[desk.tid] =
        product_of(args, desk.place, LayerPointers<N>{}, static_cast<Part>(desk.tid), 0);
  sync_consumers();
  const int stride = static_cast<int>(gridDim.x) * kConsumers;
  const int thread = static_cast<int>(blockIdx.x) * kConsumers + desk.tid;
  const int lines = (args.width() + kLine - 1) / kLine;
#pragma unroll 1
  for (int i = thread; i < args.layer_count * lines; i += stride) {
    const LayerPointers<N>& layer = desk.layers[i / lines];
    prefetch_line(layer.attention_norm + i % lines * kLine);
    prefetch_line(layer.feed_forward_norm + i % lines * kLine);
    if (i % lines * kLine < args.heads && layer.gate) prefetch_line(layer.gate + i % lines * kLine);
  }
#pragma unroll 1
  for (int i = thread; i < args.exchange_words / 4; i += stride)
    reinterpret_cast<uint4*>(args.next_exchange)[i] = {kEmpty, kEmpty, kEmpty, kEmpty};
}

template <class N>
__device__ __forceinline__ float activated(DecodeActivation activation, float u, float up) {
  if (activation == DecodeActivation::kRelu) return fmaxf(u, 0.0f);
  if (activation == DecodeActivation::kGelu)
    return u * sigmoid_of<N>(1.5957691216057308f * (u + 0.044715f * u * u * u));
  const float gate = rounded<N>(u);
  return gate * sigmoid_of<N>(gate) * rounded<N>(up);
}

// A number that is greater where the logit is, and among equal logits where the token is lower.
__device__ __forceinline__ std::uint64_t choice_for(float logit, int token) {
  const std::uint32_t bits = __float_as_uint(logit + 0.0f);  // 0 for -0
  const std::uint32_t order = logit != logit ? 0 : bits >> 31 ? ~bits : bits | 0x80000000u;
  return std::uint64_t{order} << 32 | static_cast<std::uint32_t>(~token);
}

// The barriers of a block: the ring's, then the mailboxes'.
enum Post { kHeadsPost, kRecordsPost, kMiddlePost, kInnerPost, kSumPost, kPosts };
constexpr int kBarriers = 2 * kTiles + kPosts;

// Where a team hears of the heads of the token, of what its blocks found for them, of the stream in
// a layer, of the inner numbers of the feed-forward network, of the stream between layers.
struct Mailboxes {
  Mailbox heads, records, middle, inner, sum;

  template <class M>
  __device__ Mailboxes(const DecodeArgs<M>& args, const Place& place, std::uint64_t* posts)
      : heads(posts + kHeadsPost,
              (2 * args.group() + 2) * args.head_width() * size<typename M::N>() +
                  nothing_bytes((args.group() + 2) * (args.head_width() / kUnit))),
        records(posts + kRecordsPost,
                kTeam * args.group() * record_numbers(args.head_width()) * size<float>()),
        middle(posts + kMiddlePost,
               args.units() * kNormUnitBytes<typename M::N> + nothing_bytes(args.units())),
        inner(posts + kInnerPost, place.inner.size() * size<typename M::N>()),
        sum(posts + kSumPost,
            args.units() * kNormUnitBytes<typename M::N> + nothing_bytes(args.units())) {}

  template <class T>
  static constexpr __device__ int size() {
    return static_cast<int>(sizeof(T));
  }
  __device__ void init(bool has_inner) const {
    heads.init(), records.init(), middle.init(), sum.init();
    if (has_inner) inner.init();
  }
};

// Inner numbers of a unit, lane % 16 has one, to the team.
template <class M>
__device__ __forceinline__ void finish_inner(const Desk<M>& desk, const Mailbox& mailbox,
                                             const Product<M>& product, int unit, float sum) {
  using N = typename M::N;
  const float up = __shfl_xor_sync(kAllLanes, sum, 8);
  const int size = static_cast<int>(sizeof(N));
  if (desk.lane < 16)
    reinterpret_cast<N*>(desk.letter)[desk.lane] = N(activated<N>(desk.args.activation, sum, up));
  const int count = product.partner ? 8 : product.rows(unit, 0) + product.rows(unit, 1);
  mailbox.send_all(desk.inner + (product.row(unit, 0) - desk.place.inner.begin) * size, desk.letter,
                   count * size);
}

template <class M>
__device__ __forceinline__ void consume(const DecodeArgs<M>& args, std::byte* shared,
                                        const Ring& ring_, const Patience& patience,
                                        const Mailboxes& mailboxes) {
  using N = typename M::N;
  const Desk<M> desk(args, shared, patience);
  const AttentionDesk<M> heads(desk, shared);
  Consumer ring(ring_);
  const Place& place = desk.place;
  prepare(desk);
  embed(desk, args.embedding + std::int64_t{token_of_step(args)} * args.width(),
        desk.layers[0].attention_norm);
  std::uint64_t best = 0;
  int turn = 0, attended = 0, norm = 0;
  each_part(args, [&](int number, Part part, int kv_head) {
    const bool last = part == Part::kVocabulary;
    const LayerPointers<N>& layer = desk.layers[last ? 0 : number];
    if (part == Part::kMiddle || part == Part::kSum) {
      const bool middle = part == Part::kMiddle;
      const Mailbox mailbox = middle ? mailboxes.middle : mailboxes.sum;
      gather(desk, mailbox, middle ? desk.middle : desk.sum, parts_of(args, number, part, 0),
             middle ? place.attending : place.feeding,
             middle                          ? layer.feed_forward_norm
             : number + 1 < args.layer_count ? desk.layers[number + 1].attention_norm
                                             : args.final_norm);
      mailbox.wait(number, patience);
      return;
    }
    Product<M> product = desk.products[static_cast<int>(part)];
    product.kv_head = kv_head;
    if (!shares_columns(part)) {
      const bool output = part == Part::kOutput;
      if (!output && product.columns > 0) mailboxes.inner.wait(number, patience);
      const std::byte* const x = output ? desk.mixed : desk.inner;
      multiply_rows(desk, ring, product, x, [&](int unit, float sum) {
        if (desk.lane % 4 >= 2) return;
        const int row = desk.lane / 4 + desk.lane % 4 * 8;
        if (output && args.kv_heads > args.teams) {
          float& before = desk.outputs[unit * kUnit + row];
          if (kv_head != place.team) sum += before;
          before = sum;
          if (kv_head + args.teams < args.kv_heads) return;
        }
        publish(parts_of(args, number, part, place.units.begin + unit) + place.team * kUnit + row,
                sum);
      });
      return;
    }
    if (part == Part::kHeads && product.units == 0) send_nothing(desk, mailboxes.heads);
    norm ^= 1;
    std::byte* const units = part == Part::kInner ? desk.middle : desk.sum;
    multiply_columns(desk, ring, product, {units, kNormUnitBytes<N>}, turn,
                     [&](int unit, float sum) {
                       sum *= desk.inverse[norm];
                       if (part == Part::kHeads)
                         finish_heads(heads, mailboxes.heads, layer, product, unit, sum);
                       if (part == Part::kInner)
                         finish_inner(desk, mailboxes.inner, product, unit, sum);
                       const int row = product.row(unit, 0) + desk.lane;
                       if (!last || desk.lane >= 16 || row >= args.vocabulary) return;
                       sum = rounded<N>(sum);
                       args.logits[row] = N(sum);
                       best = max(best, choice_for(sum, row));
                     });
    if (part == Part::kHeads)
      attend(heads, layer, kv_head, ring, mailboxes.heads, mailboxes.records, attended++);
    if (last && place.team == 0) write_hidden(desk, desk.inverse[norm]);
  });
  if (!args.choice) return;
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2)
    best = max(best, __shfl_xor_sync(kAllLanes, best, distance));
  if (desk.lane == 0) keep_greatest(args.choice, best);
}

// The warp that finds the inverse of the root of the mean square while the others multiply.
template <class M>
__device__ __forceinline__ void find_norms(const DecodeArgs<M>& args, std::byte* shared,
                                           const Patience& patience, const Mailboxes& mailboxes) {
  const Desk<M> desk(args, shared, patience);
  int turn = 0;
  meet_norm();
  each_part(args, [&](int number, Part part, int kv_head) {
    if (part == Part::kMiddle) mailboxes.middle.wait(number, patience);
    if (part == Part::kSum) mailboxes.sum.wait(number, patience);
    if (part != Part::kHeads && part != Part::kInner && part != Part::kVocabulary) return;
    const float inverse = inverse_rms(desk, part == Part::kInner ? desk.middle : desk.sum);
    turn ^= 1;
    if (desk.lane == 0) desk.inverse[turn] = inverse;
    const int units = desk.products[static_cast<int>(part)].units;
#pragma unroll 1
    for (int batch = 0; batch < max(1, units); batch += kBatch) meet_norm();
  });
}

template <class M>
__device__ __forceinline__ void decode_token(const DecodeArgs<M>& args, std::byte* shared) {
  using N = typename M::N;
  const Patience patience(args.status);
  auto* const barriers = reinterpret_cast<std::uint64_t*>(shared);
  const Ring ring{.bytes = shared + args.shared.ring,
                  .capacity = args.shared.ring_bytes,
                  .full = barriers,
                  .empty = barriers + kTiles,
                  .patience = patience};
  const Place place(args);
  const Mailboxes mailboxes(args, place, barriers + 2 * kTiles);
  if (threadIdx.x == 0) {
    ring.init();
    mailboxes.init(place.inner.size() > 0);
    publish_barriers();
  }
  __syncthreads();
  arrive_in_cluster();
  wait_for_cluster();
  if (threadIdx.x >= kConsumers + 32)
    produce(args, ring);
  else if (threadIdx.x >= kConsumers)
    find_norms(args, shared, patience, mailboxes);
  else
    consume<M>(args, shared, ring, patience, mailboxes);
  // No block may go while another could still send to it.
  __syncwarp();
  arrive_in_cluster();
  wait_for_cluster();
}

// At most M::kGroup query heads share a key/value head.
template <class M>
__global__ void __launch_bounds__(kDecodeThreads, 1)
    decode_kernel(const __grid_constant__ DecodeArgs<M> args) {
  using N = typename M::N;
#if __CUDA_ARCH__ >= 900
  extern __shared__ __align__(128) unsigned char shared[];
  decode_token<M>(args, reinterpret_cast<std::byte*>(shared));
#endif
}

}  // namespace infini
