#include "distributed/owners.h"

#include <gtest/gtest.h>

namespace infini {
namespace {

using Owners = std::vector<int>;

TEST(Owners, ShareConsecutiveThingsEvenly) {
  EXPECT_EQ(owners_of(std::vector<std::int64_t>{1, 1, 1, 1}, 2), (Owners{0, 0, 1, 1}));
  EXPECT_EQ(owners_of(std::vector<std::int64_t>{3, 1, 1, 1}, 2), (Owners{0, 1, 1, 1}));
  EXPECT_EQ(owners_of(std::vector<std::int64_t>{8, 1, 1}, 3), (Owners{1, 2, 2}));
  EXPECT_EQ(owners_of(std::vector<std::int64_t>{5, 7}, 1), (Owners{0, 0}));
  EXPECT_EQ(owners_of(std::vector<std::int64_t>{0, 0}, 2), (Owners{0, 0}));
}

TEST(Owners, NeighboursOfOneOwnerAreOnePiece) {
  const auto pieces =
      pieces_of(std::vector<std::int64_t>{2, 3, 1, 4}, Owners{0, 0, FlatPiece::kEveryone, 0});
  ASSERT_EQ(pieces.size(), 3u);
  EXPECT_EQ(pieces[0].end, 5);
  EXPECT_EQ(pieces[1].owner, FlatPiece::kEveryone);
  EXPECT_EQ(pieces[2].begin, 6);
  EXPECT_EQ(pieces[2].size(), 4);
}

}  // namespace
}  // namespace infini
