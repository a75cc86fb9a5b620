#include "tensor/dtype.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace infini {
namespace {

std::uint16_t bits(float value) { return BFloat16(value).bits; }
float from_word(std::uint32_t word) { return std::bit_cast<float>(word); }

TEST(BFloat16, RoundsToNearestAndTiesToEven) {
  EXPECT_EQ(bits(from_word(0x3F800000)), 0x3F80);  // 1 exactly
  EXPECT_EQ(bits(from_word(0x3F807FFF)), 0x3F80);  // below the middle
  EXPECT_EQ(bits(from_word(0x3F808000)), 0x3F80);  // the middle, the lower one even
  EXPECT_EQ(bits(from_word(0x3F808001)), 0x3F81);  // above the middle
  EXPECT_EQ(bits(from_word(0x3F818000)), 0x3F82);  // the middle, the upper one even
  EXPECT_EQ(bits(from_word(0xBF818000)), 0xBF82);  // and with a sign
}

TEST(BFloat16, KeepsZerosInfinitiesAndNaN) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(bits(0.0f), 0);
  EXPECT_EQ(bits(-0.0f), 0x8000);
  EXPECT_EQ(float(BFloat16(kInfinity)), kInfinity);
  EXPECT_EQ(float(BFloat16(-kInfinity)), -kInfinity);
  // NaNs whose upper half alone would be an infinity, or would carry into the sign.
  for (const std::uint32_t word : {0x7F800001u, 0x7FFFFFFFu, 0xFF800001u, 0xFFFFFFFFu, 0x7FC00000u})
    EXPECT_TRUE(std::isnan(float(BFloat16(from_word(word))))) << std::hex << word;
}

TEST(BFloat16, OverflowsToInfinityOnlyBeyondItsRange) {
  EXPECT_EQ(bits(from_word(0x7F7F7FFF)), 0x7F7F);              // still the largest number
  EXPECT_EQ(bits(std::numeric_limits<float>::max()), 0x7F80);  // nearer to infinity
  EXPECT_EQ(bits(from_word(0x00000001)), 0);                   // a tiny number becomes zero
  EXPECT_EQ(bits(from_word(0x0000C000)), 0x0001);              // or the smallest one
}

TEST(BFloat16, ComesBackFromEveryOneOfItsNumbers) {
  for (std::uint32_t word = 0; word < 0x10000; ++word) {
    BFloat16 value;
    value.bits = static_cast<std::uint16_t>(word);
    if (!std::isnan(float(value))) {
      ASSERT_EQ(BFloat16(float(value)).bits, value.bits);
    }
  }
}

TEST(DType, KnowsSizesNamesAndAccumulators) {
  EXPECT_EQ(bytes_of(DType::kBFloat16), 2);
  EXPECT_EQ(bytes_of(DType::kInt64), 8);
  EXPECT_EQ(text(DType::kFloat64, " ", DType::kUInt8), "f64 u8");
  EXPECT_EQ(accumulator_of(DType::kFloat64), DType::kFloat64);
  EXPECT_EQ(accumulator_of(DType::kFloat32), DType::kFloat32);
  EXPECT_EQ(accumulator_of(DType::kBFloat16), DType::kFloat32);
}

TEST(DType, RefusesToDispatchToAnotherKind) {
  EXPECT_THAT([] { dispatch_float(DType::kInt32, []<class T>() {}); },
              testing::ThrowsMessage<Error>("expected a floating-point tensor, got i32"));
  EXPECT_THAT([] { dispatch_accumulator(DType::kBFloat16, []<class T>() {}); },
              testing::ThrowsMessage<Error>("expected a tensor of f32 or f64, got bf16"));
}

}  // namespace
}  // namespace infini
