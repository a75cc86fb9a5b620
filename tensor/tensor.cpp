#include "tensor/tensor.h"

#include "tensor/ops/elementwise.h"
#include "tensor/system_memory.h"

namespace infini {
namespace {

template <class Function>
void dispatch_any(DType dtype, Function&& function) {
  switch (dtype) {
    case DType::kInt64:
      return function.template operator()<std::int64_t>();
    case DType::kInt32:
      return function.template operator()<std::int32_t>();
    case DType::kUInt8:
      return function.template operator()<std::uint8_t>();
    default:
      return dispatch_float(dtype, function);
  }
}

template <class To, class From>
To converted(From value) {
  if constexpr (std::is_same_v<To, BFloat16>)
    return BFloat16(static_cast<float>(value));
  else
    return static_cast<To>(value);
}

}  // namespace

Tensor Tensor::absent(const Shape& shape, DType dtype, Device device) {
  Tensor result;
  result.shape_ = shape;
  result.dtype_ = dtype;
  result.device_ = device;
  return result;
}

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  Tensor result = absent(shape, dtype, device);
  result.storage_ = allocate(shape.size() * bytes_of(dtype), device);
  return result;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device) {
  Tensor result = empty(shape, dtype, device);
  result.fill_zero();
  return result;
}

Tensor Tensor::reshape(const Shape& shape) const {
  check(shape.size() == size(), "reshape: ", shape_, " has ", size(), " elements, ", shape, " has ",
        shape.size());
  Tensor result = *this;
  result.shape_ = shape;
  return result;
}

Tensor Tensor::slice(std::int64_t begin, std::int64_t count) const {
  check(!tape_, "slice: a slice of a watched tensor has no gradient");
  check(begin >= 0 && count >= 0 && begin + count <= shape_[0], "slice: [", begin, ", ",
        begin + count, ") of an axis of ", shape_[0]);
  Tensor result = *this;
  result.shape_ = shape_.with_leading(count);
  if (shape_[0] > 0) result.offset_bytes_ += begin * (bytes() / shape_[0]);
  return result;
}

Tensor Tensor::unwatched() const {
  Tensor result = *this;
  result.tape_ = nullptr;
  result.slot_ = -1;
  return result;
}

Tensor Tensor::clone() const {
  const Tensor result = empty_like(*this);
  result.copy_from(*this);
  return result;
}

Tensor Tensor::to(DType dtype) const {
  if (dtype == dtype_) return clone();
  const Tensor result = empty(shape_, dtype, device_);
  if (device_ != Device::kCpu) {
    convert_into(result, *this);
    return result;
  }
  dispatch_any(dtype_, [&]<class From>() {
    dispatch_any(dtype, [&]<class To>() {
      const From* source = data<From>();
      To* target = result.data<To>();
      for (std::int64_t i = 0, n = size(); i < n; ++i) target[i] = converted<To>(source[i]);
    });
  });
  return result;
}

double Tensor::item() const {
  check(size() == 1, "item: a tensor of shape ", shape_, ", expected one element");
  return to_vector<double>()[0];
}

void Tensor::fill_zero() const { system_memory(device_).fill_zero(raw(), bytes()); }

void Tensor::copy_from(const Tensor& source) const {
  check(source.shape() == shape_ && source.dtype() == dtype_, "copy_from: ", source.dtype(),
        source.shape(), " into ", dtype_, shape_);
  copy_bytes(raw(), device_, source.raw(), source.device(), bytes());
}

Tensor Tensor::to(Device device) const {
  const Tensor result = empty(shape_, dtype_, device);
  result.copy_from(*this);
  return result;
}

}  // namespace infini
