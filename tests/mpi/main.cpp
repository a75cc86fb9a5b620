// Tests that every rank of an mpirun runs: each is a collective of all of them. An assertion that
// fails on any rank fails the run; rank 0 alone reports what passes. An exception that leaves a test
// ends the process, and with it the run: the other ranks would wait for this one.
#include <gtest/gtest.h>

#include "tests/mpi/ranks.h"

namespace infini {

const World& test_world() {
  static const World world;
  return world;
}

}  // namespace infini

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  GTEST_FLAG_SET(catch_exceptions, false);
  const infini::World& world = infini::test_world();
  auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
  if (!world.is_first()) delete listeners.Release(listeners.default_result_printer());
  if (!world.is_first()) listeners.Append(new infini::FailuresOnly(world.rank()));
  const int failed = RUN_ALL_TESTS();
  return infini::Communicator(world).all_agree(failed == 0) ? 0 : 1;
}
