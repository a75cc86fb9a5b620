#include "tensor/system_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "tensor/tensor.h"

namespace infini {
namespace {

using ::testing::AnyOf;
using ::testing::ThrowsMessage;

Tensor counting(std::int64_t count) {
  std::vector<float> values(count);
  std::iota(values.begin(), values.end(), 1.0f);
  return Tensor::of(values, {count});
}

TEST(SystemMemory, OfTheCpuIsAlwaysThere) {
  EXPECT_TRUE(is_available(Device::kCpu));
  const SystemMemory& memory = system_memory(Device::kCpu);
  for (const std::int64_t bytes : {64, 4096, 8 << 20}) {
    std::byte* block = memory.allocate(bytes);
    ASSERT_NE(block, nullptr);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % 64, 0u);
    memory.fill_zero(block, bytes);
    EXPECT_EQ(block[bytes - 1], std::byte{0});
    memory.release(block, bytes);
  }
}

TEST(SystemMemory, OfADeviceThatIsNotThereIsRefusedInWords) {
  if (is_available(Device::kCuda)) return;  // Gpu tests cover the machine that has one
  EXPECT_THAT([] { Tensor::empty({1}, DType::kFloat32, Device::kCuda); },
              ThrowsMessage<DeviceError>(AnyOf("this build has no memory on cuda",
                                               "this machine has no GPU that CUDA can use")));
}

class GpuMemory : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!is_available(Device::kCuda)) GTEST_SKIP() << "this machine has no GPU";
  }
};

TEST_F(GpuMemory, TensorsGoThereAndComeBackTheSame) {
  const Tensor here = counting(100001);
  const Tensor there = here.to(Device::kCuda);
  EXPECT_EQ(there.device(), Device::kCuda);
  const Tensor moved = Tensor::empty_like(there);
  moved.copy_from(there);
  EXPECT_EQ(moved.to(Device::kCpu).to_vector<float>(), here.to_vector<float>());
}

TEST_F(GpuMemory, IsFilledWithZeros) {
  const Tensor there = counting(5000).to(Device::kCuda);
  there.slice(10, 20).fill_zero();
  std::vector<float> expected = counting(5000).to_vector<float>();
  std::fill_n(expected.begin() + 10, 20, 0.0f);
  EXPECT_EQ(there.to(Device::kCpu).to_vector<float>(), expected);
}

TEST_F(GpuMemory, IsCachedSoThatAPatternThatRepeatsAsksTheSystemForNothing) {
  const auto pattern = [] {
    const Tensor a = Tensor::zeros({1 << 20}, DType::kFloat32, Device::kCuda);
    return Tensor::zeros({3000}, DType::kFloat64, Device::kCuda);
  };
  pattern();
  const std::int64_t before = memory_statistics(Device::kCuda).system_allocations;
  for (int i = 0; i < 10; ++i) pattern();
  EXPECT_EQ(memory_statistics(Device::kCuda).system_allocations, before);
}

TEST_F(GpuMemory, RefusesInWordsWhatDoesNotFit) {
  EXPECT_THROW(Tensor::empty({std::int64_t{1} << 45}, DType::kUInt8, Device::kCuda), DeviceError);
  EXPECT_EQ(counting(10).to(Device::kCuda).to(Device::kCpu).to_vector<float>(),
            counting(10).to_vector<float>());
}

}  // namespace
}  // namespace infini
