#include "model/segment_groups.h"

#include <algorithm>

#include "tensor/ops/elementwise.h"
#include "tensor/system_memory.h"

namespace infini {
namespace {

int count_of(const SegmentGroups& groups) {
  return groups.exchange ? groups.exchange->groups() : 1;
}
int index_of(const SegmentGroups& groups) { return groups.exchange ? groups.exchange->index() : 0; }

struct GroupStates {
  std::vector<Tensor> before;  // this group
  std::vector<Tensor> after;   // the last group
};

// What everyone has of tensors of some shapes, one after the other in each row of `all` [P, n].
struct Gathered {
  Tensor all;
  std::vector<Shape> shapes;

  GroupPart part(std::size_t number) const {
    std::int64_t begin = 0;
    for (std::size_t i = 0; i < number; ++i) begin += shapes[i].size();
    return {.all = all, .begin = begin};
  }
};

// By one exchange; an empty tensor stands for zeros.
Gathered gather(const SegmentGroups& groups, const std::vector<Tensor>& mine,
                const std::vector<Shape>& shapes, DType dtype, Device device) {
  std::int64_t elements = 0;
  for (const Shape& shape : shapes) elements += shape.size();
  const bool is_whole = std::ranges::all_of(mine, [](const Tensor& one) { return bool{one}; });
  const Tensor packed = is_whole ? Tensor::empty({elements}, dtype, device)
                                 : Tensor::zeros({elements}, dtype, device);
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < mine.size(); begin += shapes[i++].size())
    if (mine[i]) packed.slice(begin, shapes[i].size()).copy_from(mine[i].reshape({mine[i].size()}));
  return {.all = groups.exchange ? groups.exchange->gather(packed) : packed.reshape({1, elements}),
          .shapes = shapes};
}

// A group adds its sums, each of `mine` [B, ...], to the initial state, which may be empty.
GroupStates add_over_groups(const SegmentGroups& groups, const std::vector<Tensor>& mine,
                            const std::vector<Tensor>& initial) {
  const int index = index_of(groups);
  const DType dtype = mine[0].dtype();
  const Device device = mine[0].device();
  const ScanBorders borders{.resets = groups.resets, .detach = groups.detach};
  std::vector<Shape> shapes;
  std::vector<Tensor> parts, inputs = mine;
  for (const Tensor& part : mine) {
    shapes.push_back(part.shape());
    parts.push_back(part.unwatched());
  }
  std::ranges::copy(initial, std::back_inserter(inputs));
  GroupStates result;
  {
    const Gathered sums = gather(groups, parts, shapes, dtype, device);
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      const Scan states =
          group_scan(sums.part(i), shapes[i], initial[i].unwatched(), index, borders);
      result.before.push_back(states.before);
      result.after.push_back(states.after);
    }
  }
  Tape* const tape = tape_of(inputs);
  if (!tape) return result;

  std::vector<Tensor*> outputs;
  for (Tensor& state : result.before) outputs.push_back(&state);
  for (Tensor& state : result.after) outputs.push_back(&state);
  tape->push(outputs, inputs, [=](std::span<const Tensor> doutputs, Gradients& gradients) {
    const std::size_t states = shapes.size();
    const std::vector<Tensor> dbefore(doutputs.begin(), doutputs.begin() + states);
    const Gathered all = gather(groups, dbefore, shapes, dtype, device);
    for (std::size_t i = 0; i < states; ++i)
      group_scan_grad(all.part(i), shapes[i], doutputs[states + i], index, borders,
                      gradients.of(static_cast<int>(i)),
                      gradients.of(static_cast<int>(states + i)));
  });
  return result;
}

// Entries 2q (where = 0) or 2q + 1 (where = 1) of tables [B, 2P, ...] hold what belongs to group q:
// entry 2q is the identity, so that its `before` is the state before group q, and entry 2q + 1 is
// the map of group q.
enum Where { kBefore = 0, kMap = 1 };

struct Table {
  Shape state;  // [B, ...]
  std::int64_t rows, state_elements, entries;

  Table(const Shape& one, int groups)
      : state(one),
        rows(one[0]),
        state_elements(rows ? one.size() / rows : 0),
        entries(2 * groups) {}
  Shape shape() const {
    std::vector<std::int64_t> extents(state.begin(), state.end());
    extents.insert(extents.begin() + 1, entries);
    return Shape(extents);
  }
  SystemMemory::Strip entry(const Tensor& table, int group, Where where) const {
    const std::int64_t element = bytes_of(table.dtype());
    return {table.raw() + (2 * group + where) * state_elements * element,
            entries * state_elements * element};
  }
  SystemMemory::Strip one(const Tensor& values) const {
    return {values.raw(), state_elements * bytes_of(values.dtype())};
  }
  void put(const Tensor& table, int group, Where where, const Tensor& values) const {
    system_memory(table.device())
        .copy(entry(table, group, where), one(values), state_elements * bytes_of(table.dtype()),
              rows);
  }
  Tensor get(const Tensor& table, int group, Where where) const {
    const Tensor values = Tensor::empty(state, table.dtype(), table.device());
    system_memory(table.device())
        .copy(one(values), entry(table, group, where), state_elements * bytes_of(table.dtype()),
              rows);
    return values;
  }
};

