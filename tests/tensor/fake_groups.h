// Groups of two of which one process is real, so that ops on parts run on any device by themselves.
#pragma once

#include <limits>

#include "tensor/ops/elementwise.h"
#include "tensor/tensor_group.h"

namespace infini {

// The other adds nothing to any sum, nor, having no logits, to a softmax.
class SilentGroup final : public TensorGroup {
 public:
  explicit SilentGroup(int index) : index_(index) {}
  int count() const override { return 2; }
  int index() const override { return index_; }
  void sum(const Tensor&) const override {}
  void wait() const override {}
  // mine: highest logits, sums of exponentials and targets' logits (cross_entropy.h).
  Tensor gather(const Tensor& mine) const override {
    const std::int64_t count = mine.size();
    std::vector<double> nothing(static_cast<std::size_t>(count));
    std::fill_n(nothing.begin(), count / 3, double{std::numeric_limits<float>::lowest()});
    const Tensor all = Tensor::empty({2, count}, mine.dtype(), mine.device());
    all.slice(index_, 1).copy_from(mine.reshape({1, count}));
    all.slice(1 - index_, 1)
        .copy_from(Tensor::of(nothing, {1, count}).to(mine.dtype()).to(mine.device()));
    return all;
  }

 private:
  int index_;
};

// The other has the same as this one.
class TwinGroup final : public TensorGroup {
 public:
  int count() const override { return 2; }
  int index() const override { return 0; }
  void sum(const Tensor& values) const override {
    add_into({.tensor = values, .accumulate = true}, values.clone());
  }
  void wait() const override {}
  Tensor gather(const Tensor& mine) const override {
    const Tensor all = Tensor::empty({2, mine.size()}, mine.dtype(), mine.device());
    for (int p = 0; p < 2; ++p) all.slice(p, 1).copy_from(mine.reshape({1, mine.size()}));
    return all;
  }
};

}  // namespace infini
