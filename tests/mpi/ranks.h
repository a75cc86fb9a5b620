// What tests on several ranks share.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>

#include "distributed/communicator.h"
#include "distributed/world.h"

namespace infini {

const World& test_world();

// The first `count` ranks as a group; false where this rank is none of them.
inline bool first_ranks(int count, Communicator& group) {
  const Communicator all(test_world());
  const bool takes_part = all.rank() < count;
  group = all.split(takes_part ? 0 : 1);
  return takes_part;
}

// Says what failed on a rank other than the first.
class FailuresOnly : public ::testing::EmptyTestEventListener {
 public:
  explicit FailuresOnly(int rank) : rank_(rank) {}
  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (result.failed())
      std::fprintf(stderr, "rank %d: %s:%d: %s\n", rank_, result.file_name(), result.line_number(),
                   result.summary());
  }

 private:
  int rank_;
};

}  // namespace infini