// Tables [B, 2P, ...] of everyone's tensors of these shapes, by one exchange.
std::vector<Tensor> gather_tables(const SegmentGroups& groups, const std::vector<Tensor>& mine,
                                  const std::vector<Shape>& shapes, Where where, DType dtype,
                                  Device device) {
  const Gathered everyone = gather(groups, mine, shapes, dtype, device);
  const auto [count, elements] = everyone.all.dims<2>();
  const Tensor flat = everyone.all.reshape({count * elements});
  std::vector<Tensor> tables;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    const Table layout(shapes[i], static_cast<int>(count));
    tables.push_back(Tensor::zeros(layout.shape(), dtype, device));
    for (int q = 0; q < count; ++q)
      layout.put(tables.back(), q, where,
                 flat.slice(q * elements + everyone.part(i).begin, shapes[i].size()));
  }
  return tables;
}

// The borders of the entries of a table: all that happens in a group happens before its map.
ScanBorders borders_of(const SegmentGroups& groups, std::int64_t rows) {
  const int count = count_of(groups);
  ScanBorders borders;
  if (groups.resets) {
    borders.resets = Tensor::zeros({rows, 2 * count}, DType::kUInt8, groups.resets.device());
    system_memory(groups.resets.device())
        .copy({borders.resets.raw() + 1, 2}, {groups.resets.raw(), 1}, 1, rows * count);
  }
  for (const std::uint8_t stops : groups.detach) {
    borders.detach.push_back(0);
    borders.detach.push_back(stops);
  }
  return borders;
}

// A copy whose gradient is added to that of x by itself: for an op that takes x twice.
Tensor copy_of(const Tensor& x) {
  return record(x.unwatched().clone(), {x}, [](const Tensor& dy, Gradients& gradients) {
    if (const GradTarget dx = gradients.of(0)) add_into(dx, dy);
  });
}

// A group applies the affine map of its two tensors, overlap and sums, each [B, Hk, K, K], to the
// state.
Scan map_over_groups(const SegmentGroups& groups, const Tensor& overlap, const Tensor& sums,
                     const Tensor& initial) {
  const int count = count_of(groups), index = index_of(groups);
  const DType dtype = sums.dtype();
  const Device device = sums.device();
  const Shape shape = sums.shape();
  const ScanBorders borders = borders_of(groups, shape[0]);
  const Tensor start = initial.unwatched();
  const std::vector<Tensor> maps = gather_tables(groups, {overlap.unwatched(), sums.unwatched()},
                                                 {shape, shape}, kMap, dtype, device);
  Scan result;
  {
    const Scan states = affine_scan(maps[0], maps[1], start, borders);
    result = {.before = Table(shape, count).get(states.before, index, kBefore),
              .after = states.after};
  }
  // The states are few: they are computed again rather than kept.
  const auto outputs = record_all<2>(
      {result.before, result.after}, {overlap, sums, initial},
      [=](std::span<const Tensor> doutputs, Gradients& gradients) {
        const std::vector<Tensor> dtables =
            gather_tables(groups, {doutputs[0]}, {shape}, kBefore, dtype, device);
        Tape again;
        const Tensor watched[] = {again.watch(maps[0]), again.watch(maps[1]),
                                  start ? again.watch(start) : start};
        const Scan states = affine_scan(watched[0], watched[1], watched[2], borders);
        again.seed(states.before, dtables[0]);
        if (doutputs[1]) again.seed(states.after, doutputs[1]);
        again.backward();
        for (int i = 0; i < 2; ++i)
          if (const GradTarget target = gradients.of(i))
            add_into(target, Table(shape, count).get(again.gradient(watched[i]), index, kMap));
        if (const GradTarget target = gradients.of(2)) add_into(target, again.gradient(watched[2]));
      });
  return {.before = outputs[0], .after = outputs[1]};
}

}  // namespace

MemoryScans accumulate_in_groups(const SegmentGroups& groups, const ScanBorders& borders,
                                 const Tensor& matrix_sums, const Tensor& normalizer_sums,
                                 const Tensor& matrix, const Tensor& normalizer) {
  const Tensor matrix_sum = scan(matrix_sums, {}, borders).after;
  const Tensor normalizer_sum = scan(normalizer_sums, {}, borders).after;
  const GroupStates around =
      add_over_groups(groups, {matrix_sum, normalizer_sum}, {matrix, normalizer});
  return {.matrix = {.before = scan(matrix_sums, around.before[0], borders).before,
                     .after = around.after[0]},
          .normalizer = {.before = scan(normalizer_sums, around.before[1], borders).before,
                         .after = around.after[1]}};
}

// Over a group the state goes from M to (I - D) M + U, with U the state after the group from none
// before it, and D from  I - D_s = (I - A_s) (I - D_{s-1}),  that is  D_s = D_{s-1} - A_s D_{s-1} +
// A_s:  the same recurrence with A in place of the sums. What a reset makes of D does not matter,
// since the map of a group that resets is applied to nothing.
MemoryScans affine_in_groups(const SegmentGroups& groups, const ScanBorders& borders,
                             const Tensor& matrix_sums, const Tensor& normalizer_sums,
                             const Tensor& matrix, const Tensor& normalizer,
                             const std::function<Tensor(const Tensor&)>& overlap) {
  const Tensor normalizer_sum = scan(normalizer_sums, {}, borders).after;
  const GroupStates sums = add_over_groups(groups, {normalizer_sum}, {normalizer});
  const Tensor before = scan(normalizer_sums, sums.before[0], borders).before;
  const Tensor taken = overlap(before);
  const Tensor group_overlap = affine_scan(taken, copy_of(taken), {}, borders).after;
  const Tensor group_sums = affine_scan(taken, matrix_sums, {}, borders).after;
  const Scan around = map_over_groups(groups, group_overlap, group_sums, matrix);
  return {.matrix = {.before = affine_scan(taken, matrix_sums, around.before, borders).before,
                     .after = around.after},
          .normalizer = {.before = before, .after = sums.after[0]}};
}

}  // namespace infini
