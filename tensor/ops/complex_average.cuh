// What the kernels of complex_average.cu compute with: complex numbers, and a group of threads for
// a channel, one an average.
#pragma once

#include <cmath>
#include <numbers>

#include "tensor/ops/complex_average.h"
#include "tensor/ops/cuda_math.cuh"

namespace infini::averages {

constexpr int kThreads = 128;
constexpr std::int64_t kChunk = ComplexAverageKernels::kChunk;

template <class A>
struct Number {
  A re = 0, im = 0;
};
template <class A>
__device__ Number<A> operator+(Number<A> a, Number<A> b) {
  return {a.re + b.re, a.im + b.im};
}
template <class A>
__device__ Number<A> operator*(Number<A> a, Number<A> b) {
  return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
template <class A>
__device__ Number<A> operator*(A a, Number<A> b) {
  return {a * b.re, a * b.im};
}
template <class A>
__device__ Number<A> conjugate(Number<A> a) {
  return {a.re, -a.im};
}
template <class A>
__device__ Number<A> power(Number<A> base, int exponent) {
  Number<A> result{1, 0};
  for (; exponent > 0; exponent /= 2, base = base * base)
    if (exponent % 2) result = result * base;
  return result;
}

// A group of `lanes` threads, a power of two, works on a channel, one thread an average; those
// beyond have weights of zero.
template <class N>
struct Averages {
  using A = Compute<N>;
  const N* x;
  const A *alpha, *delta, *frequency, *skip, *eta;
  const std::uint8_t *keep, *resets;
  Number<A>* starts;
  std::int64_t width, count, segments, tokens, segment_chunks, batch;
  int lanes;

  __device__ std::int64_t chunks() const { return segments * segment_chunks; }
};

template <class N>
struct Lane {
  using A = Compute<N>;
  std::int64_t c, k;
  bool works;  // its channel and its average are there
  bool leads;  // the channel
  A p = 0, damping = 0, turning = 0, step = 0, scale;
  Number<A> q, eta, turn;

  // Every thread of a warp has a channel to compute with, if not to write.
  __device__ Lane(const Averages<N>& in, std::int64_t channel) {
    k = threadIdx.x % in.lanes;
    c = min(channel, in.width - 1);
    works = channel < in.width && k < in.count;
    leads = channel < in.width && k == 0;
    scale = A(1) / sqrt(A(in.count));
    if (k >= in.count) return;
    const std::int64_t i = c * in.count + k;
    p = sigmoid(in.alpha[i]);
    damping = sigmoid(in.delta[i]);
    turning = sigmoid(in.frequency[c]);
    step = A(2 * std::numbers::pi) * A(k + 1) / A(in.count);
    turn = {cos(step * turning), sin(step * turning)};
    q = (1 - p * damping) * turn;
    eta = {in.eta[2 * i], in.eta[2 * i + 1]};
  }
  __device__ static A sigmoid(A x) { return A(1) / (A(1) + exp(-x)); }
  __device__ std::int64_t state(const Averages<N>& in, std::int64_t row) const {
    return (row * in.width + c) * in.count + k;
  }
};

// The sum over the threads of a channel, in all of them.
template <class A>
__device__ A channel_sum(A value, int lanes) {
  for (int distance = lanes / 2; distance > 0; distance /= 2)
    value += __shfl_xor_sync(0xffffffff, value, distance);
  return value;
}

// The chunk of this block, and the channel of this thread.
template <class N>
struct Place {
  std::int64_t b, chunk, begin, end, row;  // tokens of the batch row, and its first row
  std::int64_t channel;

  __device__ explicit Place(const Averages<N>& in)
      : b(blockIdx.z),
        chunk(blockIdx.y),
        channel((std::int64_t{blockIdx.x} * kThreads + threadIdx.x) / in.lanes) {
    const std::int64_t segment = chunk / in.segment_chunks,
                       part = chunk % in.segment_chunks * kChunk;
    begin = segment * in.tokens + part;
    end = segment * in.tokens + min(part + kChunk, in.tokens);
    row = b * in.segments * in.tokens;
  }
};

template <class N>
__device__ bool kept(const Averages<N>& in, const Place<N>& at, std::int64_t t) {
  return !in.keep || in.keep[at.row + t];
}

}  // namespace infini::averages
