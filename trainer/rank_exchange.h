// How ranks that share rows tell each other what their segments do to the memory.
#pragma once

#include "distributed/communicator.h"
#include "model/segment_groups.h"

namespace infini {

class RankExchange final : public SegmentExchange {
 public:
  explicit RankExchange(const Communicator& ranks) : ranks_(ranks) {}
  int groups() const override { return ranks_.size(); }
  int index() const override { return ranks_.rank(); }
  Tensor gather(const Tensor& mine) const override {
    const Tensor all = Tensor::empty({groups(), mine.size()}, mine.dtype(), mine.device());
    ranks_.all_gather(mine, all);
    ranks_.wait();
    return all;
  }

 private:
  Communicator ranks_;
};

}  // namespace infini
