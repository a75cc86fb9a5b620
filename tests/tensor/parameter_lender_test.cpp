#include "tensor/parameter_lender.h"

#include <gtest/gtest.h>

#include "tensor/ops/product.h"

namespace infini {
namespace {

const std::vector<ParameterSpec> kSpecs{
    {.name = "a", .shape = {2, 3}, .deviation = 1},
    {.name = "norm", .shape = {3}, .mean = 1, .full_precision = true},
    {.name = "b", .shape = {3, 2}, .deviation = 1},
};
constexpr ElementRange kAll{.begin = 0, .end = 15}, kB{.begin = 9, .end = 15};

// Lends what another copy of the parameters keeps.
class Lender final : public ParameterLender {
 public:
  explicit Lender(const Parameters& whole) : whole_(whole) {}
  Tensor values(ElementRange range, ElementRange) override {
    return whole_.values().slice(range.begin, range.size());
  }
  void add_gradients(ElementRange range, const Tensor& gradients) override {
    received.emplace_back(range, gradients.to_vector<double>());
  }

  std::vector<std::pair<ElementRange, std::vector<double>>> received;

 private:
  const Parameters& whole_;
};

class ParameterLenderTest : public ::testing::Test {
 protected:
  ParameterLenderTest() { whole_.initialise(3); }
  // loss = sum (x a^T b^T)
  void train(Parameters& parameters, ParameterLender* lender, Tape& tape) const {
    const Pass pass = borrow(Pass{.tape = &tape}, lender, parameters, kAll);
    const Tensor x = Tensor::of(std::vector<float>{1, 2, 3}, {1, 3});
    const Tensor y = linear(linear(x, pass(parameters["a"])), pass(parameters["b"]));
    tape.seed(y, Tensor::of(std::vector<float>{1, 1, 1}, {1, 3}));
    tape.backward();
  }

  Parameters whole_{kSpecs, DType::kFloat32, Device::kCpu};
  Parameters none_{kSpecs, DType::kFloat32, Device::kCpu,
                   [](const ParameterSpec&) { return Kept{.value = false, .gradient = false}; }};
  Lender lender_{whole_};
};

TEST_F(ParameterLenderTest, OnlyFullPrecisionIsKept) {
  EXPECT_EQ(none_.count(), 15);
  EXPECT_EQ(none_.masters().size(), 3);
  EXPECT_EQ(none_.gradients().size(), 3);
  EXPECT_FALSE(none_["a"].value || none_["a"].master || none_["a"].gradient);
  EXPECT_EQ(none_["a"].value.shape(), (Shape{2, 3}));
  EXPECT_TRUE(none_["norm"].value && none_["norm"].gradient);
  EXPECT_EQ(none_.offset("b"), 9);
  none_.initialise(3);
  EXPECT_EQ(none_["norm"].value.to_vector<double>(), (std::vector<double>{1, 1, 1}));
}

TEST_F(ParameterLenderTest, ReceivesTheGradientsThatWholeParametersGet) {
  Tape whole_tape, tape;
  train(whole_, nullptr, whole_tape);
  train(none_, &lender_, tape);
  ASSERT_EQ(lender_.received.size(), 1u);
  EXPECT_EQ(lender_.received[0].first, kAll);
  EXPECT_EQ(lender_.received[0].second, whole_.gradients().to_vector<double>());
}

TEST_F(ParameterLenderTest, ReceivesNothingOfWhatIsFrozen) {
  for (const int frozen : {0, 2}) {
    std::vector<ParameterSpec> specs = kSpecs;
    specs[frozen].frozen = true;
    Parameters part(specs, DType::kFloat32, Device::kCpu,
                    [](const ParameterSpec&) { return Kept{.value = false, .gradient = false}; });
    Tape whole_tape, tape;
    whole_.zero_gradients();
    train(whole_, nullptr, whole_tape);
    Lender lender(whole_);
    train(part, &lender, tape);
    ASSERT_EQ(lender.received.size(), 1u);
    EXPECT_EQ(lender.received[0].first, (ElementRange{.begin = 0, .end = 9}));
    std::vector<double> expected = whole_.gradients().to_vector<double>();
    const auto first = expected.begin() + (frozen == 0 ? 0 : 9);
    expected.erase(first, first + 6);
    EXPECT_EQ(lender.received[0].second, expected);
  }
}

TEST_F(ParameterLenderTest, MemoryIsTakenForTheBackwardPassAlone) {
  Tape tape;
  train(none_, &lender_, tape);
  const std::int64_t before = memory_statistics(Device::kCpu).in_use_bytes;
  train(none_, &lender_, tape);  // the tape lives on
  EXPECT_EQ(memory_statistics(Device::kCpu).in_use_bytes, before);
}

TEST_F(ParameterLenderTest, SharedBorrowingsAreOneWhileTheTapeHasThem) {
  std::weak_ptr<LentGradients> shared;
  Tape tape;
  const Pass recording{.tape = &tape};
  const Pass first = borrow(recording, &lender_, none_, kB, {}, &shared);
  const Pass second = borrow(recording, &lender_, none_, kB, {}, &shared);
  EXPECT_EQ(first.loan->gradients, second.loan->gradients);
  tape.backward();
  EXPECT_EQ(lender_.received.size(), 1u);
  EXPECT_EQ(lender_.received[0].second, std::vector<double>(6));
}

TEST_F(ParameterLenderTest, RefusesWhatWasNotBorrowed) {
  const Pass pass = borrow(Pass{}, &lender_, none_, kB);
  EXPECT_EQ(pass(none_["b"]).to_vector<double>(), whole_["b"].value.to_vector<double>());
  EXPECT_THROW(pass(none_["a"]), Error);
}

}  // namespace
}  // namespace infini
