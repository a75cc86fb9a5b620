// The kernels that only move memory, on a GPU against the CPU at the sizes of real models.
#ifdef INFINI_CUDA

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "tensor/ops/activation.h"
#include "tensor/ops/cross_entropy.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/embedding.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/rotary.h"
#include "tensor/system_memory.h"

namespace infini {
namespace {

constexpr DType kTypes[] = {DType::kFloat64, DType::kFloat32, DType::kBFloat16};
constexpr double kInfinity = std::numeric_limits<double>::infinity();

class GpuKernels : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!is_available(Device::kCuda)) GTEST_SKIP() << "this machine has no GPU";
  }
};

// A generator of its own (splitmix64), because tests here draw a thousand million numbers.
std::vector<double> random_values(std::int64_t count, std::uint64_t site, double size = 2) {
  std::vector<double> values(count);
  std::uint64_t state = site << 32;
  for (double& value : values) {
    std::uint64_t word = state += 0x9E3779B97F4A7C15;
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9;
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB;
    value = size * (static_cast<double>(word >> 11) * 0x1p-52 - 1);
  }
  return values;
}

Tensor random_tensor(const Shape& shape, DType dtype, std::uint64_t site, double size = 2) {
  return Tensor::of(random_values(shape.size(), site, size), shape).to(dtype);
}

std::vector<double> numbers(const Tensor& tensor) {
  return tensor.to(Device::kCpu).to_vector<double>();
}

double tolerance(DType dtype) {
  return dtype == DType::kFloat64 ? 1e-12 : dtype == DType::kFloat32 ? 1e-5 : 1.5e-2;
}

// The largest difference is within `bound` of the largest number expected.
void expect_near(const Tensor& got, const std::vector<double>& expected, double bound,
                 const std::string& what) {
  const std::vector<double> values = numbers(got);
  ASSERT_EQ(values.size(), expected.size()) << what;
  double largest = 1e-30, difference = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double apart = std::fabs(values[i] - expected[i]);
    largest = std::max(largest, std::fabs(expected[i]));
    difference = std::isnan(apart) ? kInfinity : std::max(difference, apart);
  }
  EXPECT_LE(difference / largest, bound) << what << " " << got.dtype() << got.shape();
}

void expect_same_bytes(const Tensor& a, const Tensor& b, const std::string& what) {
  const Tensor x = a.to(Device::kCpu), y = b.to(Device::kCpu);
  EXPECT_TRUE(x.bytes() == y.bytes() && std::equal(x.raw(), x.raw() + x.bytes(), y.raw()))
      << what << " " << a.dtype() << a.shape();
}

struct Input {
  Tensor value;
  bool is_weight = false;  // its gradient is in the accumulator type
};
using Op = std::function<std::vector<Tensor>(const std::vector<Tensor>&)>;

// Outputs, then gradients. Gradients are added to random numbers, or overwrite.
std::vector<Tensor> run(Device device, const Op& op, const std::vector<Input>& inputs,
                        bool accumulate) {
  Tape tape;
  std::vector<Tensor> watched;
  for (const auto& [value, is_weight] : inputs) {
    const DType type = is_weight ? accumulator_of(value.dtype()) : value.dtype();
    const Tensor there = value.to(device);
    const Tensor stands = random_tensor(value.shape(), type, 100 + watched.size());
    if (accumulate)
      watched.push_back(tape.watch(there, stands.to(device)));
    else if (is_weight)
      watched.push_back(tape.watch(there, Tensor::zeros(value.shape(), type, device)));
    else
      watched.push_back(tape.watch(there));
  }
  std::vector<Tensor> results = op(watched);
  const std::size_t outputs = results.size();
  for (std::size_t i = 0; i < outputs; ++i) {
    const Tensor& y = results[i];
    tape.seed(y, random_tensor(y.shape(), y.dtype(), 200 + i, 1).to(device));
  }
  tape.backward();
  for (const Tensor& input : watched) results.push_back(tape.gradient(input));
  return results;
}

