#include "tensor/parameters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tensor/pass.h"

namespace infini {
namespace {

using testing::Each;
using testing::ThrowsMessage;

const std::vector<ParameterSpec> kSpecs = {
    {.name = "query", .shape = {3, 4}, .deviation = 0.5},
    {.name = "key", .shape = {2, 4}, .deviation = 0.5},
    {.name = "norm", .shape = {4}, .mean = 1, .full_precision = true},
    {.name = "out", .shape = {4, 3}, .deviation = 0.5}};

Parameters made(DType compute, std::uint64_t seed = 1,
                const std::vector<ParameterSpec>& specs = kSpecs) {
  Parameters parameters(specs, compute, Device::kCpu);
  parameters.initialise(seed);
  return parameters;
}

TEST(Parameters, OfWhichThereArePartsStartAsThePartsOfTheWhole) {
  const Parameters whole = made(DType::kFloat32);
  for (const int axis : {0, 1})
    for (const int index : {0, 1, 2}) {
      const Division division{.axis = axis, .count = axis == 0 ? 3 : 2, .index = index};
      if (index == division.count) continue;
      const Shape shape{axis == 0 ? 1 : 3, axis == 1 ? 2 : 4};
      EXPECT_EQ(division.whole(shape), (Shape{3, 4}));
      const Parameters part =
          made(DType::kFloat32, 1,
               {{.name = "query", .shape = shape, .deviation = 0.5, .division = division}});
      const std::vector<std::int64_t> begin = division.begin(shape);
      for (std::int64_t r = 0; r < shape[0]; ++r)
        for (std::int64_t c = 0; c < shape[1]; ++c)
          EXPECT_EQ(part["query"].value.data<float>()[r * shape[1] + c],
                    whole["query"].value.data<float>()[(begin[0] + r) * 4 + begin[1] + c]);
    }
}

TEST(Parameters, LieOneAfterTheOtherInFlatBuffers) {
  const Parameters parameters = made(DType::kFloat32);
  EXPECT_EQ(parameters.count(), 12 + 8 + 4 + 12);
  std::int64_t offset = 0;
  for (const Parameter& parameter : parameters.all()) {
    EXPECT_EQ(parameter.master.raw(), parameters.masters().raw() + 4 * offset);
    EXPECT_EQ(parameter.gradient.raw(), parameters.gradients().raw() + 4 * offset);
    offset += parameter.master.size();
  }
  EXPECT_EQ(offset, parameters.count());
}

TEST(Parameters, JoinConsecutiveMatricesIntoOne) {
  const Parameters parameters = made(DType::kFloat32);
  const Parameter joined = parameters.joined({"query", "key"});
  EXPECT_EQ(joined.value.shape(), (Shape{5, 4}));
  EXPECT_EQ(joined.value.raw(), parameters["query"].value.raw());
  EXPECT_EQ(joined.gradient.slice(3, 2).raw(), parameters["key"].gradient.raw());
  EXPECT_THAT(
      [&] {
        (void)parameters.joined({"query", "out"});
      },
      ThrowsMessage<Error>("joined: out does not continue query"));
  EXPECT_THAT(
      [&] {
        (void)parameters.joined({"key", "norm"});
      },
      ThrowsMessage<Error>("joined: norm does not continue key"));
}

TEST(Parameters, StartFromNumbersThatFollowFromSeedAndNameAlone) {
  const Parameters first = made(DType::kFloat32), again = made(DType::kFloat32);
  EXPECT_EQ(first.masters().to_vector<float>(), again.masters().to_vector<float>());
  EXPECT_NE(first["out"].master.to_vector<float>(),
            made(DType::kFloat32, 2)["out"].master.to_vector<float>());
  EXPECT_NE(first["query"].master.to_vector<float>()[0], first["key"].master.to_vector<float>()[0]);
  const auto fewer = made(DType::kFloat32, 1, {kSpecs[3], kSpecs[0]});
  EXPECT_EQ(first["out"].master.to_vector<float>(), fewer["out"].master.to_vector<float>());
  const auto wider = made(DType::kFloat64);
  EXPECT_EQ(wider["out"].master.to(DType::kFloat32).to_vector<float>(),
            first["out"].master.to_vector<float>());
}

TEST(Parameters, StartFromTheMeanAndDeviationOfTheirSpec) {
  const auto parameters =
      made(DType::kFloat64, 1, {{.name = "w", .shape = {100, 100}, .deviation = 0.3, .mean = 2}});
  double sum = 0, squares = 0;
  for (const double value : parameters["w"].master.to_vector<double>()) {
    sum += value - 2;
    squares += (value - 2) * (value - 2);
  }
  EXPECT_NEAR(sum / 1e4, 0, 4 * 0.3 / 100);
  EXPECT_NEAR(std::sqrt(squares / 1e4), 0.3, 0.01);
  EXPECT_THAT(made(DType::kFloat32)["norm"].master.to_vector<float>(), Each(1));
}

TEST(Parameters, ShareValueAndMasterWhereTheirTypesAgree) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat64}) {
    Parameters parameters = made(dtype);
    EXPECT_EQ(parameters["out"].value.raw(), parameters["out"].master.raw());
    EXPECT_EQ(parameters.gradients().dtype(), dtype);
  }
}

