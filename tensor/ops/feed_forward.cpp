#include "tensor/ops/feed_forward.h"

#include "tensor/ops/product.h"

namespace infini {

Tensor gelu_feed_forward(const Tensor& x, const Tensor& up, const Tensor& down,
                         const Tensor& residual, const TensorGroup* group) {
  const auto [rows, width] = x.dims<2>();
  const auto [inner, up_width] = up.dims<2>();
  const auto [outputs, down_inner] = down.dims<2>();
  check(up_width == width && down_inner == inner, "gelu_feed_forward: x is ", x.shape(), ", up is ",
        up.shape(), ", down is ", down.shape());
  const bool recorded = x.tape() || up.tape() || down.tape();
  const Tensor hidden = Tensor::empty({rows, inner}, x.dtype(), x.device());
  const Tensor kept = recorded ? Tensor::empty_like(hidden) : Tensor{};
  const Tensor y = Tensor::empty({rows, outputs}, x.dtype(), x.device());
  const Tensor in = x.unwatched(), up_matrix = up.unwatched(), down_matrix = down.unwatched();
  const ProductKernels& device = product_kernels(x.device());
  device.multiply_gelu({.a = in, .b = up_matrix, .c = hidden, .transpose_b = true}, kept);
  device.multiply({.a = hidden,
                   .b = down_matrix,
                   .c = y,
                   .transpose_b = true,
                   .addend = group ? Tensor{} : residual.unwatched()});
  if (group) finish_sum(*group, y, residual.unwatched());

  // A frozen matrix's gradient needs nothing kept.
  const Tensor up_input = up.tape() ? in : Tensor{}, down_input = down.tape() ? hidden : Tensor{};
  return record(y, {x, up, down, residual}, [=, &device](const Tensor& dy, Gradients& gradients) {
    // With h = gelu(u):  ddown = dy^T h,  du = (dy down) gelu'(u),  dup = du^T x,  dx = du up.
    if (const GradTarget ddown = gradients.of(2))
      device.multiply({.a = dy,
                       .b = down_input,
                       .c = ddown.tensor,
                       .transpose_a = true,
                       .accumulate = ddown.accumulate});
    const PartialGradient dx(gradients.of(0), group);
    const GradTarget dup = gradients.of(1);
    const Tensor dinner = dx.part() || dup ? Tensor::empty_like(kept) : Tensor{};
    if (dinner) device.multiply_gelu_grad({.a = dy, .b = down_matrix, .c = dinner}, kept);
    if (const GradTarget& part = dx.part())
      device.multiply(
          {.a = dinner, .b = up_matrix, .c = part.tensor, .accumulate = part.accumulate});
    dx.send();
    if (dup)
      device.multiply({.a = dinner,
                       .b = up_input,
                       .c = dup.tensor,
                       .transpose_a = true,
                       .accumulate = dup.accumulate});
    dx.receive();
    gradients.hand_on(3, dy);
  });
}

}  // namespace infini
