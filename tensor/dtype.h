// Element types of tensors.
#pragma once

#include <bit>
#include <cstdint>
#include <ostream>
#include <string_view>

#include "tensor/error.h"

namespace infini {

enum class DType : std::uint8_t { kFloat64, kFloat32, kBFloat16, kInt64, kInt32, kUInt8 };

// The upper half of an fp32, rounded to nearest even. Arithmetic happens in float.
struct BFloat16 {
  std::uint16_t bits = 0;

  BFloat16() = default;
  // Copies of the member, not of the struct: GCC 12 vectorises no loop that stores structs.
  BFloat16(const BFloat16& other) : bits(other.bits) {}
  BFloat16& operator=(const BFloat16& other) {
    bits = other.bits;
    return *this;
  }
  explicit BFloat16(float value) {
    const auto word = std::bit_cast<std::uint32_t>(value);
    const bool nan = (word & 0x7FFFFFFF) > 0x7F800000;
    // A NaN becomes quiet instead: rounding could carry it into infinity. Both are computed, so
    // that loops have no branch.
    const std::uint32_t rounded = word + 0x7FFF + ((word >> 16) & 1);
    bits = static_cast<std::uint16_t>((nan ? word | 0x400000 : rounded) >> 16);
  }
  operator float() const { return std::bit_cast<float>(std::uint32_t{bits} << 16); }
};

// The type in which T is summed: fp64 for fp64, fp32 for everything shorter.
template <class T>
struct AccumulatorOf {
  using type = float;
};
template <>
struct AccumulatorOf<double> {
  using type = double;
};
template <class T>
using Accumulator = typename AccumulatorOf<T>::type;

template <class T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<double>() {
  return DType::kFloat64;
}
template <>
constexpr DType dtype_of<float>() {
  return DType::kFloat32;
}
template <>
constexpr DType dtype_of<BFloat16>() {
  return DType::kBFloat16;
}
template <>
constexpr DType dtype_of<std::int64_t>() {
  return DType::kInt64;
}
template <>
constexpr DType dtype_of<std::int32_t>() {
  return DType::kInt32;
}
template <>
constexpr DType dtype_of<std::uint8_t>() {
  return DType::kUInt8;
}

constexpr std::int64_t bytes_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
    case DType::kInt64:
      return 8;
    case DType::kFloat32:
    case DType::kInt32:
      return 4;
    case DType::kBFloat16:
      return 2;
    case DType::kUInt8:
      return 1;
  }
  return 0;
}

constexpr std::string_view name_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
      return "f64";
    case DType::kFloat32:
      return "f32";
    case DType::kBFloat16:
      return "bf16";
    case DType::kInt64:
      return "i64";
    case DType::kInt32:
      return "i32";
    case DType::kUInt8:
      return "u8";
  }
  return "?";
}

inline std::ostream& operator<<(std::ostream& out, DType dtype) { return out << name_of(dtype); }

// The type in which statistics, memories and gradients of weights are kept beside `compute`.
constexpr DType accumulator_of(DType compute) {
  return compute == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
}

// Calls function.operator()<T>() with the C++ type of a floating-point dtype.
template <class Function>
decltype(auto) dispatch_float(DType dtype, Function&& function) {
  switch (dtype) {
    case DType::kFloat64:
      return function.template operator()<double>();
    case DType::kFloat32:
      return function.template operator()<float>();
    case DType::kBFloat16:
      return function.template operator()<BFloat16>();
    default:
      throw Error(text("expected a floating-point tensor, got ", dtype));
  }
}

// The same for the types that accumulate.
template <class Function>
decltype(auto) dispatch_accumulator(DType dtype, Function&& function) {
  switch (dtype) {
    case DType::kFloat64:
      return function.template operator()<double>();
    case DType::kFloat32:
      return function.template operator()<float>();
    default:
      throw Error(text("expected a tensor of f32 or f64, got ", dtype));
  }
}

}  // namespace infini
