// Windows of tokens that become one, by loops over their numbers.
#include "tensor/ops/compression.h"

#include "tensor/system_memory.h"
#include "tests/tensor/op_run.h"

namespace infini {
namespace {

void expect_windows(Device device) {
  const HeadLayout n{.batch = 2, .segments = 3, .tokens = 7};
  constexpr std::int64_t kPlaces = 9;
  std::vector<std::uint8_t> seen(2 * 4 * kPlaces, 1);
  for (std::size_t i = 0; i < seen.size(); i += 5) seen[i] = 0;
  for (const std::int64_t window : {1, 2, 3, 7, 8}) {
    std::vector<std::uint8_t> expected;
    for (int b = 0; b < 2; ++b)
      for (int s = 0; s < 3; ++s)
        for (std::int64_t w = 0; (w + 1) * window <= 7; ++w) {
          bool all = true;
          for (std::int64_t i = 0; i < window; ++i)
            all = all && seen[(b * 4 + s) * kPlaces + w * window + i];
          expected.push_back(all);
        }
    const Tensor marks = windows_seen(Tensor::of(seen, {2, 4, kPlaces}).to(device), n, window);
    EXPECT_EQ(marks.shape(), (Shape{2, 3, 7 / window}));
    EXPECT_EQ(marks.to_vector<std::uint8_t>(), expected) << window;
  }
}

void expect_means(Device device) {
  const Array x = random_values(12 * 50, -2, 2, 7);
  for (const std::int64_t window : {1, 2, 3, 12}) {
    Array expected;
    for (std::int64_t w = 0; w < 12 / window; ++w)
      for (std::int64_t c = 0; c < 50; ++c) {
        double sum = 0;
        for (std::int64_t i = 0; i < window; ++i) sum += x[(w * window + i) * 50 + c];
        expected.push_back(sum / static_cast<double>(window));
      }
    for (const auto& [dtype, tolerance] :
         {std::pair{DType::kFloat64, 1e-14}, std::pair{DType::kFloat32, 1e-6},
          std::pair{DType::kBFloat16, 1e-2}}) {
      const Tensor y = window_means(Tensor::of(x, {12, 50}).to(dtype).to(device), window);
      EXPECT_LE(distance(y.to_vector<double>(), expected), tolerance) << dtype << " " << window;
    }
  }
}

TEST(Compression, OfWindowsThatStandWholly) { expect_windows(Device::kCpu); }
TEST(Compression, ByMeansOfWindows) { expect_means(Device::kCpu); }

TEST(GpuCompression, DoesAsTheCpu) {
  if (!is_available(Device::kCuda)) GTEST_SKIP() << "this machine has no GPU";
  expect_windows(Device::kCuda);
  expect_means(Device::kCuda);
}

}  // namespace
}  // namespace infini
