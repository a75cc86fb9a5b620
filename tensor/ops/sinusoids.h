// Encodings of positions, or of distances, by sines and cosines (Vaswani et al. 2017, section 3.5).
#pragma once

#include "tensor/tensor.h"

namespace infini {

// Row d holds sin(d f_i) in its first half and cos(d f_i) in its second,
// f_i = base^(-2i/width). width is even. [distances, width].
Tensor sinusoid_table(std::int64_t distances, std::int64_t width, double base, DType dtype,
                      Device device);

}  // namespace infini
