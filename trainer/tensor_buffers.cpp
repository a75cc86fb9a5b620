#include "trainer/tensor_buffers.h"

namespace infini {

void TensorBuffers::add(const std::string& name, const Tensor& tensor, const Division& division) {
  if (!division.is_part()) return add(name, tensor, {}, {});
  const Shape whole = division.whole(tensor.shape());
  add(name, tensor, {whole.begin(), whole.end()}, division.begin(tensor.shape()));
}

void TensorBuffers::add(const std::string& name, const Tensor& tensor,
                        std::vector<std::int64_t> whole, std::vector<std::int64_t> begin) {
  const bool is_here = tensor.device() == Device::kCpu;
  const Tensor here = is_here     ? tensor
                      : to_write_ ? tensor.to(Device::kCpu)
                                  : Tensor::empty(tensor.shape(), tensor.dtype());
  list_.push_back({.name = name,
                   .dtype = std::string(name_of(tensor.dtype())),
                   .shape = {tensor.shape().begin(), tensor.shape().end()},
                   .data = here.raw(),
                   .bytes = static_cast<std::size_t>(tensor.bytes()),
                   .whole = std::move(whole),
                   .begin = std::move(begin)});
  tensors_.push_back(tensor);
  here_.push_back(here);
}

void TensorBuffers::put_back() const {
  for (std::size_t i = 0; i < tensors_.size(); ++i)
    if (tensors_[i].device() != Device::kCpu) tensors_[i].copy_from(here_[i]);
}

}  // namespace infini
