// Memories of models for tests: made at random, and compared.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "model/recurrence.h"
#include "tests/relative_error.h"

namespace infini {

// Parts of a memory that are rows, some of which hold nothing.
struct MarkedPart {
  Tensor MemoryState::*rows;   // [B, M, C]
  Tensor MemoryState::*marks;  // [B, M]
};
constexpr MarkedPart kMarkedParts[] = {
    {&MemoryState::cached, &MemoryState::present},
    {&MemoryState::window, &MemoryState::present},
    {&MemoryState::feedback, &MemoryState::feedback_present},
    {&MemoryState::pairs, &MemoryState::pairs_present},
    {&MemoryState::compressed, &MemoryState::compressed_present}};

// A memory as some text before the rows would leave it, of a model that computes in `dtype`.
inline Memories random_memories(const ModelConfig& config, std::int64_t batch, DType dtype) {
  Memories memories = zero_memories(config, batch, DType::kFloat64, Device::kCpu);
  for (std::size_t layer = 0; layer < memories.size(); ++layer) {
    const RandomKey key{.seed = 7, .site = static_cast<std::uint32_t>(layer)};
    for (const MarkedPart& part : kMarkedParts) {
      Tensor& rows = memories[layer].*part.rows;
      const Tensor& marks = memories[layer].*part.marks;
      if (!rows) continue;
      for (std::int64_t i = 0; i < rows.size(); ++i) rows.data<double>()[i] = key.normal(i);
      for (std::int64_t i = 0; i < marks.size(); ++i) marks.data<std::uint8_t>()[i] = i % 3 != 1;
      rows = rows.to(dtype);
    }
    if (const Tensor& vectors = memories[layer].vectors) {
      for (std::int64_t i = 0; i < vectors.size(); ++i) vectors.data<double>()[i] = key.normal(i);
      // Of as many segments before it as the row's number says, and one.
      const auto [rows, places] = memories[layer].present.dims<2>();
      for (std::int64_t i = 0; i < rows * places; ++i) {
        const std::int64_t stand = config.written_tokens() * (1 + i / places),
                           absent = std::max<std::int64_t>(0, places - stand);
        memories[layer].present.data<std::uint8_t>()[i] = i % places >= absent;
        if (i % places >= absent) continue;
        std::fill_n(vectors.data<double>() + i * config.d_model, config.d_model, 0.0);
      }
      memories[layer].vectors = vectors.to(dtype);
    }
    if (const Tensor& averages = memories[layer].averages) {
      const Tensor moments = memories[layer].norm_moments, tokens = memories[layer].norm_tokens;
      for (std::int64_t i = 0; i < averages.size(); ++i) averages.data<double>()[i] = key.normal(i);
      for (std::int64_t i = 0; i < moments.size(); ++i)
        moments.data<double>()[i] = 0.5 + key.uniform(500 + i);
      for (std::int64_t b = 0; b < batch; ++b)
        tokens.data<double>()[b] = static_cast<double>(3 + 4 * b);
      for (Tensor* part :
           {&memories[layer].averages, &memories[layer].norm_moments, &memories[layer].norm_tokens})
        *part = part->to(accumulator_of(dtype));
    }
    if (!memories[layer].matrix) continue;
    const Tensor matrix = memories[layer].matrix, normalizer = memories[layer].normalizer;
    for (std::int64_t i = 0; i < matrix.size(); ++i) matrix.data<double>()[i] = 2 * key.normal(i);
    for (std::int64_t i = 0; i < normalizer.size(); ++i)
      normalizer.data<double>()[i] = 1 + 3 * key.uniform(1000 + i);
    memories[layer] = {.matrix = matrix.to(accumulator_of(dtype)),
                       .normalizer = normalizer.to(accumulator_of(dtype))};
  }
  return memories;
}

inline double relative_error(const Tensor& a, const Tensor& b) {
  EXPECT_EQ(bool(a), bool(b));
  return a ? relative_error(a.to_vector<double>(), b.to_vector<double>()) : 0;
}

// The memories with zeros where rows hold nothing: what stands there nobody reads. Gradients have
// no marks and stay.
inline Memories readable(const Memories& memories) {
  Memories result = memories;
  for (MemoryState& state : result)
    for (const MarkedPart& part : kMarkedParts) {
      if (!(state.*part.rows) || !(state.*part.marks)) continue;
      const Tensor rows = (state.*part.rows).clone(), marks = state.*part.marks;
      const std::int64_t bytes = rows.bytes() / std::max<std::int64_t>(1, marks.size());
      for (std::int64_t i = 0; i < marks.size(); ++i)
        if (!marks.data<std::uint8_t>()[i])
          std::fill_n(rows.raw() + i * bytes, bytes, std::byte{0});
      state.*part.rows = rows;
    }
  return result;
}

inline void expect_near(const Memories& a, const Memories& b, double tolerance) {
  ASSERT_EQ(a.size(), b.size());
  const Memories left = readable(a), right = readable(b);
  for (std::size_t layer = 0; layer < a.size(); ++layer) {
    for (const MemoryPart& part : kMemoryParts)
      EXPECT_LE(relative_error(left[layer].*part.tensor, right[layer].*part.tensor), tolerance)
          << part.name << " " << layer;
  }
}

inline bool same_bytes(const Tensor& a, const Tensor& b) {
  if (!a || !b) return !a && !b;
  return a.bytes() == b.bytes() && std::equal(a.raw(), a.raw() + a.bytes(), b.raw());
}

}  // namespace infini
