#include "tensor/parallel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "tensor/ops/elementwise.h"
#include "tensor/ops/product.h"
#include "tensor/random.h"

namespace infini {
namespace {

Tensor random_tensor(const Shape& shape, DType dtype) {
  std::vector<double> values(shape.size());
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = RandomKey{.seed = 9}.normal(i);
  return Tensor::of(values, shape).to(dtype);
}

// Calls task with 1, 2, 3 and the usual number of threads.
template <class Task>
void with_thread_counts(Task task) {
#ifdef _OPENMP
  const int usual = omp_get_max_threads();
  for (const int threads : {1, 2, 3, usual}) {
    omp_set_num_threads(threads);
    task();
  }
#else
  task();
#endif
}

TEST(ParallelFor, CallsEachIndexOnce) {
  with_thread_counts([] {
    std::vector<int> calls(1000);
    parallel_for(1000, [&](std::int64_t i) { ++calls[i]; });
    EXPECT_THAT(calls, testing::Each(1));
  });
}

TEST(ParallelRanges, CoversTheRangeInPieces) {
  std::vector<int> calls(1000);
  parallel_ranges(1000, 64, [&](std::int64_t begin, std::int64_t end) {
    EXPECT_EQ(begin % 64, 0);
    EXPECT_LE(end - begin, 64);
    for (std::int64_t i = begin; i < end; ++i) ++calls[i];
  });
  EXPECT_THAT(calls, testing::Each(1));
  parallel_ranges(0, 64, [](std::int64_t, std::int64_t) { ADD_FAILURE() << "called for nothing"; });
}

TEST(ParallelFor, BringsAnExceptionToTheCaller) {
  with_thread_counts([] {
    EXPECT_THAT([] { parallel_for(100, [](std::int64_t i) { check(i != 57, "index ", i); }); },
                testing::ThrowsMessage<Error>("index 57"));
  });
}

std::vector<std::byte> product_bytes(const Tensor& a, const Tensor& b, bool transpose_a) {
  const std::int64_t m = a.shape()[transpose_a ? 1 : 0], n = b.shape()[1];
  const Tensor c = Tensor::empty({m, n}, accumulator_of(a.dtype()));
  multiply({.a = a, .b = b, .c = c, .transpose_a = transpose_a});
  return {c.raw(), c.raw() + c.bytes()};
}

TEST(Multiply, GivesTheSameBytesOnAnyNumberOfThreads) {
  for (const DType dtype : {DType::kFloat64, DType::kFloat32, DType::kBFloat16})
    for (const bool transposed : {false, true}) {
      const Tensor a = random_tensor(transposed ? Shape{150, 300} : Shape{300, 150}, dtype);
      const Tensor b = random_tensor({150, 200}, dtype);
      const auto first = product_bytes(a, b, transposed);
      with_thread_counts([&] { EXPECT_TRUE(product_bytes(a, b, transposed) == first) << dtype; });
    }
}

// A sum of thousands of terms for few results, as in the gradient of a small weight, is shared out
// by oneDNN: in fp32 its bytes follow from the number of threads, and are the same for the same
// number.
TEST(Multiply, GivesTheSameBytesOfALongSumOnTheSameNumberOfThreads) {
  for (const DType dtype : {DType::kFloat64, DType::kFloat32, DType::kBFloat16}) {
    const Tensor a = random_tensor({20000, 8}, dtype), b = random_tensor({20000, 8}, dtype);
    with_thread_counts([&] {
      const auto first = product_bytes(a, b, true);
      for (int i = 0; i < 5; ++i) EXPECT_TRUE(product_bytes(a, b, true) == first) << dtype;
    });
  }
}

TEST(SquareSum, GivesTheSameBytesOnAnyNumberOfThreads) {
  const Tensor values = random_tensor({300001}, DType::kFloat32);
  const double first = square_sum(values).item();
  EXPECT_NEAR(first / 300001, 1, 0.02);
  with_thread_counts([&] { EXPECT_EQ(square_sum(values).item(), first); });
}

}  // namespace
}  // namespace infini
