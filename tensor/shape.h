// The extents of a dense row-major tensor, outermost first.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <ostream>
#include <span>

#include "tensor/error.h"

namespace infini {

class Shape {
 public:
  static constexpr int kMaxRank = 6;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> extents)
      : Shape(std::span<const std::int64_t>(extents.begin(), extents.size())) {}
  explicit Shape(std::span<const std::int64_t> extents) : rank_(static_cast<int>(extents.size())) {
    check(extents.size() <= kMaxRank, "a tensor of rank ", extents.size(), ", at most ", kMaxRank);
    for (int i = 0; i < rank_; ++i) {
      check(extents[i] >= 0, "a tensor with extent ", extents[i], " on axis ", i);
      extents_[i] = extents[i];
    }
  }

  int rank() const { return rank_; }
  // Axis i; negative axes count from the last.
  std::int64_t operator[](int i) const {
    const int axis = i < 0 ? i + rank_ : i;
    check(axis >= 0 && axis < rank_, "axis ", i, " of a tensor of rank ", rank_);
    return extents_[axis];
  }
  // Number of elements; 1 for a scalar.
  std::int64_t size() const {
    std::int64_t product = 1;
    for (int i = 0; i < rank_; ++i) product *= extents_[i];
    return product;
  }
  // The same extents with axis 0 replaced.
  Shape with_leading(std::int64_t extent) const {
    check(rank_ > 0, "a scalar has no leading axis");
    Shape shape = *this;
    shape.extents_[0] = extent;
    return shape;
  }

  const std::int64_t* begin() const { return extents_.data(); }
  const std::int64_t* end() const { return extents_.data() + rank_; }

  friend bool operator==(const Shape& a, const Shape& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end());
  }
  friend std::ostream& operator<<(std::ostream& out, const Shape& shape) {
    out << '[';
    for (int i = 0; i < shape.rank_; ++i) out << (i ? ", " : "") << shape.extents_[i];
    return out << ']';
  }

 private:
  std::array<std::int64_t, kMaxRank> extents_{};
  int rank_ = 0;
};

}  // namespace infini
