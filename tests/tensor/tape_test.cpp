#include "tensor/tape.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tensor/ops/activation.h"
#include "tensor/ops/columns.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/product.h"

namespace infini {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::ThrowsMessage;

Tensor row(const std::vector<double>& values) {
  return Tensor::of(values, {static_cast<std::int64_t>(values.size())});
}

// An op that does nothing but write its name into `log` when backward reaches it.
Tensor logged(const Tensor& x, const std::string& name, std::vector<std::string>& log) {
  return record(x.clone(), {x}, [name, &log](const Tensor& dy, Gradients& gradients) {
    log.push_back(name);
    add_into(gradients.of(0), dy);
  });
}

std::int64_t in_use() { return memory_statistics(Device::kCpu).in_use_bytes; }

TEST(Tape, RunsEntriesNewestFirst) {
  Tape tape;
  std::vector<std::string> log;
  const Tensor x = tape.watch(row({1, 2}));
  const Tensor y = logged(logged(logged(x, "a", log), "b", log), "c", log);
  EXPECT_EQ(tape.entries(), 3u);
  tape.seed(y, row({5, 7}));
  tape.backward();
  EXPECT_THAT(log, ElementsAre("c", "b", "a"));
  EXPECT_THAT(tape.gradient(x).to_vector<double>(), ElementsAre(5, 7));
  EXPECT_EQ(tape.entries(), 0u);
}

TEST(Tape, ActsWhenWhatCameAfterIsDone) {
  Tape tape;
  std::vector<std::string> log;
  const Tensor a = logged(tape.watch(row({1})), "a", log);
  tape.on_backward([&] { log.push_back("then"); });
  const Tensor b = logged(a, "b", log);
  tape.seed(b, row({5}));
  tape.backward();
  EXPECT_THAT(log, ElementsAre("b", "then", "a"));
}

TEST(Tape, SkipsEntriesThatNothingReaches) {
  Tape tape;
  std::vector<std::string> log;
  const Tensor x = tape.watch(row({1})), other = tape.watch(row({1}));
  const Tensor y = logged(x, "reached", log);
  logged(logged(y, "aside", log), "further aside", log);
  logged(other, "elsewhere", log);
  tape.seed(y, row({1}));
  tape.backward();
  EXPECT_THAT(log, ElementsAre("reached"));
  EXPECT_FALSE(tape.gradient(other));
}

TEST(Tape, RecordsOnlyWhatDependsOnSomethingWatched) {
  Tape tape;
  const Tensor plain = row({1, 2});
  EXPECT_EQ(add(plain, plain).tape(), nullptr);
  EXPECT_EQ(relu(tape.watch(plain)).tape(), &tape);
  EXPECT_EQ(tape.entries(), 1u);
}

TEST(Tape, LetsGoOfWhatAnEntryHoldsWhenItIsPopped) {
  constexpr std::int64_t kBytes = 8 << 15;
  const Tensor gradient = Tensor::zeros({1 << 15}, DType::kFloat64);
  const std::int64_t before = in_use();
  Tape tape;
  std::vector<std::int64_t> held;  // when backward is at each entry
  Tensor y = tape.watch(Tensor::zeros({1 << 15}, DType::kFloat64), gradient);
  for (int i = 0; i < 4; ++i) {
    y = gelu(y);  // keeps its input
    y = record(y.clone(), {y}, [&held](const Tensor& dy, Gradients& gradients) {
      held.push_back(in_use());
      add_into(gradients.of(0), dy);
    });
  }
  const Tensor seed = Tensor::zeros({1 << 15}, DType::kFloat64);
  EXPECT_GE(in_use() - before, 5 * kBytes);
  tape.seed(y, seed);
  y = {};
  tape.backward();
  ASSERT_EQ(held.size(), 4u);
  for (std::size_t i = 1; i < held.size(); ++i) EXPECT_LE(held[i], held[i - 1] - kBytes / 2);
  EXPECT_LT(in_use() - before, 2 * kBytes);  // the seed alone
}

TEST(Tape, DoesNotHoldTheElementsOfInputsThatBackwardDoesNotRead) {
  Tape tape;
  const std::int64_t before = in_use();
  Tensor sum = tape.watch(Tensor::zeros({1 << 15}, DType::kFloat64));
  for (int i = 0; i < 8; ++i) sum = add(sum, sum);
  EXPECT_LT(in_use() - before, 2 * (8 << 15));  // of nine tensors the last one
}

TEST(Tape, AddsTheGradientsOfEveryUse) {
  Tape tape;
  const Tensor x = tape.watch(row({1, 2}));
  const Tensor y = add(add(x, x), x);
  tape.seed(y, row({1, 10}));
  tape.backward();
  EXPECT_THAT(tape.gradient(x).to_vector<double>(), ElementsAre(3, 30));
}

TEST(Tape, AddsToTheCallersBuffer) {
  Tape tape;
  const Tensor gradient = row({100, 200});
  const Tensor value = row({1, 2});
  const Tensor y = add(tape.watch(value, gradient), tape.watch(value, gradient));  // watched twice
  tape.seed(y, row({1, 10}));
  tape.backward();
  EXPECT_THAT(gradient.to_vector<double>(), ElementsAre(102, 220));
}

TEST(Tape, KeepsGradientsOfTwoHandlesApart) {
  Tape tape;
  const Tensor value = row({1, -2});
  const Tensor a = tape.watch(value), b = tape.watch(value);
  tape.seed(add(relu(a), b), row({1, 10}));
  tape.backward();
  EXPECT_THAT(tape.gradient(a).to_vector<double>(), ElementsAre(1, 0));
  EXPECT_THAT(tape.gradient(b).to_vector<double>(), ElementsAre(1, 10));
}

TEST(Tape, AddsSeedsAndTakesThemInAnyShapeOfTheSameSize) {
  Tape tape;
  const Tensor x = tape.watch(row({1, 2}));
  const Tensor y = relu(x.reshape({2, 1}));
  tape.seed(y, row({1, 10}));
  tape.seed(y, row({2, 20}).reshape({1, 2}));
  tape.backward();
  EXPECT_EQ(tape.gradient(x).shape(), (Shape{2}));
  EXPECT_THAT(tape.gradient(x).to_vector<double>(), ElementsAre(3, 30));
}

TEST(Tape, HandsAnEmptyGradientToAnOutputThatNobodyUsed) {
  for (const std::size_t used : {0, 1}) {
    Tape tape;
    const Tensor x = tape.watch(row({3, 4}));
    const auto outputs = record_all<2>({row({3, 4}), row({3, 4})}, {x},
                                       [=](std::span<const Tensor> doutputs, Gradients& gradients) {
                                         EXPECT_FALSE(doutputs[1 - used]);
                                         add_into(gradients.of(0), doutputs[used]);
                                       });
    tape.seed(outputs[used], row({1, 1}));
    tape.backward();
    EXPECT_THAT(tape.gradient(x).to_vector<double>(), Each(1));
  }
}

TEST(Tape, StartsFromAScalarWithGradientOne) {
  Tape tape;
  const Tensor x = tape.watch(Tensor::of(std::vector<double>{3}, {1, 1}));
  tape.backward(linear(x, Tensor::of(std::vector<double>{5}, {1, 1})));
  EXPECT_EQ(tape.gradient(x).item(), 5);
}

TEST(Tape, RefusesWhatItCannotDifferentiate) {
  Tape tape, another;
  const Tensor x = tape.watch(row({1, 2})), y = another.watch(row({1, 2}));
  EXPECT_THAT([&] { add(x, y); }, ThrowsMessage<Error>("an op with inputs on two tapes"));
  EXPECT_THAT(
      [&] {
        tape.seed(y, row({1, 2}));
      },
      ThrowsMessage<Error>("this tape does not watch the tensor"));
  EXPECT_THAT([&] { (void)tape.gradient(x.unwatched()); },
              ThrowsMessage<Error>("this tape does not watch the tensor"));
  EXPECT_THAT([&] { tape.backward(x); },
              ThrowsMessage<Error>("backward: expected a scalar, got shape [2]"));
  EXPECT_THAT(
      [&] {
        tape.watch(row({1, 2}), row({1}));
      },
      ThrowsMessage<Error>("watch: a gradient of shape [1] for a value of shape [2]"));
  EXPECT_THAT([&] { tape.seed(x, row({1})); }, ThrowsMessage<Error>("add_into: [1] into [2]"));
}

TEST(Tape, HandsAGradientOnWithoutACopy) {
  const auto same = [](const Tensor& x) {
    return record(x.clone(), {x},
                  [](const Tensor& dy, Gradients& gradients) { gradients.hand_on(0, dy); });
  };
  Tape tape;
  const Tensor x = tape.watch(row({1, 2}));
  const Tensor late = relu(x);  // runs last in the backward pass and adds to what was handed on
  const Tensor y = same(same(x));
  const std::byte* seeded = nullptr;
  const Tensor z = record(y.clone(), {y}, [&](const Tensor& dz, Gradients& gradients) {
    seeded = dz.raw();
    gradients.hand_on(0, dz);
  });
  tape.seed(z, row({10, 20}));
  tape.seed(late, row({1, 1}));
  tape.backward();
  EXPECT_THAT(tape.gradient(x).to_vector<double>(), ElementsAre(11, 21));
  EXPECT_EQ(tape.gradient(x).raw(), seeded);
}

TEST(Tape, AddsAGradientThatIsHandedOnToOneThatIsThere) {
  const auto same = [](const Tensor& x) {
    return record(x.clone(), {x},
                  [](const Tensor& dy, Gradients& gradients) { gradients.hand_on(0, dy); });
  };
  Tape tape;
  const Tensor gradient = row({100, 200});
  const Tensor x = tape.watch(row({1, 2})), outside = tape.watch(row({1, 2}), gradient);
  for (const Tensor& input : {x, outside}) {
    const Tensor first = same(input), second = same(input);
    tape.seed(first, row({10, 20}));
    tape.seed(second, row({1, 2}));
  }
  tape.backward();
  EXPECT_THAT(tape.gradient(x).to_vector<double>(), ElementsAre(11, 22));
  EXPECT_THAT(gradient.to_vector<double>(), ElementsAre(111, 222));
}

TEST(Tape, RenewsAGradientSomewhereElse) {
  Tape tape;
  const Tensor gradient = row({100, 200});
  const Tensor x = tape.watch(row({1, 2})), outside = tape.watch(row({1, 2}), gradient);
  for (const Tensor& input : {x, outside})
    for (int use = 0; use < 2; ++use) {
      const Tensor y =
          record(input.clone(), {input}, [&, input, use](const Tensor& dy, Gradients& gradients) {
            const Gradients::Renewal dx = gradients.renew(0);
            EXPECT_EQ(static_cast<bool>(dx.stood), use == 0 || input.raw() == outside.raw());
            EXPECT_EQ(dx.stood && dx.stood.raw() == dx.sum.raw(), input.raw() == outside.raw());
            if (dx.stood) dx.sum.copy_from(dx.stood);
            add_into({.tensor = dx.sum, .accumulate = static_cast<bool>(dx.stood)}, dy);
          });
      tape.seed(y, row({1, 10}));
    }
  tape.backward();
  EXPECT_THAT(tape.gradient(x).to_vector<double>(), ElementsAre(2, 20));
  EXPECT_THAT(gradient.to_vector<double>(), ElementsAre(102, 220));
}

// The same numbers, seen as matrices of other widths: columns of one are not columns of another.
TEST(Tape, TellsColumnsOfViewsOfOtherWidthsApart) {
  Tape tape;
  const Tensor x = tape.watch(Tensor::zeros({12}, DType::kFloat64));
  const Tensor tall = take_columns(x.reshape({6, 2}), {1, 2}),
               wide = take_columns(x.reshape({2, 6}), {0, 3}),
               other = take_columns(x.reshape({2, 6}), {3, 6});
  const auto seed = [&](const Tensor& part, double value) {
    tape.seed(part, Tensor::of(std::vector<double>(6, value), part.shape()));
  };
  seed(tall, 1);
  seed(wide, 10);
  seed(other, 100);
  tape.backward();
  EXPECT_THAT(tape.gradient(x).to_vector<double>(),
              testing::ElementsAre(10, 11, 10, 101, 100, 101, 10, 11, 10, 101, 100, 101));
}

TEST(Tape, FillsTheColumnsThatNobodyWrote) {
  Tape tape;
  const Tensor x = tape.watch(Tensor::of(std::vector<double>{1, 2, 3, 4, 5, 6, 7, 8}, {2, 4}));
  const auto reads = [&](std::initializer_list<Columns> parts) {
    const std::vector<Columns> all(parts);
    return record(Tensor::zeros({1}, DType::kFloat64), {x},
                  [all](const Tensor&, Gradients& gradients) {
                    for (const Columns& part : all) {
                      const GradTarget target = zeroed(gradients.of(0, part), part);
                      double* const dx = target.tensor.data<double>();
                      for (int r = 0; r < 2; ++r)
                        for (std::int64_t c = part.begin; c < part.end; ++c) dx[4 * r + c] += 1;
                    }
                  });
  };
  const Tensor first = reads({{0, 2}}), second = reads({{2, 3}, {1, 2}});
  const Tensor one = Tensor::of(std::vector<double>{1}, {1});
  tape.seed(first, one);
  tape.seed(second, one);
  tape.backward();
  EXPECT_THAT(tape.gradient(x).to_vector<double>(), ElementsAre(1, 2, 1, 0, 1, 2, 1, 0));
}

}  // namespace
}  // namespace infini
