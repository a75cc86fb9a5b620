#include "optim/optimizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "optim/clip.h"
#include "tensor/random.h"
#include "tests/tensor/fake_groups.h"

namespace infini {
namespace {

Parameters small_model(DType compute = DType::kFloat32) {
  Parameters parameters(
      {{.name = "embedding.weight", .shape = {300, 140}, .deviation = 0.1},
       {.name = "blocks.0.attention.gate", .shape = {8}, .full_precision = true},
       {.name = "blocks.0.feed_forward.up.weight", .shape = {40, 140}, .deviation = 0.1},
       {.name = "final_norm.weight", .shape = {140}, .mean = 1, .full_precision = true}},
      compute, Device::kCpu);
  parameters.initialise(7);
  return parameters;
}

void set_gradients(const Parameters& parameters, std::uint64_t step, double scale = 1) {
  const RandomKey key{.seed = 11, .step = step};
  std::vector<double> values(parameters.count());
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = scale * key.normal(i);
  parameters.gradients().copy_from(
      Tensor::of(values, parameters.gradients().shape()).to(parameters.gradients().dtype()));
}

OptimConfig config_of(OptimizerKind kind) {
  OptimConfig config;
  config.kind = kind;
  config.weight_decay = 0.1;
  return config;
}

double gradient_norm(const Parameters& parameters) {
  return gradient_scale(parameters, {}, 0).norm.item();
}

constexpr OptimizerKind kKinds[] = {OptimizerKind::kAdafactor, OptimizerKind::kAdamW};

void take_steps(Optimizer& optimizer, const Parameters& parameters, std::uint64_t begin,
                std::uint64_t end) {
  for (std::uint64_t step = begin; step < end; ++step) {
    set_gradients(parameters, step);
    optimizer.step(1.0 / static_cast<double>(1 + step));
  }
}

TEST(Optimizer, ContinuesFromItsStateByteForByte) {
  for (const OptimizerKind kind : kKinds) {
    Parameters parameters = small_model();
    const auto optimizer = make_optimizer(config_of(kind), parameters);
    take_steps(*optimizer, parameters, 0, 6);

    Parameters first_part = small_model();
    const auto before = make_optimizer(config_of(kind), first_part);
    take_steps(*before, first_part, 0, 3);
    Parameters second_part = small_model();
    second_part.masters().copy_from(first_part.masters());
    const auto after = make_optimizer(config_of(kind), second_part);
    const auto saved = before->state(), restored = after->state();
    ASSERT_EQ(saved.size(), restored.size());
    for (std::size_t i = 0; i < saved.size(); ++i) {
      EXPECT_EQ(saved[i].name, restored[i].name);
      restored[i].tensor.copy_from(saved[i].tensor);
    }
    after->restore_steps(before->steps());
    take_steps(*after, second_part, 3, 6);

    EXPECT_EQ(after->steps(), 6);
    EXPECT_EQ(parameters.masters().to_vector<float>(), second_part.masters().to_vector<float>());
  }
}

std::vector<std::string> names_of(const Optimizer& optimizer) {
  std::vector<std::string> names;
  for (const NamedTensor& part : optimizer.state()) names.push_back(part.name);
  return names;
}

TEST(Optimizer, NamesItsState) {
  Parameters parameters = small_model();
  parameters.all()[2].frozen = true;
  OptimConfig config = config_of(OptimizerKind::kAdafactor);
  EXPECT_THAT(names_of(*make_optimizer(config, parameters)),
              testing::ElementsAre(
                  "optimizer/embedding.weight/row_mean", "optimizer/embedding.weight/column_mean",
                  "optimizer/embedding.weight/momentum", "optimizer/blocks.0.attention.gate/square",
                  "optimizer/blocks.0.attention.gate/momentum",
                  "optimizer/final_norm.weight/square", "optimizer/final_norm.weight/momentum"));
  config.kind = OptimizerKind::kAdamW;
  EXPECT_THAT(
      names_of(*make_optimizer(config, parameters)),
      testing::ElementsAre(
          "optimizer/embedding.weight/mean", "optimizer/embedding.weight/square",
          "optimizer/blocks.0.attention.gate/mean", "optimizer/blocks.0.attention.gate/square",
          "optimizer/final_norm.weight/mean", "optimizer/final_norm.weight/square"));
}

TEST(Optimizer, LeavesFrozenParametersAlone) {
  for (const OptimizerKind kind : kKinds) {
    Parameters parameters = small_model();
    parameters.all()[0].frozen = true;
    const auto frozen = parameters["embedding.weight"].master.to_vector<float>();
    const auto free = parameters["final_norm.weight"].master.to_vector<float>();
    const auto optimizer = make_optimizer(config_of(kind), parameters);
    take_steps(*optimizer, parameters, 0, 2);
    EXPECT_EQ(frozen, parameters["embedding.weight"].master.to_vector<float>());
    EXPECT_NE(free, parameters["final_norm.weight"].master.to_vector<float>());
  }
}

TEST(Optimizer, RefreshesTheValuesThatOpsRead) {
  Parameters parameters = small_model(DType::kBFloat16);
  const auto optimizer = make_optimizer(config_of(OptimizerKind::kAdafactor), parameters);
  take_steps(*optimizer, parameters, 0, 2);
  for (const Parameter& parameter : parameters.all()) {
    const auto value = parameter.value.to_vector<float>();
    EXPECT_EQ(value, parameter.master.to(parameter.value.dtype()).to_vector<float>());
  }
}

TEST(Optimizer, ScalesGradientsWhileItReadsThem) {
  for (const OptimizerKind kind : kKinds) {
    Parameters scaled = small_model(DType::kFloat64), plain = small_model(DType::kFloat64);
    const auto a = make_optimizer(config_of(kind), scaled);
    const auto b = make_optimizer(config_of(kind), plain);
    for (std::uint64_t step = 0; step < 3; ++step) {
      set_gradients(scaled, step, 8);
      set_gradients(plain, step, 1);
      a->step(1, 0.125);
      b->step(1);
    }
    EXPECT_EQ(scaled.masters().to_vector<double>(), plain.masters().to_vector<double>());
    EXPECT_NEAR(gradient_norm(scaled), 8 * gradient_norm(plain), 1e-9);
  }
}

// Masters, values and all of the state.
std::vector<std::vector<double>> numbers_of(const Parameters& parameters,
                                            const Optimizer& optimizer) {
  std::vector<std::vector<double>> numbers = {parameters.masters().to_vector<double>()};
  for (const Parameter& parameter : parameters.all())
    numbers.push_back(parameter.value.to_vector<double>());
  for (const NamedTensor& part : optimizer.state())
    numbers.push_back(part.tensor.to_vector<double>());
  return numbers;
}

TEST(Optimizer, ChangesNothingWhereTheScaleIsNotFinite) {
  for (const OptimizerKind kind : kKinds) {
    Parameters parameters = small_model(DType::kBFloat16);
    const auto optimizer = make_optimizer(config_of(kind), parameters);
    take_steps(*optimizer, parameters, 0, 2);
    const auto before = numbers_of(parameters, *optimizer);
    for (const double scale : {NAN, INFINITY, -INFINITY}) optimizer->step(1, scale);
    set_gradients(parameters, 2, NAN);
    optimizer->step(1, gradient_scale(parameters, {}, 1).scale);
    EXPECT_EQ(numbers_of(parameters, *optimizer), before);

    EXPECT_EQ(optimizer->steps(), 6);
    optimizer->restore_steps(2);
    take_steps(*optimizer, parameters, 2, 4);
    Parameters other = small_model(DType::kBFloat16);
    const auto unharmed = make_optimizer(config_of(kind), other);
    take_steps(*unharmed, other, 0, 4);
    EXPECT_EQ(numbers_of(parameters, *optimizer), numbers_of(other, *unharmed));
  }
}

TEST(Optimizer, RefusesAScaleThatIsNotAScalar) {
  Parameters parameters = small_model();
  const auto optimizer = make_optimizer(config_of(OptimizerKind::kAdamW), parameters);
  EXPECT_THAT(
      [&] { optimizer->step(1, Tensor::zeros({}, DType::kFloat32)); },
      testing::ThrowsMessage<Error>("step: the gradient scale is not an f64 scalar on cpu"));
}

TEST(Optimizer, GivesTheSameBytesWithAnyNumberOfThreads) {
#ifdef _OPENMP
  const int threads = omp_get_max_threads();
  for (const OptimizerKind kind : kKinds) {
    std::vector<std::vector<float>> results;
    for (const int count : {1, 2, 5}) {
      omp_set_num_threads(count);
      Parameters parameters = small_model();
      const auto optimizer = make_optimizer(config_of(kind), parameters);
      take_steps(*optimizer, parameters, 0, 3);
      results.push_back(parameters.masters().to_vector<float>());
    }
    omp_set_num_threads(threads);
    EXPECT_EQ(results[0], results[1]);
    EXPECT_EQ(results[0], results[2]);
  }
#else
  GTEST_SKIP() << "built without OpenMP: there is one thread";
#endif
}

TEST(Optimizer, AsksTheSystemForNothingAfterItsFirstStep) {
  for (const OptimizerKind kind : kKinds) {
    Parameters parameters = small_model();
    const auto optimizer = make_optimizer(config_of(kind), parameters);
    set_gradients(parameters, 0);
    optimizer->step(1);
    const auto before = memory_statistics(Device::kCpu).system_allocations;
    for (int i = 0; i < 3; ++i) optimizer->step(1);
    EXPECT_EQ(memory_statistics(Device::kCpu).system_allocations, before);
  }
}

// Of a matrix whose halves are equal, each is updated as in the whole, though alone it would have
// sides too short to be factored.
TEST(Optimizer, UpdatesAPartAsInTheWhole) {
  const TwinGroup twins;
  for (const OptimizerKind kind : kKinds)
    for (const int axis : {0, 1})
      for (const std::int64_t factored_from : {25, 1000}) {
        OptimConfig config = config_of(kind);
        config.adafactor.factored_from = factored_from;
        const Shape half{axis == 0 ? 20 : 40, axis == 1 ? 20 : 40};
        ParameterSpec spec{.name = "half.weight",
                           .shape = half,
                           .deviation = 0.1,
                           .division = {.axis = axis, .count = 2}};
        Parameters part({spec}, DType::kFloat64, Device::kCpu);
        part.initialise(7);
        Parameters whole({{.name = "half.weight", .shape = {40, 40}}}, DType::kFloat64,
                         Device::kCpu);
        const auto copy_twice = [&](const Tensor& from, const Tensor& to) {
          for (int index = 0; index < 2; ++index) {
            const Division division{.axis = axis, .count = 2, .index = index};
            for (std::int64_t i = 0; i < from.size(); ++i)
              to.data<double>()[division.place(half, i)] = from.data<double>()[i];
          }
        };
        copy_twice(part.masters(), whole.masters());
        const auto of_part = make_optimizer(config, part, {}, &twins);
        const auto of_whole = make_optimizer(config, whole);
        for (std::uint64_t step = 0; step < 4; ++step) {
          set_gradients(part, step);
          copy_twice(part.gradients(), whole.gradients());
          of_part->step(0.1);
          of_whole->step(0.1);
        }
        for (std::int64_t i = 0; i < part.masters().size(); ++i)
          EXPECT_NEAR(part.masters().data<double>()[i],
                      whole.masters().data<double>()[spec.division.place(half, i)], 1e-12);
      }
}

TEST(Optimizer, SurvivesGradientsThatAreZero) {
  for (const OptimizerKind kind : kKinds) {
    Parameters parameters = small_model();
    const auto optimizer = make_optimizer(config_of(kind), parameters);
    parameters.zero_gradients();
    for (int i = 0; i < 3; ++i) optimizer->step(1);
    for (const float value : parameters.masters().to_vector<float>())
      ASSERT_TRUE(std::isfinite(value));
  }
}

TEST(Optimizer, MovesAGateThatStartsAtZero) {
  // P33: under a rate relative to its size it would move by 1e-3 of the rate per step.
  Parameters parameters = small_model();
  const auto optimizer = make_optimizer(config_of(OptimizerKind::kAdafactor), parameters);
  for (int i = 0; i < 100; ++i) {
    for (const Parameter& parameter : parameters.all())
      parameter.gradient.copy_from(Tensor::of(std::vector<float>(parameter.gradient.size(), -1.0f),
                                              parameter.gradient.shape()));
    optimizer->step(1);
  }
  for (const float value : parameters["blocks.0.attention.gate"].master.to_vector<float>())
    EXPECT_GT(value, 0.8f);
}

}  // namespace
}  // namespace infini
