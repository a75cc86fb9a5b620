#include "distributed/communicator.h"

#include <cmath>

#include "distributed/layout.h"
#include "tests/mpi/ranks.h"

namespace infini {
namespace {

// Values that round differently in every order of addition.
double value_of(int rank, std::int64_t i) {
  return std::sin(1.7 * static_cast<double>(i) + rank) * std::pow(10.0, (rank * 3 + i) % 7);
}

template <class T>
Tensor values_of(int rank, std::int64_t count) {
  std::vector<T> values;
  for (std::int64_t i = 0; i < count; ++i)
    values.push_back(T(static_cast<float>(value_of(rank, i))));
  return Tensor::of(values, {count});
}

template <class A>
A tree(int begin, int end, std::int64_t i) {
  if (end - begin == 1) return static_cast<A>(static_cast<float>(value_of(begin, i)));
  const int middle = (begin + end) / 2;
  return tree<A>(begin, middle, i) + tree<A>(middle, end, i);
}

TEST(Communicator, SumsAsATreeOverTheRanksToTheLastBit) {
  const Communicator all(test_world());
  for (const std::int64_t count : {1, 7, 4097, 3000000}) {
    const Tensor sum = values_of<float>(all.rank(), count);
    all.all_reduce(sum);
    std::int64_t wrong = 0;
    for (std::int64_t i = 0; i < count; ++i)
      wrong += sum.data<float>()[i] != tree<float>(0, all.size(), i);
    EXPECT_EQ(wrong, 0) << count;
  }
  const Tensor doubles = values_of<double>(all.rank(), 33);
  all.all_reduce(doubles);
  for (std::int64_t i = 0; i < 33; ++i)
    EXPECT_EQ(doubles.data<double>()[i], tree<double>(0, all.size(), i));
}

TEST(Communicator, SumsOnOneRankAndByPiecesAreTheSameSums) {
  const Communicator all(test_world());
  const int ranks = all.size();
  const int root = ranks - 1;
  const Tensor sum = values_of<float>(all.rank(), 100);
  all.reduce(sum, root);
  if (all.rank() == root) {
    for (std::int64_t i = 0; i < 100; ++i)
      EXPECT_EQ(sum.data<float>()[i], tree<float>(0, ranks, i));
  }

  constexpr std::int64_t kPiece = 11;
  const Tensor mine = Tensor::empty({kPiece}, DType::kFloat32);
  all.reduce_scatter(values_of<float>(all.rank(), kPiece * ranks), mine);
  for (std::int64_t i = 0; i < kPiece; ++i)
    EXPECT_EQ(mine.data<float>()[i], tree<float>(0, ranks, all.rank() * kPiece + i));
}

TEST(Communicator, MovesTensorsAsTheyAre) {
  const Communicator all(test_world());
  const int ranks = all.size(), rank = all.rank();
  const Tensor mine = Tensor::of(std::vector<std::int32_t>{rank, 10 * rank}, {2});
  const Tensor everyone = Tensor::empty({ranks, 2}, DType::kInt32);
  all.all_gather(mine, everyone);
  for (int p = 0; p < ranks; ++p) {
    EXPECT_EQ(everyone.data<std::int32_t>()[2 * p], p);
    EXPECT_EQ(everyone.data<std::int32_t>()[2 * p + 1], 10 * p);
  }

  const Tensor shared = values_of<double>(rank, 5);
  all.broadcast(shared, ranks - 1);
  EXPECT_EQ(shared.to_vector<double>(), values_of<double>(ranks - 1, 5).to_vector<double>());

  // Along a ring, even ranks first.
  const Tensor received = Tensor::empty({5}, DType::kFloat64);
  const int next = (rank + 1) % ranks, last = (rank + ranks - 1) % ranks;
  if (rank % 2 == 0) all.send(values_of<double>(rank, 5), next);
  all.receive(received, last);
  if (rank % 2 == 1) all.send(values_of<double>(rank, 5), next);
  EXPECT_EQ(received.to_vector<double>(), values_of<double>(last, 5).to_vector<double>());
  all.wait();
}

TEST(Communicator, AgreesAndGathersOnTheHost) {
  const Communicator all(test_world());
  EXPECT_TRUE(all.all_agree(true));
  EXPECT_FALSE(all.all_agree(all.rank() != all.size() - 1));
  const std::vector<double> ranks = all.gather(all.rank());
  for (int p = 0; p < all.size(); ++p) EXPECT_EQ(ranks[p], p);
}

// The tests run on 2 and on 4 ranks.
TEST(Layout, NeighboursShareWhatExchangesMost) {
  const Communicator all(test_world());
  const Layout layout = make_layout(all, {.data = 0, .tensor = 2});
  EXPECT_EQ(layout.data, all.size() / 2);
  EXPECT_EQ(layout.tensor_group.size(), 2);
  EXPECT_EQ(layout.tensor_index, all.rank() % 2);
  EXPECT_EQ(layout.data_group.size(), layout.data);
  EXPECT_EQ(layout.data_group.rank(), layout.data_index);
  EXPECT_EQ(layout.replicas.size(), layout.data);
  EXPECT_EQ(layout.segment_group.size(), 1);

  const Layout rows = make_layout(all, {.data = 0, .segment = 2});
  EXPECT_EQ(rows.segment_group.rank(), rows.segment_index);
  EXPECT_EQ(rows.replicas.size(), all.size());
}

TEST(Layout, RefusesAxesThatDoNotMultiplyToTheRanks) {
  const Communicator all(test_world());
  try {
    make_layout(all, {.data = 5, .tensor = 3});
    ADD_FAILURE() << "nothing was thrown";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("parallel.data = 5 times parallel.tensor = 3"),
              std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace infini
