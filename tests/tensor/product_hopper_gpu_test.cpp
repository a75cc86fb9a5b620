// Products with gelu by the kernels for Hopper against products and gelu in fp32, from the same
// numbers.
#ifdef INFINI_CUDA

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "tensor/cuda.h"
#include "tensor/ops/activation.h"
#include "tensor/ops/product_hopper.h"
#include "tensor/random.h"
#include "tensor/system_memory.h"

namespace infini {
namespace {

// Of a number, and of the largest: results are rounded once or twice to bf16, each 4e-3 at most.
constexpr double kTolerance = 1e-2, kLeast = 1e-3;

const HopperProductPlan kPlans[] = {{.cluster = 2, .band = 16},
                                    {.cluster = 1, .band = 16},
                                    {.cluster = 2, .band = 8},
                                    {.cluster = 2, .band = 4}};

class GpuHopperProduct : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!is_available(Device::kCuda)) GTEST_SKIP() << "this machine has no GPU";
    int major = 0, minor = 0;
    cuda_check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), "device");
    cuda_check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0), "device");
    if (major != 9 || minor != 0)
      GTEST_SKIP() << "this device is of capability " << major << "." << minor << ", not 9.0";
  }
};
using GpuHopperProductSpeed = GpuHopperProduct;

Tensor random_tensor(const Shape& shape, double scale, std::uint32_t site) {
  std::vector<float> values(shape.size());
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(scale * RandomKey{.seed = 5, .site = site}.normal(i));
  return Tensor::of(values, shape).to(DType::kBFloat16).to(Device::kCuda);
}
Tensor fp32(const Tensor& tensor) { return tensor.to(DType::kFloat32); }
Tensor bf16_on_gpu(const Shape& shape) {
  return Tensor::empty(shape, DType::kBFloat16, Device::kCuda);
}

struct Sizes {
  std::int64_t m, n, k;
};
std::string name_of(const Sizes& sizes) { return text(sizes.m, " x ", sizes.n, " x ", sizes.k); }
std::vector<Sizes> all_sizes() {
  std::vector<Sizes> all;
  for (const std::int64_t m : {128, 200, 1000, 4096})
    for (const std::int64_t n : {256, 512, 4096})
      for (const std::int64_t k : {64, 128, 1024}) all.push_back({m, n, k});
  all.push_back({1, 256, 576});  // steps that pieces do not divide
  all.push_back({300, 4352, 832});
  return all;
}

// What a product is asked: its sums are of size 1.
Product question(const Sizes& sizes, bool grad) {
  const auto [m, n, k] = sizes;
  return {.a = random_tensor({m, k}, 1, 0),
          .b = random_tensor(grad ? Shape{k, n} : Shape{n, k}, 1 / std::sqrt(double(k)), 1),
          .c = bf16_on_gpu({m, n}),
          .transpose_b = !grad};
}

Tensor product_in_fp32(Product product) {
  product.c = Tensor::empty(product.c.shape(), DType::kFloat32, Device::kCuda);
  multiply(product);
  return product.c;
}
// gelu(x) and gelu'(x).
struct GeluOf {
  Tensor value, slope;

  explicit GeluOf(const Tensor& x) : value(Tensor::empty_like(x)), slope(Tensor::empty_like(x)) {
    cuda_activation().elementwise(ActivationKernels::Kind::kGelu, x, value, slope);
  }
};
Tensor expected_grad(const Product& product, const Tensor& kept) {
  const Tensor result = product_in_fp32(product);
  cuda_activation().elementwise_grad(GeluOf(fp32(kept)).slope, result, {result, false});
  return result;
}

void expect_close(const Tensor& got, const Tensor& expected, const std::string& what) {
  const auto a = fp32(got).to(Device::kCpu).to_vector<float>();
  const auto b = expected.to(Device::kCpu).to_vector<float>();
  ASSERT_EQ(a.size(), b.size());
  float largest = 0;
  for (const float value : b) largest = std::max(largest, std::fabs(value));
  for (std::size_t i = 0; i < a.size(); ++i)
    // A NaN is not within any tolerance.
    ASSERT_LE(std::fabs(a[i] - b[i]), kTolerance * std::fabs(b[i]) + kLeast * largest)
        << what << ", row " << i / got.shape()[1] << ", column " << i % got.shape()[1] << ": got "
        << a[i] << ", expected " << b[i];
}

