#include "data/loader.h"

#include "data/crops.h"
#include "data/lanes.h"
#include "tensor/error.h"
#include "tests/data/fixtures.h"

namespace infini {
namespace {

// Fails at one step.
class FailingSource final : public BatchSource {
 public:
  SequenceBatch batch(std::int64_t step, int, int rows) const override {
    check<DataError>(step != 5, "step ", step, " cannot be read");
    SequenceBatch batch = padded_batch(rows, 4, 2, static_cast<std::int32_t>(step));
    finish_batch(batch);
    return batch;
  }
  int batch_rows() const override { return 2; }
  std::int64_t steps_per_epoch() const override { return 0; }
  int vocabulary() const override { return 100; }
  std::string description() const override { return "fails"; }
};

TEST(Loader, GivesWhatTheSourceGives) {
  const TempFolder folder;
  const auto store = small_store(folder / "a.h5", {70, 33, 5, 120});
  const LaneSource lanes(store, {3, 16, 8}, 4);
  const CropSource crops(store, {3, 16, 8}, 4);
  for (const BatchSource* source :
       {static_cast<const BatchSource*>(&lanes), static_cast<const BatchSource*>(&crops)}) {
    BatchLoader all(*source, 3);
    BatchLoader some(*source, 3, 1, 2, 4);
    for (std::int64_t step = 3; step < 30; ++step) {
      EXPECT_EQ(all.step(), step);
      EXPECT_EQ(all.next(), source->batch(step));
      EXPECT_EQ(some.next(), source->batch(step, 1, 2));
    }
  }
}

TEST(Loader, PassesAnExceptionOnAtItsStep) {
  const FailingSource source;
  BatchLoader loader(source, 2);
  for (int step = 2; step < 5; ++step) EXPECT_EQ(loader.next().tokens[0], step);
  for (int again = 0; again < 2; ++again)
    EXPECT_EQ(message_of<DataError>([&] { loader.next(); }), "step 5 cannot be read");
}

TEST(Loader, StopsCleanlyWhereverItIs) {
  const FailingSource source;
  for (int i = 0; i < 50; ++i) {
    BatchLoader loader(source, i % 7, 0, 2, 1 + i % 3);
    if (i % 7 != 5 && i % 2) loader.next();
  }
}

}  // namespace
}  // namespace infini
