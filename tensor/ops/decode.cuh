// The kernel: a grid of as many blocks as the device holds at a time, one for each multiprocessor,
// walks through the layers together. What a block needs from others it waits for where it lies; the
// weights come by themselves, see decode_ring.cuh.
#pragma once

#include "tensor/ops/decode_attention.cuh"

namespace infini {

// The order of everything that one warp of every block copies: that in which consume() asks for it.
template <class N>
__device__ void produce(const DecodeArgs<N>& args, Ring ring) {
  const std::uint64_t policy = read_once();
  const int queries = args.heads * args.head_width;
  const int qkv = queries + 2 * args.kv_heads * args.head_width;
  for (int i = 0; i < args.layer_count; ++i) {
    const LayerPointers<N> layer = args.layers[i];
    stream_rows<1>(ring, layer.qkv, qkv, args.width, policy);
    stream_heads(args, layer, ring, policy);
    stream_rows<1>(ring, layer.output, args.width, queries, policy);
    if (args.activation == DecodeActivation::kSwiglu)
      stream_rows<2>(ring, layer.up, args.inner, args.width, policy);
    else
      stream_rows<1>(ring, layer.up, args.inner, args.width, policy);
    stream_rows<1>(ring, layer.down, args.width, args.inner, policy);
  }
  if (args.head) stream_rows<1>(ring, args.head, args.vocabulary, args.width, policy);
}

template <class N>
__device__ __forceinline__ int token_of_step(const DecodeArgs<N>& args) {
  if (!args.from) return args.token;
  const std::uint32_t token = ~static_cast<std::uint32_t>(*args.from);
  return token < static_cast<std::uint32_t>(args.vocabulary) ? static_cast<int>(token) : 0;
}

// What the layers hold and the angles come to shared memory; the words of the next step are
// emptied.
template <class N>
__device__ void prepare(const Desk<N>& desk) {
  const DecodeArgs<N>& args = desk.args;
  const int pointers = args.layer_count * static_cast<int>(sizeof(LayerPointers<N>) / 8);
  for (int i = desk.tid; i < pointers; i += kConsumers)
    reinterpret_cast<std::uint64_t*>(desk.layers)[i] =
        reinterpret_cast<const std::uint64_t*>(args.layers)[i];
  for (int i = desk.tid; i < args.head_width; i += kConsumers) desk.angles[i] = args.angles[i];
  if (desk.tid == 0) *desk.zero = {};
  sync_consumers();
  const int stride = static_cast<int>(gridDim.x) * kConsumers;
  for (int i = static_cast<int>(blockIdx.x) * kConsumers + desk.tid; i < args.exchange_words / 4;
       i += stride)
    reinterpret_cast<uint4*>(args.next_exchange)[i] = {kEmpty, kEmpty, kEmpty, kEmpty};
}

template <class N>
__device__ void project_heads(const Desk<N>& desk, Ring& ring, const LayerPointers<N>& layer,
                              std::uint32_t* words) {
  const DecodeArgs<N>& args = desk.args;
  const int rows = (args.heads + 2 * args.kv_heads) * args.head_width;
  N* const window = layer.window_qkv + std::int64_t{args.position} * rows;
  multiply_rows<1>(desk, ring, rows, args.width, [&](int row, bool valid, const float(&values)[1]) {
    publish_rows<N>(words, row, valid, values[0]);
    if (valid) window[row] = N(values[0]);
  });
}

// The next residual stream: what this block's rows of a matrix give, added to the one before.
template <class N>
__device__ void add_branch(const Desk<N>& desk, Ring& ring, int columns, std::uint32_t* sum) {
  multiply_rows<1>(desk, ring, desk.args.width, columns,
                   [&](int row, bool valid, const float(&values)[1]) {
                     const float before = valid ? desk.stream[row] : 0;
                     publish_rows<N>(sum, row, valid, before + rounded<N>(values[0]));
                   });
}

__device__ __forceinline__ float sigmoid_of(float x) { return 1 / (1 + expf(-x)); }

template <class N>
__device__ void activate_inner(const Desk<N>& desk, Ring& ring, std::uint32_t* inner) {
  const DecodeArgs<N>& args = desk.args;
  if (args.activation == DecodeActivation::kSwiglu) {
    multiply_rows<2>(desk, ring, args.inner, args.width,
                     [&](int row, bool valid, const float(&values)[2]) {
                       const float gate = rounded<N>(values[0]), up = rounded<N>(values[1]);
                       publish_rows<N>(inner, row, valid, gate * sigmoid_of(gate) * up);
                     });
    return;
  }
  const bool gelu = args.activation == DecodeActivation::kGelu;
  multiply_rows<1>(
      desk, ring, args.inner, args.width, [&](int row, bool valid, const float(&values)[1]) {
        const float u = values[0];
        const float scaled = 1.5957691216057308f * (u + 0.044715f * u * u * u);
        publish_rows<N>(inner, row, valid, gelu ? u * sigmoid_of(scaled) : fmaxf(u, 0.0f));
      });
}

// A number that is greater where the logit is, and among equal logits where the token is lower.
__device__ __forceinline__ std::uint64_t choice_for(float logit, int token) {
  const std::uint32_t bits = __float_as_uint(logit + 0.0f);  // 0 for -0
  const std::uint32_t order = logit != logit ? 0 : bits >> 31 ? ~bits : bits | 0x80000000u;
  return std::uint64_t{order} << 32 | static_cast<std::uint32_t>(~token);
}

template <class N>
__device__ void project_vocabulary(const Desk<N>& desk, Ring& ring) {
  const DecodeArgs<N>& args = desk.args;
  std::uint64_t best = 0;
  multiply_rows<1>(desk, ring, args.vocabulary, args.width,
                   [&](int row, bool valid, const float(&values)[1]) {
                     if (!valid) return;
                     const float logit = rounded<N>(values[0]);
                     args.logits[row] = N(logit);
                     best = max(best, choice_for(logit, row));
                   });
  if (!args.choice || desk.warp != 0) return;
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2)
    best = max(best, __shfl_xor_sync(0xffffffff, best, distance));
  if (desk.lane == 0) keep_greatest(args.choice, best);
}