void expect_same_on_gpu(const Op& op, const std::vector<Input>& inputs) {
  for (const bool accumulate : {false, true}) {
    SCOPED_TRACE(text(accumulate ? "added, " : "overwritten, ", inputs[0].value.dtype(),
                      inputs[0].value.shape()));
    const auto expected = run(Device::kCpu, op, inputs, accumulate);
    const auto got = run(Device::kCuda, op, inputs, accumulate);
    const auto again = run(Device::kCuda, op, inputs, accumulate);
    ASSERT_EQ(got.size(), expected.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      const std::string what = text("result ", i);
      expect_near(got[i], numbers(expected[i]), tolerance(inputs[0].value.dtype()), what);
      expect_same_bytes(got[i], again[i], what);
    }
  }
}

// Widths in registers of one warp and of many, of odd numbers, and too wide for registers.
const Shape kRows[] = {{2503, 1024}, {517, 4096}, {333, 1000}, {2051, 7},
                       {1, 7},       {67, 2048},  {67, 14336}, {5, 40000}};

TEST_F(GpuKernels, NormalizeRowsOfAnyWidth) {
  for (const DType dtype : kTypes)
    for (const Shape& shape : kRows)
      expect_same_on_gpu(
          [](const std::vector<Tensor>& in) { return std::vector{rms_norm(in[0], in[1], 1e-5)}; },
          {{random_tensor(shape, dtype, 1)},
           {random_tensor({shape[1]}, accumulator_of(dtype), 2)}});
}

TEST_F(GpuKernels, NormalizeWhatHasAGradientAlready) {
  const Op both = [](const std::vector<Tensor>& in) {
    return std::vector{rms_norm(in[0], in[1], 1e-5), relu(in[0])};
  };
  for (const DType dtype : kTypes)
    for (const Shape& shape : kRows)
      expect_same_on_gpu(both, {{random_tensor(shape, dtype, 1)},
                                {random_tensor({shape[1]}, accumulator_of(dtype), 3)}});
}

TEST_F(GpuKernels, ActivateAnyNumberOfElements) {
  const Op ops[] = {[](const std::vector<Tensor>& in) { return std::vector{relu(in[0])}; },
                    [](const std::vector<Tensor>& in) { return std::vector{gelu(in[0])}; },
                    [](const std::vector<Tensor>& in) { return std::vector{swiglu(in[0])}; },
                    [](const std::vector<Tensor>& in) { return std::vector{geglu(in[0])}; }};
  for (const DType dtype : kTypes)
    for (const Shape& shape : {Shape{1003, 2000}, {67, 28672}, {129, 8192}, {37, 14}, {1, 2}})
      for (const Op& op : ops) expect_same_on_gpu(op, {{random_tensor(shape, dtype, 1, 6)}});
}

const HeadLayout kLayouts[] = {
    {.batch = 2, .segments = 3, .tokens = 37, .heads = 16, .kv_heads = 16, .head_width = 64},
    {.batch = 1, .segments = 2, .tokens = 61, .heads = 32, .kv_heads = 8, .head_width = 128},
    {.batch = 3, .segments = 1, .tokens = 29, .heads = 3, .kv_heads = 1, .head_width = 6},
    {.batch = 1, .segments = 1, .tokens = 5, .heads = 2, .kv_heads = 1, .head_width = 1000}};

TEST_F(GpuKernels, RotateHeadsOfAnyWidth) {
  for (const DType dtype : kTypes)
    for (const HeadLayout& layout : kLayouts)
      expect_same_on_gpu(
          [&](const std::vector<Tensor>& in) {
            const Tensor table = rotary_table(layout.tokens + 3, layout.head_width, 1e4,
                                              accumulator_of(dtype), in[0].device());
            return std::vector{rotate(in[0], table, layout, 3)};
          },
          {{random_tensor({layout.rows(), layout.qkv_width()}, dtype, 1)}});
}

