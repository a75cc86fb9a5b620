// Batches of products on a GPU against the products of their matrices on the CPU.
#include <gtest/gtest.h>

#include "tensor/ops/product.h"
#include "tensor/system_memory.h"
#include "tests/tensor/op_run.h"

namespace infini {
namespace {

struct BatchSizes {
  std::int64_t batch, m, n, k;
};
// The widths of rows are even for cuBLASLt and odd, and so is the distance between matrices.
const BatchSizes kSizes[] = {{6, 16, 24, 8},  {3, 130, 72, 64}, {5, 3, 8, 136},
                             {1, 40, 16, 32}, {4, 7, 5, 3},     {8, 256, 512, 64}};

TEST(GpuBatchedProduct, EqualsTheCpuInEveryLayoutAndType) {
  if (!is_available(Device::kCuda)) GTEST_SKIP() << "this machine has no GPU";
  struct Types {
    DType factors, result;
    double tolerance;
  };
  const Types types[] = {{DType::kFloat64, DType::kFloat64, 1e-13},
                         {DType::kFloat32, DType::kFloat32, 1e-6},
                         {DType::kBFloat16, DType::kFloat32, 1e-6},
                         {DType::kBFloat16, DType::kBFloat16, 1e-2}};
  for (const auto& [factors, result, tolerance] : types)
    for (const auto& [batch, m, n, k] : kSizes)
      for (int layout = 0; layout < 8; ++layout) {
        const auto random = [](const Shape& shape, DType type, std::uint32_t site) {
          return Tensor::of(random_values(shape.size(), -1, 1, site), shape).to(type);
        };
        const bool ta = layout & 1, tb = layout & 2;
        const Product here{.a = random(ta ? Shape{batch, k, m} : Shape{batch, m, k}, factors, 0),
                           .b = random(tb ? Shape{batch, n, k} : Shape{batch, k, n}, factors, 1),
                           .c = random({batch, m, n}, result, 2),
                           .transpose_a = ta,
                           .transpose_b = tb,
                           .accumulate = (layout & 4) != 0};
        Product there = here;
        for (Tensor* tensor : {&there.a, &there.b, &there.c}) *tensor = tensor->to(Device::kCuda);
        multiply(here);
        multiply(there);
        EXPECT_LE(distance(there.c.to_vector<double>(), here.c.to_vector<double>()), tolerance)
            << factors << " to " << result << ", " << there.a.shape() << " by " << there.b.shape()
            << ", layout " << layout;
      }
}

}  // namespace
}  // namespace infini
