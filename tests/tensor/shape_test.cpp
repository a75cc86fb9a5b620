#include "tensor/shape.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace infini {
namespace {

using testing::ThrowsMessage;

TEST(Shape, CountsAxesFromBothEnds) {
  const Shape shape{2, 3, 5};
  EXPECT_EQ(shape.rank(), 3);
  EXPECT_EQ(shape.size(), 30);
  EXPECT_EQ(shape[0], 2);
  EXPECT_EQ(shape[-1], 5);
  EXPECT_EQ(text(shape), "[2, 3, 5]");
}

TEST(Shape, OfAScalarHasOneElementAndOfAnEmptyAxisNone) {
  EXPECT_EQ(Shape{}.size(), 1);
  EXPECT_EQ((Shape{4, 0, 3}.size()), 0);
  EXPECT_EQ(text(Shape{}), "[]");
}

TEST(Shape, ComparesExtentsAndRank) {
  EXPECT_EQ((Shape{2, 3}), (Shape{2, 3}));
  EXPECT_NE((Shape{2, 3}), (Shape{3, 2}));
  EXPECT_NE((Shape{2, 3}), (Shape{2, 3, 1}));
  EXPECT_EQ((Shape{2, 3}.with_leading(7)), (Shape{7, 3}));
}

TEST(Shape, RefusesWhatIsNotAShape) {
  const Shape pair{2, 3};
  EXPECT_THAT([] { Shape({2, -1}); }, ThrowsMessage<Error>("a tensor with extent -1 on axis 1"));
  EXPECT_THAT([&] { return pair[-3]; }, ThrowsMessage<Error>("axis -3 of a tensor of rank 2"));
  EXPECT_THAT([] { Shape{}.with_leading(1); },
              ThrowsMessage<Error>("a scalar has no leading axis"));
}

}  // namespace
}  // namespace infini