TEST_F(GpuKernels, RotateGradientsIntoColumnsThatAddOrNotEachForItself) {
  for (const HeadLayout& layout : kLayouts) {
    const Tensor table =
        rotary_table(layout.tokens, layout.head_width, 1e4, DType::kFloat32, Device::kCuda);
    const Tensor drotated =
        random_tensor({layout.rows(), layout.rotated_width()}, DType::kFloat32, 1);
    const Tensor stands = random_tensor({layout.rows(), layout.qkv_width()}, DType::kFloat32, 2);
    const auto gradient = [&](bool add_queries, bool add_keys) {
      const Tensor dqkv = stands.to(Device::kCuda);
      cuda_rotary().rotate_grad({.drotated = drotated.to(Device::kCuda),
                                 .table = table,
                                 .layout = layout,
                                 .first_position = 0,
                                 .dqueries = {dqkv, add_queries},
                                 .dkeys = {dqkv, add_keys}});
      return dqkv;
    };
    const std::vector<double> fresh = numbers(gradient(false, false)), old = numbers(stands);
    for (const auto& [add_queries, add_keys] :
         {std::pair{true, false}, {false, true}, {true, true}, {false, false}}) {
      std::vector<double> expected = fresh;
      for (std::int64_t i = 0; i < stands.size(); ++i) {
        const std::int64_t column = i % layout.qkv_width();
        if (column >= layout.rotated_width())
          expected[i] = old[i];
        else if (column < layout.query_width() ? add_queries : add_keys)
          expected[i] += old[i];
      }
      expect_near(gradient(add_queries, add_keys), expected, 1e-6, "dqkv");
    }
  }
}

// Token ids whose runs end at, before and after the borders that a kernel might cut at.
std::vector<std::vector<std::int32_t>> token_lists(std::int32_t vocabulary) {
  const std::vector<double> random = random_values(2003, 9, 1000);
  const auto list = [&](std::int64_t count, auto id) {
    std::vector<std::int32_t> ids(count);
    for (std::int64_t i = 0; i < count; ++i) ids[i] = static_cast<std::int32_t>(id(i)) % vocabulary;
    return ids;
  };
  return {list(2003, [&](auto i) { return random[i] < 200 ? 3 : random[i] * 97; }),
          list(2003, [](auto) { return 1; }),
          list(64, [](auto) { return 5; }),
          list(33, [](auto i) { return i / 32; }),
          list(1280, [](auto i) { return i / 32; }),
          list(1280, [](auto i) { return 40 - i / 48; }),
          list(1281, [](auto i) { return i % 20; }),
          list(1, [](auto) { return 0; })};
}

TEST_F(GpuKernels, GatherAndAddRowsOfATable) {
  for (const DType dtype : kTypes)
    for (const auto& [vocabulary, width] :
         {std::pair{32000, 64}, {1000, 1024}, {61, 1000}, {61, 2048}, {61, 7}, {1, 8}})
      for (const std::vector<std::int32_t>& ids : token_lists(vocabulary)) {
        SCOPED_TRACE(text(ids.size(), " tokens of ", vocabulary));
        const Tensor tokens = Tensor::of(ids, {static_cast<std::int64_t>(ids.size())});
        expect_same_on_gpu(
            [&](const std::vector<Tensor>& in) {
              return std::vector{embedding(tokens.to(in[0].device()), in[0])};
            },
            {{random_tensor({vocabulary, width}, dtype, 1), true}});
      }
}

// Rounded once, whatever the number of rows.
TEST_F(GpuKernels, AddRowsToATableInTheTypeOfTheRows) {
  const std::vector<std::int32_t> ids = token_lists(61)[0];
  const Tensor tokens = Tensor::of(ids, {static_cast<std::int64_t>(ids.size())}).to(Device::kCuda);
  for (const std::int64_t width : {1024, 7}) {
    const Tensor dy = random_tensor({tokens.size(), width}, DType::kBFloat16, 1).to(Device::kCuda);
    const auto gradient = [&](DType dtype) {
      const Tensor dtable = Tensor::zeros({61, width}, dtype, Device::kCuda);
      cuda_embedding().embedding_grad(tokens, 0, 61, dy, dtable);
      return dtable;
    };
    expect_near(gradient(DType::kBFloat16), numbers(gradient(DType::kFloat32)), 4e-3, "dtable");
  }
}

