#include "tensor/recompute.h"

namespace infini {

std::vector<Tensor> recompute(const Pass& pass, const std::vector<Tensor>& inputs,
                              const Recomputed& piece) {
  if (!pass.tape) return piece(pass, inputs);

  std::vector<Tensor> values;
  for (const Tensor& input : inputs) values.push_back(input.unwatched());
  Pass silent = pass;
  silent.tape = nullptr;
  std::vector<Tensor> outputs = piece(silent, values);

  std::vector<Tensor*> pointers;
  for (Tensor& output : outputs) pointers.push_back(&output);
  pass.tape->push(pointers, inputs, [=](std::span<const Tensor> doutputs, Gradients& gradients) {
    Tape tape;
    Pass again = pass;
    again.tape = &tape;
    std::vector<Tensor> watched = values;
    for (std::size_t i = 0; i < values.size(); ++i)
      if (const GradTarget target = zeroed(gradients.of(static_cast<int>(i))))
        watched[i] = tape.watch(values[i], target.tensor);
    const std::vector<Tensor> repeated = piece(again, watched);
    for (std::size_t i = 0; i < repeated.size(); ++i)
      if (doutputs[i] && repeated[i].tape()) tape.seed(repeated[i], doutputs[i]);
    tape.backward();
  });
  return outputs;
}

}  // namespace infini
