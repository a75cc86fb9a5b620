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

inline void expect_no_groups(const InfiniTransformer& model, const std::string& message) {
  EXPECT_THAT(
      [&] {
        Recurrence(model, {.group_segments = 1})
            .train(rows_of(10), empty_memories(model.config()), 1, {});
      },
      testing::ThrowsMessage<Error>(message));
}

}  // namespace infini
