// Compares the memory of a plan with what the allocator handed out.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "tensor/ops/product.h"
#include "trainer/plan_step.h"

namespace infini {

// The most that the library of this machine takes for itself during one of these products.
inline double scratchpad(const Work& work, DType type) {
  std::int64_t most = 0;
  for (const auto& [product, count] : work.products)
    for (const bool transposed : {false, true}) {
      const auto [m, n, k, added] = product;
      if (added && transposed) continue;
      const Tensor a = Tensor::zeros(added ? Shape{k, m} : Shape{m, k}, type);
      const Tensor b = Tensor::zeros(transposed ? Shape{n, k} : Shape{k, n}, type);
      const Tensor c = Tensor::zeros({m, n}, added ? accumulator_of(type) : type);
      const std::int64_t before = memory_statistics(Device::kCpu).in_use_bytes;
      reset_peak(Device::kCpu);
      multiply({.a = a,
                .b = b,
                .c = c,
                .transpose_a = added,
                .transpose_b = transposed,
                .accumulate = added});
      most = std::max(most, memory_statistics(Device::kCpu).peak_bytes - before);
    }
  return static_cast<double>(most);
}

// The peak of a run on the CPU is the planned one, to 1 % and 8 KiB, and at most the scratchpad of
// a product more.
inline void expect_peak(std::int64_t peak_bytes, const PlannedStep& plan, const RunConfig& config,
                        const std::string& name) {
  const auto real = static_cast<double>(peak_bytes), planned = static_cast<double>(plan.peak_bytes);
  const double tolerance = 0.01 * real + (8 << 10);
  EXPECT_LE(planned, real + tolerance) << name;
  EXPECT_GE(planned + scratchpad(plan.work, dtype_of_compute(config.train.compute)),
            real - tolerance)
      << name;
}

}  // namespace infini
