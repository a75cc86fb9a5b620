#include "tensor/ops/compression.h"

#include <algorithm>
#include <functional>

#include "tensor/parallel.h"

namespace infini {
namespace {

class CpuCompression final : public CompressionKernels {
 public:
  void seen(const Seen& args) const override {
    const std::uint8_t* seen = args.seen.data<std::uint8_t>();
    std::uint8_t* marks = args.marks.data<std::uint8_t>();
    for (std::int64_t i = 0; i < args.marks.size(); ++i) {
      const std::int64_t segment = i / args.windows, w = i % args.windows;
      const std::uint8_t* first =
          seen +
          (segment / args.segments * (args.segments + 1) + segment % args.segments) * args.places +
          w * args.window;
      marks[i] = std::all_of(first, first + args.window, std::identity());
    }
  }

  void means(const Tensor& x, std::int64_t window, const Tensor& y) const override {
    dispatch_float(x.dtype(), [&]<class T>() {
      using A = Accumulator<T>;
      const std::int64_t width = y.shape()[1];
      parallel_for(y.shape()[0], [&](std::int64_t w) {
        for (std::int64_t c = 0; c < width; ++c) {
          A sum = 0;
          for (std::int64_t i = 0; i < window; ++i)
            sum += A(x.data<T>()[(w * window + i) * width + c]);
          y.data<T>()[w * width + c] = T(sum / A(window));
        }
      });
    });
  }
};

const CpuCompression cpu_compression;

const CompressionKernels& kernels(Device device) {
  return on<cpu_compression, cuda_compression>(device);
}

}  // namespace

Tensor windows_seen(const Tensor& seen, const HeadLayout& layout, std::int64_t window) {
  const auto [batch, borders, places] = seen.dims<3>();
  check(batch == layout.batch && borders == layout.segments + 1 && places >= layout.tokens,
        "windows_seen: what is seen is ", seen.shape(), ", expected [", layout.batch, ", ",
        layout.segments + 1, ", ", layout.tokens, " or more]");
  const std::int64_t windows = layout.tokens / window;
  const Tensor marks =
      Tensor::empty({layout.batch, layout.segments, windows}, DType::kUInt8, seen.device());
  if (windows > 0)
    kernels(seen.device())
        .seen({.seen = seen,
               .segments = layout.segments,
               .places = places,
               .windows = windows,
               .window = window,
               .marks = marks});
  return marks;
}

Tensor window_means(const Tensor& x, std::int64_t window) {
  const auto [rows, width] = x.dims<2>();
  check(rows % window == 0, "window_means: ", rows, " tokens are no windows of ", window);
  const Tensor y = Tensor::empty({rows / window, width}, x.dtype(), x.device());
  kernels(x.device()).means(x.unwatched(), window, y);
  return y;
}

}  // namespace infini
