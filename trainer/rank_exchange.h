// How ranks that share rows tell each other what their segments do to the memory, and how those
// that share blocks add up what each computes of them.
#pragma once

#include "distributed/communicator.h"
#include "model/segment_groups.h"
#include "tensor/tensor_group.h"

namespace infini {

// mine [n] of each -> [P, n].
inline Tensor gathered(const Communicator& ranks, const Tensor& mine) {
  const Tensor all = Tensor::empty({ranks.size(), mine.size()}, mine.dtype(), mine.device());
  ranks.all_gather(mine, all);
  ranks.wait();
  return all;
}

class RankExchange final : public SegmentExchange {
 public:
  explicit RankExchange(const Communicator& ranks) : ranks_(ranks) {}
  int groups() const override { return ranks_.size(); }
  int index() const override { return ranks_.rank(); }
  Tensor gather(const Tensor& mine) const override { return gathered(ranks_, mine); }

 private:
  Communicator ranks_;
};

class RankTensorGroup final : public TensorGroup {
 public:
  explicit RankTensorGroup(const Communicator& ranks) : ranks_(ranks) {}
  int count() const override { return ranks_.size(); }
  int index() const override { return ranks_.rank(); }
  void sum(const Tensor& values) const override { ranks_.all_reduce(values); }
  void wait() const override { ranks_.wait(); }
  Tensor gather(const Tensor& mine) const override { return gathered(ranks_, mine); }

 private:
  Communicator ranks_;
};

}  // namespace infini
