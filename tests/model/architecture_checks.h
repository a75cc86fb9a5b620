// What the tests of every architecture ask in the same words.
#pragma once

#include <gmock/gmock.h>

#include "tests/model/plain_loops.h"

namespace infini {

// How f() changes with a number that it reads, by central differences.
template <class Function>
double slope(double& number, const Function& f) {
  constexpr double kStep = 1e-5;
  const double before = number;
  number = before + kStep;
  const double above = f();
  number = before - kStep;
  const double below = f();
  number = before;
  return (above - below) / (2 * kStep);
}

// The gradient that training left in every `stride`-th number of a parameter is the slope of the
// loss.
inline void expect_slopes(const Recurrence& recurrence, const Rows& rows, const Memories& memory,
                          const Parameter& parameter, std::int64_t stride, double tolerance) {
  for (std::int64_t i = 0; i < parameter.value.size(); i += stride)
    EXPECT_NEAR(parameter.gradient.data<double>()[i],
                slope(parameter.value.data<double>()[i],
                      [&] { return recurrence.evaluate(rows, memory, 9).loss.item(); }),
                tolerance)
        << parameter.name << " " << i;
}

// Where documents start in two rows; the last mark is of a segment that does not come.
inline const std::vector<bool> kStarts[] = {{false, false, true, false, false, false, false},
                                            {true, false, false, false, false, false, false}};

inline Rows rows_with_starts(std::int64_t tokens) {
  Rows rows = rows_of(tokens);
  std::vector<std::uint8_t> resets;
  for (const auto& starts : kStarts)
    resets.insert(resets.end(), starts.begin(), starts.begin() + rows.segments());
  rows.resets = Tensor::of(resets, {2, rows.segments()});
  return rows;
}
inline std::vector<std::int32_t> ids_of(const Rows& rows, int row) {
  return rows.tokens.slice(row, 1).to_vector<std::int32_t>();
}

// The model's hidden states are those of plain loops, in rows of so many tokens with these starts.
template <class Plain>
void expect_plain_loops(const InfiniTransformer& model, std::int64_t tokens) {
  const Rows rows = rows_with_starts(tokens);
  const Hidden got = hidden_of(model, rows);
  for (const int b : {0, 1}) {
    const PlainLoops::Grid expected = Plain(model).hidden(ids_of(rows, b), kStarts[b]);
    for (std::int64_t t = 0; t < tokens; ++t)
      EXPECT_LE(relative_error(got.at(b, t, 1).to_vector<double>(), expected[t]), 1e-12) << t;
  }
}

// Every parameter gets its gradient through all segments up to a reset.
inline void expect_slopes_through_segments(const InfiniTransformer& model) {
  Rows rows = rows_of(18);
  rows.resets = Tensor::of(std::vector<std::uint8_t>{0, 0, 0, 0, 0, 0, 1, 0}, {2, 4});
  const Recurrence recurrence(model, {});
  const Memories nothing = empty_memories(model.config());
  recurrence.train(rows, nothing, 1, {});
  for (const Parameter& parameter : model.parameters().all())
    expect_slopes(recurrence, rows, nothing, parameter, 11, 1e-5);
}

// What all parameters of a new model get from these rows, stopped at the horizon; 0: nowhere.
inline std::vector<double> gradients_of_rows(const InfiniTransformer& model, const Rows& rows,
                                             std::int64_t horizon) {
  Recurrence(model, {.gradient_horizon = horizon})
      .train(rows, empty_memories(model.config()), 1, {});
  return model.parameters().gradients().to_vector<double>();
}
// And from each segment of 5 tokens alone, given the memory that those before it left.
inline std::vector<double> gradients_of_segments(const InfiniTransformer& model, const Rows& rows) {
  const Recurrence recurrence(model, {});
  Memories memory = empty_memories(model.config());
  for (std::int64_t begin = 0; begin < rows.tokens.shape()[1]; begin += 5)
    memory = recurrence.train(part_of(rows, begin, 5), memory, 1, {}).memory;
  return model.parameters().gradients().to_vector<double>();
}

// With a horizon of one segment the gradient is that of segments alone, and without another one.
// `make` gives the same new model each time.
template <class MakeModel>
void expect_gradients_stop_at_the_horizon(const MakeModel& make, double tolerance = 1e-13) {
  const Rows rows = rows_of(20);
  const std::vector<double> apart = gradients_of_segments(make(), rows),
                            through = gradients_of_rows(make(), rows, 0);
  EXPECT_LE(relative_error(gradients_of_rows(make(), rows, 1), apart), tolerance);
  EXPECT_GT(relative_error(through, apart), 0.001);
  EXPECT_GT(relative_error(gradients_of_rows(make(), rows, 2), through), 0.001);
}

// In pieces of any number of segments a row gives the same bytes, in every type.
inline void expect_same_bytes_in_pieces(Tiny tiny) {
  for (const DType dtype : {DType::kFloat64, DType::kFloat32, DType::kBFloat16}) {
    tiny.dtype = dtype;
    const InfiniTransformer model = model_of(tiny);
    const Rows rows = rich_rows();
    const Hidden whole = hidden_of(model, rows);
    for (const std::int64_t at_once : {1, 2, 3, 4}) {
      const Hidden pieces = hidden_of(model, rows, empty_memories(model.config()), at_once);
      EXPECT_TRUE(same_bytes(pieces.states, whole.states)) << at_once << " segments in " << dtype;
      expect_near(pieces.memory, whole.memory, 0);
    }
  }
}

// A memory of zeros in which nothing is written is no memory.
inline void expect_only_written_is_read(const InfiniTransformer& model) {
  const Rows rows = rows_of(10);
  const Hidden nothing = hidden_of(model, rows);
  const Memories zeros = zero_memories(model.config(), 2, DType::kFloat64, Device::kCpu);
  EXPECT_TRUE(same_bytes(hidden_of(model, rows, zeros).states, nothing.states));
  const Memories random = random_memories(model.config(), 2, DType::kFloat64);
  EXPECT_GT(relative_error(hidden_of(model, rows, random).states, nothing.states), 0.01);
}

inline void expect_no_groups(const InfiniTransformer& model, const std::string& message) {
  EXPECT_THAT(
      [&] {
        Recurrence(model, {.group_segments = 1})
            .train(rows_of(10), empty_memories(model.config()), 1, {});
      },
      testing::ThrowsMessage<Error>(message));
}

}  // namespace infini
