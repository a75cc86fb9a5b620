// Dense row-major tensors. A Tensor is a handle: copies share the same elements.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "tensor/allocator.h"
#include "tensor/device.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace infini {

class Tape;

class Tensor {
 public:
  Tensor() = default;

  static Tensor empty(const Shape& shape, DType dtype, Device device = Device::kCpu);
  static Tensor zeros(const Shape& shape, DType dtype, Device device = Device::kCpu);
  // Known by shape and type alone: false as a bool, and its elements must not be touched.
  static Tensor absent(const Shape& shape, DType dtype, Device device = Device::kCpu);
  static Tensor empty_like(const Tensor& other) {
    return empty(other.shape(), other.dtype(), other.device());
  }
  static Tensor zeros_like(const Tensor& other) {
    return zeros(other.shape(), other.dtype(), other.device());
  }
  // A CPU tensor holding a copy of values.
  template <class T>
  static Tensor of(std::span<const T> values, const Shape& shape);
  template <class T>
  static Tensor of(const std::vector<T>& values, const Shape& shape) {
    return of(std::span<const T>(values), shape);
  }

  explicit operator bool() const { return static_cast<bool>(storage_); }
  const Shape& shape() const { return shape_; }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  std::int64_t size() const { return shape_.size(); }
  std::int64_t bytes() const { return size() * bytes_of(dtype_); }

  // The extents by name: const auto [batch, tokens, width] = x.dims<3>(). Throws when the rank is
  // not n.
  template <int n>
  std::array<std::int64_t, n> dims() const {
    check(shape_.rank() == n, "expected a tensor of rank ", n, ", got ", shape_);
    std::array<std::int64_t, n> extents{};
    std::copy_n(shape_.begin(), n, extents.begin());
    return extents;
  }
  // Everything before the last axis folded into rows R, and the last axis C.
  std::array<std::int64_t, 2> rows_and_width() const {
    const std::int64_t width = shape_[-1];
    return {width ? size() / width : 0, width};
  }

  std::byte* raw() const { return storage_.get() + offset_bytes_; }
  // The first element; throws when T is not the element type.
  template <class T>
  T* data() const {
    check(dtype_ == dtype_of<T>(), "a tensor of ", dtype_, " read as ", dtype_of<T>());
    return reinterpret_cast<T*>(raw());
  }

  // The same elements under another shape of the same size; a gradient of one is a gradient of the
  // other.
  Tensor reshape(const Shape& shape) const;
  // Elements [begin, begin + count) of the leading axis. Not differentiable: throws when watched.
  Tensor slice(std::int64_t begin, std::int64_t count) const;

  // Copies, which carry no watch.
  Tensor clone() const;
  Tensor to(DType dtype) const;  // on a GPU between floating-point types only
  Tensor to(Device device) const;
  template <class T>
  std::vector<T> to_vector() const;  // converted to T, in row-major order
  double item() const;               // the only element

  // Writes; shapes and types must agree.
  void fill_zero() const;
  void copy_from(const Tensor& source) const;

  // The tape that watches this tensor, if any, and its number there.
  Tape* tape() const { return tape_; }
  int slot() const { return slot_; }
  Tensor unwatched() const;

 private:
  friend class Tape;

  std::shared_ptr<std::byte> storage_;
  std::int64_t offset_bytes_ = 0;
  Shape shape_;
  DType dtype_ = DType::kFloat32;
  Device device_ = Device::kCpu;
  Tape* tape_ = nullptr;
  int slot_ = -1;
};

template <class T>
Tensor Tensor::of(std::span<const T> values, const Shape& shape) {
  check(shape.size() == static_cast<std::int64_t>(values.size()), "Tensor::of: ", values.size(),
        " values for shape ", shape);
  const Tensor result = empty(shape, dtype_of<T>());
  std::copy(values.begin(), values.end(), result.data<T>());
  return result;
}

template <class T>
std::vector<T> Tensor::to_vector() const {
  const Tensor same = (device_ == Device::kCpu ? *this : to(Device::kCpu)).to(dtype_of<T>());
  return std::vector<T>(same.data<T>(), same.data<T>() + size());
}

}  // namespace infini
