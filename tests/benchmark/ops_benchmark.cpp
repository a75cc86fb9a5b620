// Time of each op of the model, forward and backward, on shapes of a small model:
//   build/release/tests/ops_benchmark --benchmark_filter=memory
#include <benchmark/benchmark.h>

#include <functional>

#include "tensor/ops/activation.h"
#include "tensor/ops/attention.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/memory.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/product.h"
#include "tensor/ops/recall.h"
#include "tensor/ops/rotary.h"
#include "tensor/random.h"

namespace infini {
namespace {

constexpr HeadLayout kLayout{
    .batch = 2, .segments = 4, .tokens = 256, .heads = 6, .kv_heads = 6, .head_width = 64};
constexpr std::int64_t kWidth = 384, kInner = 1536;

Tensor random_tensor(const Shape& shape, DType dtype) {
  std::vector<double> values(shape.size());
  const RandomKey key{.seed = 1, .step = 0, .site = static_cast<std::uint32_t>(shape.size())};
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = key.normal(i);
  return Tensor::of(values, shape).to(dtype);
}

using Op = std::function<Tensor(const Tensor& x)>;

// One pass over x [R, width] and back, with the gradient of x.
void run(benchmark::State& state, std::int64_t width, DType dtype, const Op& op) {
  const Tensor x = random_tensor({kLayout.rows(), width}, dtype);
  for (auto _ : state) {
    Tape tape;
    const Tensor y = op(tape.watch(x));
    tape.seed(y, y.unwatched());
    tape.backward();
  }
  state.SetItemsProcessed(state.iterations() * kLayout.rows());
}

void register_all(DType dtype) {
  const DType full = accumulator_of(dtype);
  const auto add = [&](const std::string& name, std::int64_t width, const Op& op) {
    benchmark::RegisterBenchmark(text(name, "/", dtype).c_str(),
                                 [=](benchmark::State& state) { run(state, width, dtype, op); })
        ->Unit(benchmark::kMillisecond)
        ->UseRealTime();
  };
  const Tensor weight = random_tensor({kInner, kWidth}, dtype);
  const Tensor norm_weight = random_tensor({kWidth}, full);
  const Tensor table = rotary_table(kLayout.tokens, kLayout.head_width, 10000, full, Device::kCpu);
  const Tensor qkv = random_tensor({kLayout.rows(), kLayout.qkv_width()}, dtype);
  const Tensor local = random_tensor({kLayout.rows(), kLayout.query_width()}, dtype);
  const Tensor gate = random_tensor({kLayout.heads}, full);
  const MemorySums memory = memory_sums(qkv, {}, kLayout);

  add("linear", kWidth, [=](const Tensor& x) { return linear(x, weight); });
  add("rms_norm", kWidth, [=](const Tensor& x) { return rms_norm(x, norm_weight, 1e-6); });
  add("gelu", kInner, [](const Tensor& x) { return gelu(x); });
  add("rotate", kLayout.qkv_width(), [=](const Tensor& x) { return rotate(x, table, kLayout); });
  add("local_attention", kLayout.qkv_width(), [=](const Tensor& x) {
    return local_attention(rotate(x, table, kLayout), x, kLayout, 0.125);
  });
  add("memory_sums", kLayout.qkv_width(),
      [](const Tensor& x) { return memory_sums(x, {}, kLayout).matrix; });
  add("memory_overlap", kLayout.qkv_width(),
      [=](const Tensor& x) { return memory_overlap(x, {}, memory.normalizer, kLayout, 1e-6); });
  add("memory_recall", kLayout.qkv_width(), [=](const Tensor& x) {
    return memory_recall(x, memory.matrix, memory.normalizer, gate, local, kLayout, {});
  });
}

}  // namespace
}  // namespace infini

int main(int argc, char** argv) {
  infini::register_all(infini::DType::kFloat32);
  infini::register_all(infini::DType::kBFloat16);
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
