#include "optim/clip.h"

#include <cmath>

#include "tensor/ops/elementwise.h"

namespace infini {

double gradient_norm(const Parameters& parameters) {
  return std::sqrt(square_sum(parameters.gradients()));
}

double clip_factor(double norm, double clip_norm) {
  check(std::isfinite(norm), "clip_factor: the gradient norm is ", norm, ", expected a number");
  return clip_norm > 0 && norm > clip_norm ? clip_norm / norm : 1;
}

}  // namespace infini
