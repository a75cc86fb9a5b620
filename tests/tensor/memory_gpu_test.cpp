// The memory's kernels for bf16 and the usual head widths on a GPU, against the CPU in fp32 from
// the same numbers. The op table asks the others.
#ifdef INFINI_CUDA

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tensor/ops/memory.h"
#include "tensor/ops/recall.h"
#include "tensor/ops/scan.h"
#include "tensor/random.h"
#include "tensor/system_memory.h"

namespace infini {
namespace {

constexpr double kTolerance = 1e-2;  // of norms: operands of bf16 products are rounded to 4e-3

const HeadLayout kLayouts[] = {
    {.batch = 1, .segments = 3, .tokens = 256, .heads = 2, .kv_heads = 2, .head_width = 128},
    {.batch = 1, .segments = 1, .tokens = 2048, .heads = 2, .kv_heads = 2, .head_width = 128},
    {.batch = 2, .segments = 3, .tokens = 200, .heads = 4, .kv_heads = 2, .head_width = 128},
    {.batch = 1, .segments = 2, .tokens = 330, .heads = 4, .kv_heads = 2, .head_width = 128},
    {.batch = 1, .segments = 3, .tokens = 1, .heads = 4, .kv_heads = 2, .head_width = 128},
    {.batch = 1, .segments = 1, .tokens = 200, .heads = 1, .kv_heads = 1, .head_width = 128},
    {.batch = 2, .segments = 3, .tokens = 200, .heads = 4, .kv_heads = 2, .head_width = 64},
    {.batch = 1, .segments = 2, .tokens = 70, .heads = 2, .kv_heads = 1, .head_width = 96},
    {.batch = 1, .segments = 2, .tokens = 70, .heads = 2, .kv_heads = 1, .head_width = 256},
};

class GpuMemoryKernels : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!is_available(Device::kCuda)) GTEST_SKIP() << "this machine has no GPU";
  }
};

Tensor random_tensor(const Shape& shape, double low, double high, std::uint32_t site) {
  const RandomKey key{.seed = 3, .site = site};
  std::vector<float> values(shape.size());
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(low + (high - low) * key.uniform(i));
  return Tensor::of(values, shape);
}
// Numbers that bf16 holds exactly.
Tensor random_activation(const Shape& shape, std::uint32_t site) {
  return random_tensor(shape, -1.5, 1.5, site).to(DType::kBFloat16).to(DType::kFloat32);
}
Tensor on_gpu(const Tensor& tensor) { return tensor ? tensor.to(Device::kCuda) : Tensor{}; }
Tensor rounded_on_gpu(const Tensor& tensor) { return on_gpu(tensor.to(DType::kBFloat16)); }

// What the first segment of each row finds in the memory: as much as the others; nothing; or so
// little that the least denominator counts there and nowhere else.
enum class FirstMemory { kFull, kEmpty, kYoung };

double least_denominator(FirstMemory first) { return first == FirstMemory::kYoung ? 10 : 1e-6; }

// That of the row's first segment in a state of the memory.
Tensor first_segment(const Tensor& state, const HeadLayout& n, std::int64_t row) {
  return state.slice(row, 1).reshape({n.segments, state.size() / n.batch / n.segments}).slice(0, 1);
}
// What a query reads of it is between 30 and 700, and a hundredth of that where it is young.
Tensor random_normalizer(const HeadLayout& n, FirstMemory first, std::uint32_t site) {
  const Tensor normalizer = random_tensor(n.normalizer_shape(), 0.5, 1.5, site);
  const Tensor young = random_tensor(n.normalizer_shape(), 0.005, 0.015, site);
  for (std::int64_t b = 0; first != FirstMemory::kFull && b < n.batch; ++b) {
    const Tensor begin = first_segment(normalizer, n, b);
    if (first == FirstMemory::kYoung)
      begin.copy_from(first_segment(young, n, b));
    else
      begin.fill_zero();
  }
  return normalizer;
}

// Every seventh token, and the first half of the first segment, is padding.
Tensor marks(const HeadLayout& n) {
  std::vector<std::uint8_t> keep(n.rows());
  for (std::int64_t r = 0; r < n.rows(); ++r) keep[r] = r % 7 != 2 && r >= n.tokens / 2;
  return Tensor::of(keep, {n.rows()});
}

std::string words(const HeadLayout& n) {
  return text(n.batch, " x ", n.segments, " segments of ", n.tokens, " tokens, ", n.heads, "/",
              n.kv_heads, " heads of ", n.head_width);
}