std::vector<std::byte> bytes_of_tensor(const Tensor& tensor) {
  const Tensor here = tensor.to(Device::kCpu);
  return {here.raw(), here.raw() + here.bytes()};
}

TEST_F(GpuHopperProduct, GeluOfAProductAndWhatWentIn) {
  for (const Sizes& sizes : all_sizes()) {
    const Product product = question(sizes, false);
    const Tensor inner = product_in_fp32(product);
    const GeluOf expected(inner);
    for (const HopperProductPlan& plan : kPlans) {
      SCOPED_TRACE(text(name_of(sizes), ", cluster ", plan.cluster, ", band ", plan.band));
      const Tensor kept = bf16_on_gpu(product.c.shape());
      ASSERT_TRUE(multiply_gelu_hopper(product, kept, plan));
      expect_close(kept, inner, "kept");
      expect_close(product.c, expected.value, "gelu");
      if (HasFatalFailure()) return;
      const auto bytes = bytes_of_tensor(product.c);
      product.c.fill_zero();
      ASSERT_TRUE(multiply_gelu_hopper(product, {}, plan));
      EXPECT_TRUE(bytes_of_tensor(product.c) == bytes) << "what is not kept changes the result";
    }
  }
}

TEST_F(GpuHopperProduct, GradientOfGelu) {
  for (const Sizes& sizes : all_sizes()) {
    const Product product = question(sizes, true);
    const Tensor kept = random_tensor(product.c.shape(), 2, 2);
    const Tensor expected = expected_grad(product, kept);
    for (const HopperProductPlan& plan : kPlans) {
      SCOPED_TRACE(text(name_of(sizes), ", cluster ", plan.cluster, ", band ", plan.band));
      ASSERT_TRUE(multiply_gelu_grad_hopper(product, kept, plan));
      expect_close(product.c, expected, "gradient");
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(GpuHopperProduct, WritesNothingBelowTheResult) {
  for (const std::int64_t m : {1, 120, 129, 200}) {
    const Sizes sizes{m, 512, 128};
    for (const bool grad : {false, true}) {
      const Tensor c = Tensor::zeros({m + 300, sizes.n}, DType::kBFloat16, Device::kCuda);
      const Tensor kept = Tensor::zeros_like(c);
      Product product = question(sizes, grad);
      product.c = c.slice(0, m);
      ASSERT_TRUE(grad ? multiply_gelu_grad_hopper(product, kept.slice(0, m))
                       : multiply_gelu_hopper(product, kept.slice(0, m)));
      for (const Tensor& tensor : {c, kept}) {
        const auto below = bytes_of_tensor(tensor.slice(m, 300));
        EXPECT_TRUE(std::all_of(below.begin(), below.end(), [](std::byte byte) {
          return byte == std::byte{0};
        })) << name_of(sizes);
      }
    }
  }
}

TEST_F(GpuHopperProduct, RepeatsByteForByte) {
  for (const Sizes& sizes : {Sizes{4096, 4096, 1024}, Sizes{1000, 512, 128}})
    for (const bool grad : {false, true}) {
      const Product product = question(sizes, grad);
      const Tensor kept = random_tensor(product.c.shape(), 2, 2);
      std::vector<std::byte> first[2];
      for (int repeat = 0; repeat < 10; ++repeat) {
        product.c.fill_zero();
        if (!grad) kept.fill_zero();
        ASSERT_TRUE(grad ? multiply_gelu_grad_hopper(product, kept)
                         : multiply_gelu_hopper(product, kept));
        const Tensor results[] = {product.c, kept};
        for (int i = 0; i < 2; ++i) {
          const auto bytes = bytes_of_tensor(results[i]);
          if (repeat == 0) first[i] = bytes;
          EXPECT_TRUE(bytes == first[i]) << name_of(sizes) << ", result " << i << " of " << repeat;
        }
      }
    }
}

TEST_F(GpuHopperProduct, RefusesWhatItHasNoKernelFor) {
  EXPECT_FALSE(multiply_gelu_hopper(question({128, 128, 64}, false), {}));
  EXPECT_FALSE(multiply_gelu_hopper(question({128, 256, 72}, false), {}));
  EXPECT_FALSE(multiply_gelu_hopper(question({128, 256, 64}, true), {}));
  Product product = question({128, 256, 64}, false);
  EXPECT_FALSE(multiply_gelu_grad_hopper(product, Tensor::empty_like(product.c)));
  product.accumulate = true;
  EXPECT_FALSE(multiply_gelu_hopper(product, {}));
  product.accumulate = false;
  for (Tensor* tensor : {&product.a, &product.b, &product.c}) *tensor = fp32(*tensor);
  EXPECT_FALSE(multiply_gelu_hopper(product, {}));
}

// Milliseconds on the device, the median of twenty.
template <class Function>
double milliseconds(Function function) {
  cudaEvent_t begin{}, end{};
  cuda_check(cudaEventCreate(&begin), "cudaEventCreate");
  cuda_check(cudaEventCreate(&end), "cudaEventCreate");
  std::vector<float> times;
  for (int i = 0; i < 23; ++i) {
    cuda_check(cudaEventRecord(begin, cuda_stream()), "cudaEventRecord");
    function();
    cuda_check(cudaEventRecord(end, cuda_stream()), "cudaEventRecord");
    cuda_check(cudaEventSynchronize(end), "cudaEventSynchronize");
    float elapsed = 0;
    cuda_check(cudaEventElapsedTime(&elapsed, begin, end), "cudaEventElapsedTime");
    if (i >= 3) times.push_back(elapsed);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

// The first rows again and again.
Tensor repeated(std::int64_t rows, std::int64_t width, std::uint32_t site) {
  constexpr std::int64_t kAtOnce = 1024;
  const Tensor some = random_tensor({kAtOnce, width}, 1, site);
  const Tensor all = bf16_on_gpu({rows, width});
  for (std::int64_t row = 0; row < rows; row += kAtOnce) all.slice(row, kAtOnce).copy_from(some);
  return all;
}

void print(const char* what, const Sizes& sizes, double time) {
  const double operations = 2.0 * sizes.m * sizes.n * sizes.k;
  std::printf("%-48s %8.4f ms %6.0f TFLOP/s\n", what, time, operations / time / 1e9);
}

TEST_F(GpuHopperProductSpeed, Prints) {
  const ProductKernels& library = cuda_product();
  for (const std::int64_t m : {131072, 8192}) {
    const Sizes sizes{m, 4096, 1024};
    std::printf("%s\n", name_of(sizes).c_str());
    const Tensor a = repeated(m, sizes.k, 0), c = bf16_on_gpu({m, sizes.n});
    const Tensor kept = repeated(m, sizes.n, 2);
    const double scale = 1 / std::sqrt(double(sizes.k));
    for (const bool grad : {false, true}) {
      const Product product{
          .a = a,
          .b = random_tensor(grad ? Shape{sizes.k, sizes.n} : Shape{sizes.n, sizes.k}, scale, 1),
          .c = c,
          .transpose_b = !grad};
      const char* const what = grad ? "(A B) gelu'(kept)" : "gelu(A B^T) and A B^T";
      print(grad ? "A B as configured" : "A B^T as configured", sizes,
            milliseconds([&] { library.multiply(product); }));
      print(text(what, " as configured").c_str(), sizes, milliseconds([&] {
              grad ? library.multiply_gelu_grad(product, kept)
                   : library.multiply_gelu(product, kept);
            }));
      for (const HopperProductPlan& plan : kPlans)
        print(text(what, ", cluster ", plan.cluster, ", band ", plan.band).c_str(), sizes,
              milliseconds([&] {
                grad ? multiply_gelu_grad_hopper(product, kept, plan)
                     : multiply_gelu_hopper(product, kept, plan);
              }));
      if (!grad)
        print("gelu(A B^T)", sizes, milliseconds([&] { multiply_gelu_hopper(product, {}); }));
    }
  }
}

}  // namespace
}  // namespace infini

#endif  // INFINI_CUDA