TEST(Parameters, ComputeInRoundedCopiesOfTheMasters) {
  Parameters parameters = made(DType::kBFloat16);
  const Parameter out = parameters["out"], norm = parameters["norm"];
  EXPECT_EQ(out.value.dtype(), DType::kBFloat16);
  EXPECT_EQ(out.master.dtype(), DType::kFloat32);
  EXPECT_EQ(out.gradient.dtype(), DType::kFloat32);
  EXPECT_EQ(norm.value.raw(), norm.master.raw());  // full precision
  const auto rounded = [&] { return out.master.to(DType::kBFloat16).to_vector<float>(); };
  EXPECT_EQ(out.value.to_vector<float>(), rounded());

  out.master.data<float>()[5] = 1.01f;
  EXPECT_NE(out.value.to_vector<float>(), rounded());
  parameters.refresh_values();
  EXPECT_EQ(out.value.to_vector<float>(), rounded());
  EXPECT_EQ(parameters.joined({"query", "key"}).value.dtype(), DType::kBFloat16);
}

TEST(Parameters, ZeroTheirGradientsAtOnce) {
  Parameters parameters = made(DType::kFloat32);
  parameters["key"].gradient.data<float>()[3] = 7;
  parameters.zero_gradients();
  EXPECT_THAT(parameters.gradients().to_vector<float>(), Each(0));
}

TEST(Parameters, AreWatchedByAPassThatRecordsUnlessFrozen) {
  Parameters parameters = made(DType::kFloat32);
  Tape tape;
  EXPECT_EQ(Pass{}(parameters["key"]).tape(), nullptr);
  EXPECT_EQ(Pass{.tape = &tape}(parameters["key"]).tape(), &tape);
  parameters.all()[1].frozen = true;
  EXPECT_EQ(Pass{.tape = &tape}(parameters["key"]).tape(), nullptr);
}

TEST(Parameters, ThatAreFrozenHaveNoGradientAndNoPlaceAmongGradients) {
  std::vector<ParameterSpec> specs = kSpecs;
  specs[1].frozen = true;  // key [2, 4]
  const Parameters parameters = made(DType::kFloat32, 1, specs);
  EXPECT_EQ(parameters.count(), 36);
  EXPECT_EQ(parameters.frozen_count(), 8);
  EXPECT_EQ(parameters.masters().size(), 36);
  EXPECT_EQ(parameters.gradients().size(), 28);
  EXPECT_FALSE(parameters["key"].gradient);
  EXPECT_TRUE(parameters["key"].frozen && parameters["key"].master);
  EXPECT_EQ(parameters["norm"].gradient.raw(), parameters.gradients().raw() + 4 * 12);
  for (const Parameter& parameter : parameters.all())
    EXPECT_EQ(parameters.gradient_offset(parameter.offset), parameter.gradient_offset);
  EXPECT_EQ(parameters.gradient_offset(12), 12);
  EXPECT_EQ(parameters.gradient_offset(20), 12);
  EXPECT_EQ(parameters.gradient_offset(36), 28);
}

TEST(Parameters, JoinWhatIsFrozenTogether) {
  std::vector<ParameterSpec> specs = kSpecs;
  specs[0].frozen = true;
  EXPECT_THAT(
      [&] {
        (void)made(DType::kFloat32, 1, specs).joined({"query", "key"});
      },
      ThrowsMessage<ConfigError>("key trains, but query is frozen: they are computed as one "
                                 "matrix, all of which trains or nothing"));
  specs[1].frozen = true;
  const Parameter joined = made(DType::kFloat32, 1, specs).joined({"query", "key"});
  EXPECT_TRUE(joined.frozen && joined.value);
  EXPECT_FALSE(joined.gradient);
}

TEST(Parameters, RefuseUnknownAndRepeatedNames) {
  EXPECT_THAT([] { made(DType::kFloat32)["values"]; },
              ThrowsMessage<Error>("no parameter named values"));
  EXPECT_THAT(
      [] {
        made(DType::kFloat32, 1, {kSpecs[0], kSpecs[0]});
      },
      ThrowsMessage<Error>("two parameters named query"));
}

}  // namespace
}  // namespace infini
