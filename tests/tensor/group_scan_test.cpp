// The states around groups of segments, against the scan over a table in which each group has two
// entries, one that adds nothing and its own: the same numbers to the last bit.
#include <gtest/gtest.h>

#include "tensor/ops/scan.h"
#include "tensor/random.h"
#include "tensor/system_memory.h"

namespace infini {
namespace {

struct GroupCase {
  const char* name;
  std::int64_t groups, rows, state, begin, rest;  // numbers before and after the part
  bool starts, resets, detaches;
};

const GroupCase kCases[] = {
    {"one group", 1, 1, 8, 0, 0, true, false, false},
    {"two groups", 2, 1, 64, 0, 0, false, false, false},
    {"a part of what they told", 3, 2, 20, 4, 8, true, false, false},
    {"off the packs", 3, 2, 7, 3, 2, true, false, false},
    {"resets", 4, 3, 12, 0, 4, true, true, false},
    {"gradients cut", 4, 2, 12, 8, 0, true, false, true},
    {"everything", 5, 3, 2100, 4, 0, true, true, true},
};

Tensor random_numbers(const Shape& shape, std::uint32_t site, Device device) {
  const RandomKey key{.seed = 7, .site = site};
  std::vector<float> values(shape.size());
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(key.uniform(i)) - 0.5f;
  return Tensor::of(values, shape).to(device);
}

class GroupScan {
 public:
  GroupScan(const GroupCase& sizes, Device device) : n_(sizes), device_(device) {
    const std::int64_t numbers = n_.begin + n_.rows * n_.state + n_.rest;
    all_ = random_numbers({n_.groups, numbers}, 1, device);
    gradients_ = random_numbers({n_.groups, numbers}, 2, device);
    if (n_.starts) initial_ = random_numbers(state(), 3, device);
    dafter_ = random_numbers(state(), 4, device);
    std::vector<std::uint8_t> resets(n_.rows * n_.groups);
    for (std::size_t i = 0; i < resets.size(); ++i) resets[i] = n_.resets && i % 3 == 1;
    if (n_.resets) borders_.resets = Tensor::of(resets, {n_.rows, n_.groups}).to(device);
    if (n_.detaches)
      for (int q = 0; q < n_.groups; ++q) borders_.detach.push_back(q % 2);
  }

  void agrees_with_the_scan() const {
    const Tensor table = table_of(all_, 1);
    ScanBorders twice;
    if (n_.resets) twice.resets = resets_of_entries();
    for (const std::uint8_t stops : borders_.detach)
      twice.detach.insert(twice.detach.end(), {0, stops});
    Tape tape;
    const Tensor sums = tape.watch(table), first = initial_ ? tape.watch(initial_) : initial_;
    const Scan expected = scan(sums, first, twice);
    tape.seed(expected.before, table_of(gradients_, 0));
    tape.seed(expected.after, dafter_);
    tape.backward();
    const std::vector<float> before = numbers(expected.before),
                             dsums = numbers(tape.gradient(sums));
    for (int index = 0; index < n_.groups; ++index) {
      SCOPED_TRACE(text("group ", index));
      const Scan states = group_scan({all_, n_.begin}, state(), initial_, index, borders_);
      EXPECT_EQ(numbers(states.before), entry(before, 2 * index));
      EXPECT_EQ(numbers(states.after), numbers(expected.after));
      const Tensor dmine = random_numbers(state(), 5, device_),
                   dinitial = Tensor::empty_like(dmine);
      std::vector<float> mine = numbers(dmine);
      const std::vector<float> more = entry(dsums, 2 * index + 1);
      for (std::size_t i = 0; i < mine.size(); ++i) mine[i] += more[i];
      group_scan_grad({gradients_, n_.begin}, state(), dafter_, index, borders_,
                      {.tensor = dmine, .accumulate = true},
                      {.tensor = dinitial, .accumulate = false});
      EXPECT_EQ(numbers(dmine), mine);
      if (initial_) {
        EXPECT_EQ(numbers(dinitial), numbers(tape.gradient(first)));
      }
    }
  }

 private:
  Shape state() const { return {n_.rows, n_.state}; }
  static std::vector<float> numbers(const Tensor& tensor) { return tensor.to_vector<float>(); }
  // [P, numbers] -> [B, 2 P, state], group q at entry 2 q + where; zeros elsewhere.
  Tensor table_of(const Tensor& all, int where) const {
    const std::vector<float> from = numbers(all);
    const std::int64_t stride = all.shape()[1];
    std::vector<float> to(2 * n_.rows * n_.groups * n_.state);
    for (std::int64_t b = 0; b < n_.rows; ++b)
      for (std::int64_t q = 0; q < n_.groups; ++q)
        for (std::int64_t i = 0; i < n_.state; ++i)
          to[((b * n_.groups + q) * 2 + where) * n_.state + i] =
              from[q * stride + n_.begin + b * n_.state + i];
    return Tensor::of(to, {n_.rows, 2 * n_.groups, n_.state}).to(device_);
  }
  Tensor resets_of_entries() const {
    const std::vector<std::uint8_t> one = borders_.resets.to_vector<std::uint8_t>();
    std::vector<std::uint8_t> both(2 * one.size());
    for (std::size_t i = 0; i < one.size(); ++i) both[2 * i + 1] = one[i];
    return Tensor::of(both, {n_.rows, 2 * n_.groups}).to(device_);
  }
  // [B, 2 P, state] -> [B, state]
  std::vector<float> entry(const std::vector<float>& table, std::int64_t at) const {
    std::vector<float> values;
    for (std::int64_t b = 0; b < n_.rows; ++b) {
      const auto begin = table.begin() + (b * 2 * n_.groups + at) * n_.state;
      values.insert(values.end(), begin, begin + n_.state);
    }
    return values;
  }

  GroupCase n_;
  Device device_;
  Tensor all_, gradients_, initial_, dafter_;
  ScanBorders borders_;
};

TEST(GroupScanTest, IsTheScanOverGroups) {
  for (const GroupCase& sizes : kCases) {
    SCOPED_TRACE(sizes.name);
    GroupScan(sizes, Device::kCpu).agrees_with_the_scan();
  }
}

TEST(GpuGroupScan, IsTheScanOverGroups) {
  if (!is_available(Device::kCuda)) GTEST_SKIP() << "this machine has no GPU";
  for (const GroupCase& sizes : kCases) {
    SCOPED_TRACE(sizes.name);
    GroupScan(sizes, Device::kCuda).agrees_with_the_scan();
  }
}

TEST(GroupScanTest, RefusesWhatDoesNotFit) {
  const Tensor all = Tensor::zeros({2, 12}, DType::kFloat32, Device::kCpu);
  const auto said = [&](std::int64_t begin, int index, const ScanBorders& borders) -> std::string {
    try {
      group_scan({all, begin}, {2, 4}, {}, index, borders);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(said(4, 1, {}), "");
  EXPECT_EQ(said(5, 1, {}), "group_scan: a state [2, 4] from number 5 on, groups have 12");
  EXPECT_EQ(said(0, 2, {}), "group_scan: group 2 of 2");
  EXPECT_EQ(said(0, 0, {.resets = {}, .detach = {1}}), "group_scan: 1 detach marks for 2 groups");
  EXPECT_EQ(
      said(0, 0, {.resets = Tensor::zeros({2, 3}, DType::kUInt8, Device::kCpu), .detach = {}}),
      "group_scan: resets are [2, 3], expected [2, 2]");
}

}  // namespace
}  // namespace infini
