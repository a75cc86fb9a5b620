#include "trainer/parallel_checks.h"

namespace infini {

void check_parallel(const RunConfig& config, const Layout& layout) {
  const int parts = layout.data * config.train.accumulate;
  check<ConfigError>(config.data.batch_rows % parts == 0,
                     "data.batch_rows = ", config.data.batch_rows,
                     " is not divisible by parallel.data = ", layout.data,
                     " times train.accumulate = ", config.train.accumulate);
  if (const int leaves = config.parallel.row_leaves) {
    check<ConfigError>(leaves % layout.data == 0, "parallel.row_leaves = ", leaves,
                       " is not divisible by parallel.data = ", layout.data);
    check<ConfigError>(config.data.batch_rows % leaves == 0,
                       "data.batch_rows = ", config.data.batch_rows,
                       " is not divisible by parallel.row_leaves = ", leaves);
    check<ConfigError>(config.train.accumulate == 1, "train.accumulate = ", config.train.accumulate,
                       ", but parallel.row_leaves = ", leaves,
                       " cuts the rows of a step already; leave one of them out");
  }
}

}  // namespace infini
