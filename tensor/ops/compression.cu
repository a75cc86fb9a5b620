#include "tensor/ops/compression.h"
#include "tensor/ops/cuda_math.cuh"
#include "tensor/ops/launch.cuh"

namespace infini {
namespace {

constexpr int kThreads = 128;

// A thread for each window.
__global__ void seen_kernel(const std::uint8_t* seen, std::int64_t segments, std::int64_t places,
                            std::int64_t windows, std::int64_t window, std::int64_t count,
                            std::uint8_t* marks) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const std::int64_t segment = i / windows;
  const std::uint8_t* first = seen +
                              (segment / segments * (segments + 1) + segment % segments) * places +
                              i % windows * window;
  bool all = true;
  for (std::int64_t n = 0; n < window; ++n) all = all && first[n];
  marks[i] = all;
}

// A thread for each number of a mean; neighbours read neighbours.
template <class N>
__global__ void means_kernel(const N* x, std::int64_t window, std::int64_t width,
                             std::int64_t count, N* y) {
  using A = Compute<N>;
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const N* from = x + i / width * window * width + i % width;
  A sum = 0;
  for (std::int64_t n = 0; n < window; ++n) sum += A(from[n * width]);
  y[i] = N(sum / A(window));
}

class CudaCompression final : public CompressionKernels {
 public:
  void seen(const Seen& args) const override {
    launch("windows_seen", seen_kernel, blocks_for(args.marks.size(), kThreads), kThreads, 0,
           args.seen.data<std::uint8_t>(), args.segments, args.places, args.windows, args.window,
           args.marks.size(), args.marks.data<std::uint8_t>());
  }

  void means(const Tensor& x, std::int64_t window, const Tensor& y) const override {
    dispatch_float(x.dtype(), [&]<class T>() {
      launch("window_means", means_kernel<Native<T>>, blocks_for(y.size(), kThreads), kThreads, 0,
             native<T>(x), window, y.shape()[1], y.size(), native<T>(y));
    });
  }
};

}  // namespace

const CompressionKernels& cuda_compression() {
  static const CudaCompression kernels;
  return kernels;
}

}  // namespace infini
