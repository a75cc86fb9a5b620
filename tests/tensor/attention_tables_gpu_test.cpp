// Attention by tables gives the numbers of the CPU however many segments go at a time.
#ifdef INFINI_CUDA

#include "tensor/ops/attention_tables.h"
#include "tensor/system_memory.h"
#include "tests/tensor/op_run.h"

namespace infini {
namespace {

class GpuAttentionTables : public testing::TestWithParam<OpCase> {
 protected:
  void SetUp() override {
    if (!is_available(Device::kCuda)) GTEST_SKIP() << "this machine has no GPU";
  }
  void TearDown() override { set_attention_table_bytes(usual_); }

 private:
  const std::int64_t usual_ = attention_table_bytes();
};

std::vector<OpCase> cases() {
  std::vector<OpCase> rows;
  for (const OpCase& row : op_table())
    for (const char* op : {"relative_attention", "marked_attention", "attention_reconstruction"})
      if (row.name.starts_with(op)) rows.push_back(row);
  return rows;
}

// Of one segment each, and of two or three: borders of chunks lie inside batch rows.
TEST_P(GpuAttentionTables, EqualTheCpuInChunks) {
  const OpCase& row = GetParam();
  const Results here = run(row, inputs_of(row, DType::kFloat64));
  const std::vector<Tensor> inputs = inputs_of(row, DType::kFloat64, Device::kCuda);
  for (const std::int64_t bytes : {1, 12000, 600000}) {
    SCOPED_TRACE(bytes);
    set_attention_table_bytes(bytes);
    const Results there = run(row, inputs);
    expect_near(there.outputs, arrays(here.outputs), 1e-11, "output", 0.1);
    expect_near(there.gradients, arrays(here.gradients), 1e-11, "gradient", 0.1);
    const Results again = run(row, inputs);
    expect_same_bytes(again.outputs, there.outputs);
    expect_same_bytes(again.gradients, there.gradients);
  }
}

INSTANTIATE_TEST_SUITE_P(GpuOps, GpuAttentionTables, testing::ValuesIn(cases()), op_test_name);

}  // namespace
}  // namespace infini

#endif  // INFINI_CUDA