// In fp64, from the logits as they are: nll, then dlogits.
std::array<std::vector<double>, 2> softmax_loss(const Tensor& logits,
                                                const std::vector<std::int32_t>& targets,
                                                const std::vector<float>& weights, double scale) {
  const auto [rows, width] = logits.dims<2>();
  const std::vector<double> values = numbers(logits);
  std::vector<double> nll(rows), dlogits(rows * width);
  for (std::int64_t r = 0; r < rows; ++r) {
    if (targets[r] < 0) continue;
    const double* const row = values.data() + r * width;
    const double highest = *std::max_element(row, row + width);
    double sum = 0;
    for (std::int64_t n = 0; n < width; ++n) sum += std::exp(row[n] - highest);
    nll[r] = highest + std::log(sum) - row[targets[r]];
    const double factor = scale * (weights.empty() ? 1 : weights[r]);
    for (std::int64_t n = 0; n < width; ++n)
      dlogits[r * width + n] = factor * (std::exp(row[n] - highest) / sum - (n == targets[r]));
  }
  return {nll, dlogits};
}

TEST_F(GpuKernels, TurnLogitsIntoLossAndGradient) {
  struct Case {
    DType logits, dlogits;
    bool in_place, wanted;
  };
  const Case cases[] = {{DType::kBFloat16, DType::kBFloat16, true, true},
                        {DType::kFloat32, DType::kFloat32, true, true},
                        {DType::kFloat32, DType::kBFloat16, false, true},
                        {DType::kFloat64, DType::kFloat64, true, true},
                        {DType::kBFloat16, DType::kBFloat16, false, false},
                        {DType::kFloat32, DType::kFloat32, false, false}};
  for (const auto& [rows, width] : std::initializer_list<std::pair<std::int64_t, std::int64_t>>{
           {37, 32000}, {5, 131073}, {3, 131072}, {3, 300000}, {131, 1000}, {131, 7}, {1, 1}})
    for (const Case& each : cases)
      for (const bool weighted : {false, true}) {
        SCOPED_TRACE(text(rows, " rows of ", width, " ", each.logits, " to ", each.dlogits,
                          each.wanted ? "" : ", loss alone", weighted ? ", weighted" : ""));
        std::vector<double> values = random_values(rows * width, 1, 8);
        if (width > 100)  // nothing but -infinity in the first half of the last row
          std::fill_n(values.begin() + (rows - 1) * width, width / 2, -kInfinity);
        const Tensor logits = Tensor::of(values, {rows, width}).to(each.logits);
        std::vector<std::int32_t> targets(rows);
        std::vector<float> weights;
        for (std::int64_t r = 0; r < rows; ++r) {
          targets[r] = r % 5 == 1 ? -1 : static_cast<std::int32_t>(width - 1 - r * 7 % width / 3);
          if (weighted) weights.push_back(0.5f * (1 + r % 3));
        }
        const auto [nll, dlogits] = softmax_loss(logits, targets, weights, 0.25);

        const auto chunk = [&] {
          const Tensor there = logits.to(Device::kCuda);
          const Tensor losses = Tensor::empty({rows}, accumulator_of(each.logits), Device::kCuda);
          const Tensor apart = Tensor::empty({rows, width}, each.dlogits, Device::kCuda);
          const Tensor gradient = !each.wanted ? Tensor{} : each.in_place ? there : apart;
          cuda_cross_entropy().chunk(
              {.logits = there,
               .targets = Tensor::of(targets, {rows}).to(Device::kCuda),
               .weights = weighted ? Tensor::of(weights, {rows}).to(Device::kCuda) : Tensor{},
               .scale = 0.25,
               .nll = losses,
               .dlogits = gradient});
          return std::pair{losses, gradient};
        };
        const auto got = chunk(), again = chunk();
        expect_near(got.first, nll, tolerance(accumulator_of(each.logits)), "nll");
        expect_same_bytes(got.first, again.first, "nll");
        if (!each.wanted) continue;
        expect_near(got.second, dlogits, tolerance(each.dlogits), "dlogits");
        expect_same_bytes(got.second, again.second, "dlogits");
      }
}