template <class N>
__device__ void consume(const DecodeArgs<N>& args, std::byte* shared, Ring ring,
                        const Patience& patience) {
  const Desk<N> desk(args, shared, patience);
  const AttentionDesk<N> heads(desk, shared);
  const ExchangeLayout& at = args.words;
  const int queries = args.heads * args.head_width;
  const N* const embedded = args.embedding + std::int64_t{token_of_step(args)} * args.width;
  prepare(desk);
  stage_norm<false>(desk, embedded, desk.layers[0].attention_norm, static_cast<N*>(nullptr));
  std::uint32_t* words = args.exchange;
  for (int i = 0; i < args.layer_count; ++i, words += at.layer_words) {
    const LayerPointers<N>& layer = desk.layers[i];
    project_heads(desk, ring, layer, words);
    attend(heads, layer, ring, words);
    stage_vector(desk, words + at.mixed, queries);
    add_branch(desk, ring, queries, words + at.middle);
    stage_norm<true>(desk, words + at.middle, layer.feed_forward_norm, static_cast<N*>(nullptr));
    activate_inner(desk, ring, words + at.inner);
    stage_vector(desk, words + at.inner, args.inner);
    add_branch(desk, ring, args.inner, words + at.sum);
    const bool last = i + 1 == args.layer_count;
    stage_norm<true>(desk, words + at.sum,
                     last ? args.final_norm : desk.layers[i + 1].attention_norm,
                     last && blockIdx.x == 0 ? args.hidden : nullptr);
  }
  if (args.head) project_vocabulary(desk, ring);
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
