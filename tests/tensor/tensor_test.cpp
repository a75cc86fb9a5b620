#include "tensor/tensor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tensor/tape.h"

namespace infini {
namespace {

using testing::ElementsAre;
using testing::ThrowsMessage;

Tensor counting(const Shape& shape) {
  std::vector<float> values(shape.size());
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  return Tensor::of(values, shape);
}

TEST(Tensor, IsAHandleOnItsElements) {
  const Tensor a = counting({2, 3}), b = a;
  a.data<float>()[4] = 40;
  EXPECT_THAT(b.to_vector<float>(), ElementsAre(0, 1, 2, 3, 40, 5));
  EXPECT_FALSE(Tensor{});
  EXPECT_TRUE(Tensor::zeros({0}, DType::kFloat32));
}

TEST(Tensor, SlicesAndReshapesShareElements) {
  const Tensor a = counting({4, 3});
  const Tensor row = a.slice(2, 1).reshape({3});
  EXPECT_THAT(row.to_vector<float>(), ElementsAre(6, 7, 8));
  a.slice(1, 2).slice(1, 1).fill_zero();
  EXPECT_THAT(row.to_vector<float>(), ElementsAre(0, 0, 0));
  EXPECT_EQ(a.to_vector<float>()[5], 5);
  EXPECT_EQ(a.to_vector<float>()[9], 9);
  EXPECT_EQ(a.slice(4, 0).size(), 0);
  EXPECT_EQ(a.slice(1, 3).bytes(), 36);
}

TEST(Tensor, OutlivesTheTensorItIsAViewOf) {
  Tensor view;
  {
    const Tensor whole = counting({100, 10});
    view = whole.slice(99, 1);
  }
  EXPECT_EQ(view.to_vector<float>().front(), 990);
}

TEST(Tensor, CopiesAreApart) {
  const Tensor a = counting({3}), b = a.clone();
  a.fill_zero();
  EXPECT_THAT(b.to_vector<float>(), ElementsAre(0, 1, 2));
  a.copy_from(b);
  EXPECT_THAT(a.to_vector<float>(), ElementsAre(0, 1, 2));
  const Tensor same = a.to(DType::kFloat32);
  same.fill_zero();
  EXPECT_THAT(a.to_vector<float>(), ElementsAre(0, 1, 2));
}

TEST(Tensor, ConvertsBetweenAllTypes) {
  const Tensor a = Tensor::of(std::vector<double>{0, 1, 257, 3}, {4});
  EXPECT_THAT(a.to(DType::kBFloat16).to_vector<double>(), ElementsAre(0, 1, 256, 3));
  EXPECT_THAT(a.to(DType::kInt32).to_vector<std::int64_t>(), ElementsAre(0, 1, 257, 3));
  EXPECT_THAT(a.to(DType::kInt64).to(DType::kFloat32).to_vector<float>(),
              ElementsAre(0, 1, 257, 3));
  EXPECT_EQ(Tensor::of(std::vector<std::uint8_t>{7}, {}).item(), 7);
}

TEST(Tensor, TellsItsExtentsByName) {
  const Tensor a = counting({2, 3, 4});
  const auto [batch, tokens, width] = a.dims<3>();
  EXPECT_EQ(batch * 100 + tokens * 10 + width, 234);
  const auto [rows, columns] = a.rows_and_width();
  EXPECT_EQ(rows, 6);
  EXPECT_EQ(columns, 4);
  EXPECT_EQ(Tensor::zeros({3, 0}, DType::kFloat32).rows_and_width()[0], 0);
}

TEST(Tensor, RefusesWhatDoesNotFit) {
  const Tensor a = counting({2, 3});
  EXPECT_THAT([&] { (void)a.reshape({4}); },
              ThrowsMessage<Error>("reshape: [2, 3] has 6 elements, [4] has 4"));
  EXPECT_THAT([&] { (void)a.slice(1, 2); }, ThrowsMessage<Error>("slice: [1, 3) of an axis of 2"));
  EXPECT_THAT([&] { (void)a.slice(-1, 1); },
              ThrowsMessage<Error>("slice: [-1, 0) of an axis of 2"));
  EXPECT_THAT([&] { (void)a.data<double>(); }, ThrowsMessage<Error>("a tensor of f32 read as f64"));
  EXPECT_THAT([&] { (void)a.dims<3>(); },
              ThrowsMessage<Error>("expected a tensor of rank 3, got [2, 3]"));
  EXPECT_THAT([&] { (void)a.item(); },
              ThrowsMessage<Error>("item: a tensor of shape [2, 3], expected one element"));
  EXPECT_THAT(
      [&] {
        a.copy_from(counting({3, 2}));
      },
      ThrowsMessage<Error>("copy_from: f32[3, 2] into f32[2, 3]"));
  EXPECT_THAT([&] { a.copy_from(a.to(DType::kFloat64)); },
              ThrowsMessage<Error>("copy_from: f64[2, 3] into f32[2, 3]"));
  EXPECT_THAT(
      [] {
        Tensor::of(std::vector<float>{1, 2}, {3});
      },
      ThrowsMessage<Error>("Tensor::of: 2 values for shape [3]"));
}

TEST(Tensor, RefusesToSliceWhatIsWatched) {
  Tape tape;
  const Tensor watched = tape.watch(counting({2, 3}));
  EXPECT_THAT([&] { (void)watched.slice(0, 1); },
              ThrowsMessage<Error>("slice: a slice of a watched tensor has no gradient"));
  EXPECT_EQ(watched.unwatched().slice(0, 1).size(), 3);
}

}  // namespace
}  // namespace infini
