// Processes that share each block of a model: every one holds a part of each matrix, and ops that
// use such parts add up or gather what the others compute.
#pragma once

#include "tensor/tape.h"

namespace infini {

// All processes of the group make the same calls in the same order.
class TensorGroup {
 public:
  virtual ~TensorGroup() = default;
  virtual int count() const = 0;  // P
  virtual int index() const = 0;  // of this process, 0 .. P - 1
  // values = the sum over all, the same bits on each. What the device is asked for after wait()
  // sees it; until then the values must be left alone.
  virtual void sum(const Tensor& values) const = 0;
  virtual void wait() const = 0;
  // mine [n] -> [P, n], everyone's in their order.
  virtual Tensor gather(const Tensor& mine) const = 0;
};

// A gradient of which every process of a group computes a part; without a group (null) the part is
// the whole.
class PartialGradient {
 public:
  PartialGradient(const GradTarget& target, const TensorGroup* group);

  // Where this process's part goes; empty when nobody asked.
  const GradTarget& part() const { return part_; }
  // The part is computed: the sum sets out, and other work may go on until it arrives.
  void send() const;
  void receive() const;

 private:
  GradTarget target_, part_;
  const TensorGroup* group_;
};

}  // namespace infini
