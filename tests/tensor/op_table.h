// The table of ops: each row is an op, what goes into it, and the same by plain loops.
#pragma once

#include <functional>
#include <string>

#include "tensor/tape.h"
#include "tests/tensor/reference.h"

namespace infini {

// What an input is decides the type it comes in when the op computes in T.
enum class Role {
  kActivation,  // T, and so is its gradient
  kWeight,      // T, its gradient in the accumulator of T
  kState,       // the accumulator of T: norms, gates, memories
};

struct Input {
  Shape shape;
  Role role = Role::kActivation;
  double low = -1.5, high = 1.5;                     // uniform between these
  std::function<void(std::vector<double>&)> edit{};  // what is special about some of the numbers
};

struct OpCase {
  std::string name;
  std::vector<Input> inputs;
  std::function<std::vector<Tensor>(const std::vector<Tensor>& in)> op;
  // The outputs by plain loops. Where the op stops a gradient, what lies behind is computed from
  // `constant`, the inputs that differences leave as they are.
  std::function<reference::Arrays(const reference::Arrays& in, const reference::Arrays& constant)>
      expected;
  bool is_loss = false;  // output 0 is a loss, the root of backward; the others carry no gradient
  int differences = 40;  // elements of each input that are checked by finite differences
};

// What a failing test prints of its row.
inline void PrintTo(const OpCase& row, std::ostream* out) { *out << row.name; }

const std::vector<OpCase>& op_table();

// Its rows of what goes from token to token, and of the heads of Megalodon.
std::vector<OpCase> op_rows_over_time();

}  // namespace infini
