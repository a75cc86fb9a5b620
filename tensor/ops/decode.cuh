// The kernel: a grid of as many blocks as the device holds at a time, one for each multiprocessor,
// walks through the layers together. What a block needs from others it waits for where it lies; the
// weights come by themselves, see decode_ring.cuh.
#pragma once

#include "tensor/ops/decode_attention.cuh"

namespace infini {

// The order of everything that one warp of every block copies: that in which consume() asks for it.
template <class N>
__device__ __forceinline__ void produce(const DecodeArgs<N>& args, Ring ring) {
  const std::uint64_t policy = read_once();
  LayerPointers<N> layer{};
  each_product(args, [&](int number, Part part) {
    if (part == Part::kHeads) layer = args.layers[number];
    if (part != Part::kVocabulary || args.head)
      stream_rows(ring, product_of(args, layer, part), policy);
    if (part == Part::kHeads) stream_heads(args, layer, ring, policy);
  });
}

template <class N>
__device__ __forceinline__ int token_of_step(const DecodeArgs<N>& args) {
  if (!args.from) return args.token;
  const std::uint32_t token = ~static_cast<std::uint32_t>(*args.from);
  return token < static_cast<std::uint32_t>(args.vocabulary) ? static_cast<int>(token) : 0;
}

// What the layers hold and the angles come to shared memory, small things that every block reads
// to the L2 cache; the words of the next step are emptied.
template <class N>
__device__ void prepare(const Desk<N>& desk) {
  constexpr int kLine = 32;  // floats
  const DecodeArgs<N>& args = desk.args;
  const int pointers = args.layer_count * static_cast<int>(sizeof(LayerPointers<N>) / 8);
#pragma unroll 1
  for (int i = desk.tid; i < pointers; i += kConsumers)
    reinterpret_cast<std::uint64_t*>(desk.layers)[i] =
        reinterpret_cast<const std::uint64_t*>(args.layers)[i];
  for (int i = desk.tid; i < args.head_width; i += kConsumers) desk.angles[i] = args.angles[i];
  if (desk.tid == 0) *desk.zero = {};
  sync_consumers();
  const int stride = static_cast<int>(gridDim.x) * kConsumers;
  const int thread = static_cast<int>(blockIdx.x) * kConsumers + desk.tid;
  const int lines = (args.width + kLine - 1) / kLine;
#pragma unroll 1
  for (int i = thread; i < args.layer_count * lines; i += stride) {
    const LayerPointers<N>& layer = desk.layers[i / lines];
    prefetch_line(layer.attention_norm + i % lines * kLine);
    prefetch_line(layer.feed_forward_norm + i % lines * kLine);
    if (i % lines * kLine < args.heads && layer.gate) prefetch_line(layer.gate + i % lines * kLine);
  }
  const int sums = args.kv_heads * args.head_width;
#pragma unroll 1
  for (int i = thread; i < args.layer_count * (sums / kLine); i += stride)
    if (const float* const normalizer = desk.layers[i / (sums / kLine)].normalizer)
      prefetch_line(normalizer + i % (sums / kLine) * kLine);
  for (int i = thread; i < args.exchange_words / 4; i += stride)
    reinterpret_cast<uint4*>(args.next_exchange)[i] = {kEmpty, kEmpty, kEmpty, kEmpty};
}

__device__ __forceinline__ float sigmoid_of(float x) { return 1 / (1 + expf(-x)); }

template <class N>
__device__ __forceinline__ float activated(DecodeActivation activation, const float (&values)[2]) {
  if (activation == DecodeActivation::kRelu) return fmaxf(values[0], 0.0f);
  if (activation == DecodeActivation::kGelu) {
    const float u = values[0];
    return u * sigmoid_of(1.5957691216057308f * (u + 0.044715f * u * u * u));
  }
  const float gate = rounded<N>(values[0]);
  return gate * sigmoid_of(gate) * rounded<N>(values[1]);
}

// A number that is greater where the logit is, and among equal logits where the token is lower.
__device__ __forceinline__ std::uint64_t choice_for(float logit, int token) {
  const std::uint32_t bits = __float_as_uint(logit + 0.0f);  // 0 for -0
  const std::uint32_t order = logit != logit ? 0 : bits >> 31 ? ~bits : bits | 0x80000000u;
  return std::uint64_t{order} << 32 | static_cast<std::uint32_t>(~token);
}

// What becomes of a row of a product: warp 0, a lane for each. `words` are those of the layer.
template <class N>
__device__ __forceinline__ void finish_row(const Desk<N>& desk, const LayerPointers<N>& layer,
                                           std::uint32_t* words, Part part, int row, bool valid,
                                           const float (&values)[2], std::uint64_t& best) {
  const DecodeArgs<N>& args = desk.args;
  float value = values[0];
  std::uint32_t* to = words;
  switch (part) {
    case Part::kHeads: {
      const int leading = (args.heads + 2 * args.kv_heads) * args.head_width;
      if (valid) layer.window_qkv[std::int64_t{args.position} * leading + row] = N(value);
      break;
    }
    case Part::kOutput:
    case Part::kDown:
      value = rounded<N>(value) + (valid ? desk.stream[row] : 0);
      to += part == Part::kOutput ? args.words.middle : args.words.sum;
      break;
    case Part::kInner:
      value = activated<N>(args.activation, values);
      to += args.words.inner;
      break;
    case Part::kVocabulary:
      if (!valid) return;
      value = rounded<N>(value);
      args.logits[row] = N(value);
      best = max(best, choice_for(value, row));
      return;
  }
  publish_rows<N>(to, row, valid, value);
}

template <class N>
__device__ __forceinline__ void consume(const DecodeArgs<N>& args, std::byte* shared, Ring ring,
                                        const Patience& patience) {
  const Desk<N> desk(args, shared, patience);
  const AttentionDesk<N> heads(desk, shared);
  const ExchangeLayout& at = args.words;
  const N* const embedded = args.embedding + std::int64_t{token_of_step(args)} * args.width;
  prepare(desk);
  std::uint64_t best = 0;
  each_product(args, [&](int number, Part part) {
    const bool last = part == Part::kVocabulary;
    const LayerPointers<N>& layer = desk.layers[last ? 0 : number];
    std::uint32_t* const words = args.exchange + number * at.layer_words;
    const Product<N> product = product_of(args, layer, part);
    if (part == Part::kOutput || part == Part::kDown) {
      stage_vector(desk, words + (part == Part::kOutput ? at.mixed : at.inner), product.columns);
    } else {
      const bool first = part == Part::kHeads && number == 0, middle = part == Part::kInner;
      const std::uint32_t* const sum = middle ? words + at.middle : words - at.layer_words + at.sum;
      stage_norm(desk, first ? static_cast<const void*>(embedded) : sum, !first,
                 last     ? args.final_norm
                 : middle ? layer.feed_forward_norm
                          : layer.attention_norm,
                 last && blockIdx.x == 0 ? args.hidden : nullptr);
    }
    if (last && !args.head) return;
    multiply_rows(desk, ring, product, [&](int row, bool valid, const float(&values)[2]) {
      finish_row(desk, layer, words, part, row, valid, values, best);
    });
    if (part == Part::kHeads) attend(heads, layer, ring, words);
  });
  if (!args.choice || desk.warp != 0) return;
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2)
    best = max(best, __shfl_xor_sync(0xffffffff, best, distance));
  if (desk.lane == 0) keep_greatest(args.choice, best);
}

template <class N>
__device__ __forceinline__ void decode_token(const DecodeArgs<N>& args, std::byte* shared) {
  const Patience patience(args.status);
  const Ring ring(shared + args.shared.stages, reinterpret_cast<std::uint64_t*>(shared),
                  args.shared.stage_count, patience);
  if (threadIdx.x == kConsumers) ring.init();
  __syncthreads();
  if (threadIdx.x >= kConsumers)
    produce(args, ring);
  else
    consume(args, shared, ring, patience);
}

template <class N>
__global__ void __launch_bounds__(kDecodeThreads, 1)
    decode_kernel(const __grid_constant__ DecodeArgs<N> args) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ __align__(128) unsigned char shared[];
  decode_token(args, reinterpret_cast<std::byte*>(shared));
#endif
}

}  // namespace infini
