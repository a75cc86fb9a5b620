// The types in which model files keep weights, and the way from them to fp32 and back.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include "tensor/enum_names.h"

namespace infini {

enum class StoredType { kFp32, kBf16, kFp16 };
constexpr std::array<std::pair<std::string_view, StoredType>, 3> enum_names(StoredType) {
  return {{{"fp32", StoredType::kFp32}, {"bf16", StoredType::kBf16}, {"fp16", StoredType::kFp16}}};
}
constexpr std::int64_t bytes_of(StoredType type) { return type == StoredType::kFp32 ? 4 : 2; }

// Little-endian numbers of this type as fp32, which holds each exactly.
void to_floats(StoredType type, std::span<const std::byte> from, std::span<float> to);

// Rounds to nearest even; numbers that came from this type come back to the bit. False where a
// finite number is too large for the type, which then holds infinity.
bool from_floats(StoredType type, std::span<const float> from, std::span<std::byte> to);

}  // namespace infini