TEST_F(GpuKernels, AddUpLossesInFp64) {
  for (const std::int64_t rows : {1, 4096, 4097, 1000003})
    for (const bool weighted : {false, true}) {
      const Tensor nll = random_tensor({rows}, DType::kFloat32, 1, 5);
      const Tensor weights = random_tensor({rows}, DType::kFloat32, 2, 1);
      const std::vector<double> each = numbers(nll), factors = numbers(weights);
      double expected = 0;
      for (std::int64_t r = 0; r < rows; ++r) expected += each[r] * (weighted ? factors[r] : 1);
      const auto loss = [&] {
        const Tensor total = Tensor::empty({}, DType::kFloat32, Device::kCuda);
        const Tensor factor = weighted ? weights.to(Device::kCuda) : Tensor{};
        cuda_cross_entropy().loss(nll.to(Device::kCuda), factor, 0.125, total);
        return total;
      };
      expect_near(loss(), {expected * 0.125}, 1e-6, "loss");
      expect_same_bytes(loss(), loss(), "loss");
    }
}

TEST_F(GpuKernels, AddOneTypeIntoAnotherAsTheCpuDoes) {
  for (const DType to : kTypes)
    for (const DType from : kTypes)
      for (const bool accumulate : {false, true})
        for (const std::int64_t begin : {0, 1}) {  // at 1 nothing is aligned
          const auto sum = [&](Device device) {
            const Tensor target = random_tensor({100003}, to, 1).to(device);
            const Tensor source = random_tensor({100003}, from, 2).to(device);
            add_into({target.slice(begin, 100001), accumulate}, source.slice(begin, 100001));
            return target;
          };
          expect_same_bytes(sum(Device::kCuda), sum(Device::kCpu), text(from, " into ", to));
        }
}

TEST_F(GpuKernels, SumInAnOrderThatIsTheSameEverywhereInMemory) {
  for (const DType dtype : kTypes)
    for (const std::int64_t count : {0, 1, 7, 1000, 270337, 5000011}) {
      SCOPED_TRACE(text(count, " of ", dtype));
      const Tensor values = random_tensor({count + 1}, dtype, 1).slice(1, count);
      const Tensor here = values.clone(), there = here.to(Device::kCuda);
      const Tensor apart = Tensor::empty({count + 1}, dtype, Device::kCuda).slice(1, count);
      apart.copy_from(there);
      const double bound = 1e-13 * static_cast<double>(count + 1);
      EXPECT_NEAR(numbers(sum(there))[0], numbers(sum(here))[0], bound);
      EXPECT_NEAR(numbers(square_sum(there))[0], numbers(square_sum(here))[0], bound);
      expect_same_bytes(sum(there), sum(apart), "sum");
      expect_same_bytes(square_sum(there), square_sum(there), "sum of squares");
    }
}

TEST_F(GpuKernels, SumLetsNotANumberAndInfinityThrough) {
  for (const double odd : {kInfinity, std::nan("")}) {
    std::vector<double> values(10001, 1.0);
    values[9999] = odd;
    const Tensor there = Tensor::of(values, {10001}).to(Device::kCuda);
    EXPECT_FALSE(std::isfinite(numbers(sum(there))[0] + numbers(square_sum(there))[0]));
  }
}

}  // namespace
}  // namespace infini

#endif  // INFINI_CUDA