void expect_near(const Tensor& got, const Tensor& expected_tensor, const char* what,
                 double tolerance = kTolerance) {
  const auto values = got.to(Device::kCpu).to_vector<double>();
  const auto expected = expected_tensor.to_vector<double>();
  ASSERT_EQ(values.size(), expected.size()) << what;
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    error += (values[i] - expected[i]) * (values[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  EXPECT_LE(std::sqrt(error), tolerance * std::sqrt(norm)) << what;
}

// A gradient that a kernel is to write or to add to: random numbers stand there before.
struct Target {
  Tensor before, tensor;
  Columns columns;
  bool accumulate;

  Target(const Shape& shape, DType dtype, Columns some, bool add)
      : before(random_activation(shape, 90).to(dtype)),
        tensor(on_gpu(before)),
        columns(some),
        accumulate(add) {}
  GradTarget target() const { return {.tensor = tensor, .accumulate = accumulate}; }

  // That `expected` was written or added in the columns, and nothing elsewhere.
  void expect(const Tensor& expected, const char* what) const {
    const std::int64_t width = before.shape()[-1];
    const auto got = tensor.to(Device::kCpu).to_vector<double>();
    const auto stood = before.to_vector<double>(), exact = expected.to_vector<double>();
    double error = 0, norm = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      const std::int64_t column = static_cast<std::int64_t>(i) % width;
      if (column < columns.begin || column >= columns.end) {
        ASSERT_EQ(got[i], stood[i]) << what << " touched column " << column;
        continue;
      }
      const double difference = got[i] - exact[i] - (accumulate ? stood[i] : 0);
      error += difference * difference;
      norm += exact[i] * exact[i] + (accumulate ? stood[i] * stood[i] : 0);
    }
    EXPECT_LE(std::sqrt(error), kTolerance * std::sqrt(norm)) << what;
  }
};

void expect_same_bytes(const Tensor& a, const Tensor& b, const char* what) {
  const Tensor here = a.to(Device::kCpu), there = b.to(Device::kCpu);
  EXPECT_EQ(std::memcmp(here.raw(), there.raw(), here.bytes()), 0) << what;
}

TEST_F(GpuMemoryKernels, SumTokensAsTheCpuDoes) {
  for (const HeadLayout& n : kLayouts)
    for (const bool padded : {false, true}) {
      SCOPED_TRACE(words(n) + (padded ? ", padded" : ""));
      const Tensor qkv = random_activation({n.rows(), n.qkv_width()}, 1);
      const Tensor keep = padded ? marks(n) : Tensor{};
      const Tensor dmatrix = random_tensor(n.matrix_shape(), -1, 1, 2);
      const Tensor dnormalizer = random_tensor(n.normalizer_shape(), -9, 9, 3);
      Tape tape;
      const Tensor watched = tape.watch(qkv);
      const MemorySums expected = memory_sums(watched, keep, n);
      tape.seed(expected.matrix, dmatrix);
      tape.seed(expected.normalizer, dnormalizer);
      tape.backward();

      const Tensor there = rounded_on_gpu(qkv), marks_there = on_gpu(keep);
      const MemorySums got = memory_sums(there, marks_there, n);
      expect_near(got.matrix, expected.matrix, "matrix");
      expect_near(got.normalizer, expected.normalizer, "normalizer");
      const MemorySums again = memory_sums(there, marks_there, n);
      expect_same_bytes(got.matrix, again.matrix, "matrix");
      expect_same_bytes(got.normalizer, again.normalizer, "normalizer");
      for (const bool accumulate : {false, true}) {
        const Target dqkv(qkv.shape(), DType::kBFloat16, n.key_value_columns(), accumulate);
        cuda_memory().sums_grad({.qkv = there,
                                 .keep = marks_there,
                                 .layout = n,
                                 .dmatrix = on_gpu(dmatrix),
                                 .dnormalizer = on_gpu(dnormalizer),
                                 .dqkv = dqkv.target()});
        dqkv.expect(tape.gradient(watched), "dqkv");
      }
    }
}

TEST_F(GpuMemoryKernels, SumTokensWhoseGradientComesByOneOutput) {
  const HeadLayout n = kLayouts[2];
  const Tensor qkv = random_activation({n.rows(), n.qkv_width()}, 1);
  for (const bool by_matrix : {false, true}) {
    const Shape shape = by_matrix ? n.matrix_shape() : n.normalizer_shape();
    const Tensor upstream = random_tensor(shape, -1, 1, 2);
    Tape tape;
    const Tensor watched = tape.watch(qkv);
    const MemorySums sums = memory_sums(watched, {}, n);
    tape.seed(by_matrix ? sums.matrix : sums.normalizer, upstream);
    tape.backward();
    const Target dqkv(qkv.shape(), DType::kBFloat16, n.key_value_columns(), false);
    cuda_memory().sums_grad({.qkv = rounded_on_gpu(qkv),
                             .keep = {},
                             .layout = n,
                             .dmatrix = by_matrix ? on_gpu(upstream) : Tensor{},
                             .dnormalizer = by_matrix ? Tensor{} : on_gpu(upstream),
                             .dqkv = dqkv.target()});
    dqkv.expect(tape.gradient(watched), by_matrix ? "by the matrix" : "by the normalizer");
  }
}

TEST_F(GpuMemoryKernels, OverlapTokensAsTheCpuDoes) {
  for (const HeadLayout& n : kLayouts)
    for (const bool padded : {false, true}) {
      SCOPED_TRACE(words(n) + (padded ? ", padded" : ""));
      const FirstMemory first = padded ? FirstMemory::kYoung : FirstMemory::kFull;
      const double eps = least_denominator(first);
      const Tensor qkv = random_activation({n.rows(), n.qkv_width()}, 1);
      const Tensor keep = padded ? marks(n) : Tensor{};
      const Tensor normalizer = random_normalizer(n, first, 2);
      const Tensor doverlap = random_tensor(n.matrix_shape(), -1, 1, 3);
      Tape tape;
      const Tensor watched = tape.watch(qkv), z = tape.watch(normalizer);
      const Tensor expected = memory_overlap(watched, keep, z, n, eps);
      tape.seed(expected, doverlap);
      tape.backward();

      const Tensor there = rounded_on_gpu(qkv), marks_there = on_gpu(keep);
      const Tensor z_there = on_gpu(normalizer);
      const Tensor got = memory_overlap(there, marks_there, z_there, n, eps);
      expect_near(got, expected, "overlap");
      expect_same_bytes(got, memory_overlap(there, marks_there, z_there, n, eps), "overlap");
      for (const bool accumulate : {false, true}) {
        const Target dqkv(qkv.shape(), DType::kBFloat16, n.key_columns(), accumulate);
        const Target dz(z.shape(), DType::kFloat32, {0, n.head_width}, accumulate);
        cuda_memory().overlap_grad({.qkv = there,
                                    .keep = marks_there,
                                    .normalizer = z_there,
                                    .layout = n,
                                    .eps = eps,
                                    .doverlap = on_gpu(doverlap),
                                    .dqkv = dqkv.target(),
                                    .dnormalizer = dz.target()});
        dqkv.expect(tape.gradient(watched), "dqkv");
        dz.expect(tape.gradient(z), "dnormalizer");
      }
    }
}

void check_recall(const HeadLayout& n, FirstMemory first_memory) {
  const RecallOptions options{.eps = least_denominator(first_memory),
                              .bypass_empty = first_memory == FirstMemory::kEmpty};
  const Tensor inputs[] = {
      random_activation({n.rows(), n.qkv_width()}, 1),
      random_tensor(n.matrix_shape(), -1.5, 1.5, 2), random_normalizer(n, first_memory, 3),
      random_tensor({n.heads}, -1.5, 1.5, 4), random_activation({n.rows(), n.query_width()}, 5)};
  for (std::int64_t b = 0; first_memory == FirstMemory::kEmpty && b < n.batch; ++b)
    first_segment(inputs[1], n, b).fill_zero();
  const Tensor dy = random_activation({n.rows(), n.query_width()}, 6);
  Tape tape;
  std::vector<Tensor> in, there;
  for (const Tensor& input : inputs) in.push_back(tape.watch(input));
  const Tensor expected = memory_recall(in[0], in[1], in[2], in[3], in[4], n, options);
  tape.seed(expected, dy);
  tape.backward();

  for (const Tensor& input : inputs)
    there.push_back(&input == &inputs[0] || &input == &inputs[4] ? rounded_on_gpu(input)
                                                                 : on_gpu(input));
  const auto recall = [&] {
    return memory_recall(there[0], there[1], there[2], there[3], there[4], n, options);
  };
  const Tensor y = recall();
  expect_near(y, expected, "y");
  expect_same_bytes(y, recall(), "y");
  for (const bool accumulate : {false, true}) {
    std::vector<Target> first;
    for (const int repeat : {0, 1}) {
      const Columns all{0, 1 << 20};
      const std::vector<Target> targets{
          {inputs[0].shape(), DType::kBFloat16, n.query_columns(), accumulate},
          {inputs[1].shape(), DType::kFloat32, all, accumulate},
          {inputs[2].shape(), DType::kFloat32, all, accumulate},
          {inputs[3].shape(), DType::kFloat32, all, accumulate},
          {inputs[4].shape(), DType::kBFloat16, all, accumulate}};
      cuda_recall().recall_grad({.qkv = there[0],
                                 .matrix = there[1],
                                 .normalizer = there[2],
                                 .gate = there[3],
                                 .local = there[4],
                                 .layout = n,
                                 .options = options,
                                 .dy = rounded_on_gpu(dy),
                                 .dqkv = targets[0].target(),
                                 .dmatrix = targets[1].target(),
                                 .dnormalizer = targets[2].target(),
                                 .dgate = targets[3].target(),
                                 .dlocal = targets[4].target()});
      const char* const names[] = {"dqkv", "dmatrix", "dnormalizer", "dgate", "dlocal"};
      for (int i = 0; i < 5; ++i) {
        if (repeat == 0)
          targets[i].expect(tape.gradient(in[i]), names[i]);
        else
          expect_same_bytes(targets[i].tensor, first[i].tensor, names[i]);
      }
      first = targets;
    }
  }
}

TEST_F(GpuMemoryKernels, RecallAsTheCpuDoes) {
  for (const HeadLayout& n : kLayouts) {
    SCOPED_TRACE(words(n));
    for (const FirstMemory first : {FirstMemory::kFull, FirstMemory::kYoung})
      check_recall(n, first);
  }
}

TEST_F(GpuMemoryKernels, BypassAnEmptyMemoryAsTheCpuDoes) {
  for (const HeadLayout& n : {kLayouts[0], kLayouts[2]}) {
    SCOPED_TRACE(words(n));
    check_recall(n, FirstMemory::kEmpty);
  }
}

// Overlaps are small, as those of normalised keys are, so that the state stays in range.
TEST_F(GpuMemoryKernels, ScanWideHeadsAsTheCpuDoes) {
  for (const std::int64_t width : {64, 96, 128, 130, 256})
    for (const DType dtype : {DType::kFloat32, DType::kFloat64}) {
      SCOPED_TRACE(text(dtype, ", heads of ", width));
      const Shape sums{2, 3, 2, width, width}, state{2, 2, width, width};
      const Tensor inputs[] = {random_tensor(sums, -0.1, 0.1, 1).to(dtype),
                               random_tensor(sums, -1, 1, 2).to(dtype),
                               random_tensor(state, -1, 1, 3).to(dtype)};
      const Tensor dbefore = random_tensor(sums, -1, 1, 4).to(dtype);
      const Tensor dafter = random_tensor(state, -1, 1, 5).to(dtype);
      const Tensor resets = Tensor::of(std::vector<std::uint8_t>{0, 0, 0, 0, 0, 1}, {2, 3});
      const auto run = [&](Device device) {
        Tape tape;
        std::vector<Tensor> in;
        for (const Tensor& input : inputs) in.push_back(tape.watch(input.to(device)));
        const Scan out =
            affine_scan(in[0], in[1], in[2], {.resets = resets.to(device), .detach = {0, 1, 0}});
        tape.seed(out.before, dbefore.to(device));
        tape.seed(out.after, dafter.to(device));
        tape.backward();
        return std::vector{out.before, out.after, tape.gradient(in[0]), tape.gradient(in[1]),
                           tape.gradient(in[2])};
      };
      const auto expected = run(Device::kCpu), got = run(Device::kCuda);
      const char* const names[] = {"before", "after", "doverlap", "dsums", "dinitial"};
      for (std::size_t i = 0; i < got.size(); ++i)
        expect_near(got[i], expected[i], names[i], dtype == DType::kFloat32 ? 1e-5 : 1e-13);
    }
}

TEST_F(GpuMemoryKernels, GiveNoGradientThatNobodyAskedFor) {
  const HeadLayout n = kLayouts[2];
  const Tensor qkv = rounded_on_gpu(random_activation({n.rows(), n.qkv_width()}, 1));
  const Tensor rows = rounded_on_gpu(random_activation({n.rows(), n.query_width()}, 2));
  const Tensor matrix = on_gpu(random_tensor(n.matrix_shape(), -1, 1, 3));
  const Tensor normalizer = on_gpu(random_tensor(n.normalizer_shape(), 0.5, 1.5, 4));
  const Tensor gate = on_gpu(random_tensor({n.heads}, -1, 1, 5));
  cuda_recall().recall_grad({.qkv = qkv,
                             .matrix = matrix,
                             .normalizer = normalizer,
                             .gate = gate,
                             .local = rows,
                             .layout = n,
                             .options = {},
                             .dy = rows,
                             .dqkv = {},
                             .dmatrix = {},
                             .dnormalizer = {},
                             .dgate = {},
                             .dlocal = {}});
  cuda_memory().overlap_grad({.qkv = qkv,
                              .keep = {},
                              .normalizer = normalizer,
                              .layout = n,
                              .eps = 1e-6,
                              .doverlap = matrix,
                              .dqkv = {},
                              .dnormalizer = {}});
  EXPECT_NO_THROW(synchronize(Device::kCuda));
}

}  // namespace
}  // namespace infini

#endif  // INFINI_CUDA
