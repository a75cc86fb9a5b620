// Reverse-mode differentiation over a linear tape: ops append entries while they run, backward pops
// them from the end. An entry keeps what its closure captured and nothing else, and lets go of it
// when popped.
#pragma once

#include <functional>
#include <initializer_list>
#include <span>
#include <vector>

#include "tensor/tensor.h"

namespace infini {

// Columns [begin, end) of the last axis: the part of a packed tensor that an op reads.
struct Columns {
  std::int64_t begin = 0, end = 0;
};

// Where a kernel puts a gradient. Empty when nobody asked for it.
struct GradTarget {
  Tensor tensor;            // shaped like the input
  bool accumulate = false;  // add to what is there, else overwrite it

  explicit operator bool() const { return static_cast<bool>(tensor); }
};

// Fills columns with zeros.
void fill_zero(const Tensor& tensor, Columns columns);
// A copy of columns of a matrix, of one row a view.
Tensor columns_of(const Tensor& matrix, Columns columns);

// The target made ready for a kernel that adds to some of its elements only: zeros where nothing
// stood yet.
inline GradTarget zeroed(GradTarget target) {
  if (target && !target.accumulate) target.tensor.fill_zero();
  target.accumulate = true;
  return target;
}
// The same for a kernel that adds to some columns.
inline GradTarget zeroed(GradTarget target, Columns columns) {
  if (target && !target.accumulate) fill_zero(target.tensor, columns);
  target.accumulate = true;
  return target;
}

// The gradients of an entry's inputs, handed to its closure. Whatever is asked for must be written:
// all of an input once, or columns of it once each.
class Gradients {
 public:
  GradTarget of(int input) const;
  // The whole gradient, of which the caller writes these columns; accumulate speaks of them alone.
  // So several ops that read parts of one packed tensor fill its gradient without a pass of zeros.
  GradTarget of(int input, Columns columns) const;
  // The whole gradient as a new tensor: what stood there, which the caller adds, or nothing; and
  // where the sum goes. Kernels read and write at once faster when that is not one place.
  struct Renewal {
    Tensor stood, sum;  // sum is empty when nobody asked, and is `stood` where that is the caller's
  };
  Renewal renew(int input) const;
  // The gradient of an output is that of an input of the same shape, too: it becomes its gradient
  // without a copy where that has none yet, else it is added. The last that a closure does with dy,
  // and once.
  void hand_on(int input, const Tensor& dy) const;

 private:
  friend class Tape;
  Gradients(Tape& tape, const std::vector<Tensor>& inputs) : tape_(tape), inputs_(inputs) {}

  Tape& tape_;
  const std::vector<Tensor>& inputs_;
};

class Tape {
 public:
  // Receives the gradient of each output (an empty tensor where none arrived).
  using Backward = std::function<void(std::span<const Tensor> doutputs, Gradients& gradients)>;

  Tape() = default;
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  // A handle on value whose gradient is added into `gradient` (same shape; the caller zeroes it).
  Tensor watch(const Tensor& value, const Tensor& gradient);
  // The same for a buffer that stands ready only while the backward pass needs it: `gradient` is
  // asked for it whenever an op adds to it, and the tape does not keep it.
  Tensor watch(const Tensor& value, std::function<Tensor()> gradient);
  // A handle on value whose gradient the tape allocates; read it with gradient() after backward().
  Tensor watch(const Tensor& value);

  // Gives a watched tensor an incoming gradient before backward(), added to what it has.
  void seed(const Tensor& watched, const Tensor& gradient);
  // Has backward() call action() when everything recorded after this call is done.
  void on_backward(std::function<void()> action);
  // Runs every entry, newest first, and leaves the tape empty of entries.
  void backward();
  // backward() from a scalar with gradient 1.
  void backward(const Tensor& loss);

  // What arrived at a tensor obtained from watch(value); empty when nothing did.
  Tensor gradient(const Tensor& watched);
  // Where an op may add to the gradient of `watched` at once instead of in its closure (see
  // cross_entropy).
  GradTarget target(const Tensor& watched);
  GradTarget target(const Tensor& watched, Columns columns);
  void hand_on(const Tensor& watched, const Tensor& dy);  // see Gradients
  Gradients::Renewal renew(const Tensor& watched);

  std::size_t entries() const { return entries_.size(); }

  // Called by record().
  void push(std::vector<Tensor*> outputs, std::vector<Tensor> inputs, Backward backward);

 private:
  struct Slot {
    Tensor gradient;
    std::function<Tensor()> lent;  // has the gradient instead, where set
    bool external = false;         // the caller's buffer: never overwritten, never dropped
    bool written = false;
    std::vector<Columns> written_columns;  // while only some are: apart from each other, in order
    DType dtype = DType::kFloat32;
    Device device = Device::kCpu;
  };
  struct Entry {
    std::vector<std::pair<int, Shape>> outputs;
    std::vector<Tensor> inputs;
    Backward backward;
  };

  Tensor handle(const Tensor& value, Slot slot);
  static void fill_rest(Slot& slot);  // zeros in the columns that nobody wrote

  std::vector<Slot> slots_;
  std::vector<Entry> entries_;
};

// The tape that watches any of the inputs, or none. Throws when two tapes do.
Tape* tape_of(std::span<const Tensor> inputs);

// Appends an entry if any input is watched, and returns the output, then watched too.
// backward(dy, gradients) must write every gradients.of(i) that it asks for.
template <class Closure>
Tensor record(Tensor output, std::initializer_list<Tensor> inputs, Closure backward) {
  if (Tape* tape = tape_of(inputs))
    tape->push({&output}, inputs,
               [backward](std::span<const Tensor> doutputs, Gradients& gradients) {
                 backward(doutputs[0], gradients);
               });
  return output;
}

// The same for several outputs; backward receives a span with one gradient each, empty where none
// arrived.
template <std::size_t n, class Closure>
std::array<Tensor, n> record_all(std::array<Tensor, n> outputs,
                                 std::initializer_list<Tensor> inputs, Closure backward) {
  if (Tape* tape = tape_of(inputs)) {
    std::vector<Tensor*> pointers;
    for (Tensor& output : outputs) pointers.push_back(&output);
    tape->push(pointers, inputs, backward);
  }
  return outputs;
}

}  // namespace infini
