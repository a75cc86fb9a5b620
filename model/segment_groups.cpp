#include "model/segment_groups.h"

#include "tensor/ops/elementwise.h"
#include "tensor/system_memory.h"

namespace infini {
namespace {

int count_of(const SegmentGroups& groups) {
  return groups.exchange ? groups.exchange->groups() : 1;
}
int index_of(const SegmentGroups& groups) { return groups.exchange ? groups.exchange->index() : 0; }

// Entries 2q (where = 0) or 2q + 1 (where = 1) of tables [B, 2P, ...] hold what belongs to group q.
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

// Tables [B, 2P, ...] of everyone's tensors of these shapes, by one exchange; an empty tensor
// stands for zeros.
std::vector<Tensor> gather_tables(const SegmentGroups& groups, const std::vector<Tensor>& mine,
                                  const std::vector<Shape>& shapes, Where where, DType dtype,
                                  Device device) {
  std::int64_t elements = 0;
  for (const Shape& shape : shapes) elements += shape.size();
  const Tensor packed = Tensor::zeros({elements}, dtype, device);
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < mine.size(); begin += shapes[i++].size())
    if (mine[i]) packed.slice(begin, shapes[i].size()).copy_from(mine[i].reshape({mine[i].size()}));
  const int count = count_of(groups);
  const Tensor all = groups.exchange ? groups.exchange->gather(packed) : packed;
  const Tensor everyone = all.reshape({count * elements});

  std::vector<Tensor> tables;
  begin = 0;
  for (const Shape& shape : shapes) {
    const Table layout(shape, count);
    tables.push_back(Tensor::zeros(layout.shape(), dtype, device));
    for (int q = 0; q < count; ++q)
      layout.put(tables.back(), q, where, everyone.slice(q * elements + begin, shape.size()));
    begin += shape.size();
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

std::vector<Scan> accumulate(const std::vector<Tensor>& maps, const std::vector<Tensor>& initial,
                             const ScanBorders& borders) {
  std::vector<Scan> scans;
  for (std::size_t i = 0; i < maps.size(); ++i) scans.push_back(scan(maps[i], initial[i], borders));
  return scans;
}

std::vector<Scan> apply_affine(const std::vector<Tensor>& maps, const std::vector<Tensor>& initial,
                               const ScanBorders& borders) {
  return {affine_scan(maps[0], maps[1], initial[0], borders)};
}

}  // namespace

GroupStates over_groups(const SegmentGroups& groups, const std::vector<Tensor>& mine,
                        const std::vector<Tensor>& initial, const GroupScan& scan_groups) {
  const int count = count_of(groups), index = index_of(groups);
  const std::size_t states = initial.size();
  const DType dtype = mine[0].dtype();
  const Device device = mine[0].device();
  const ScanBorders borders = borders_of(groups, mine[0].shape()[0]);
  std::vector<Shape> map_shapes, state_shapes;
  std::vector<Tensor> parts, starts, inputs;
  for (const Tensor& part : mine) {
    map_shapes.push_back(part.shape());
    parts.push_back(part.unwatched());
    inputs.push_back(part);
  }
  for (const Tensor& start : initial) {
    starts.push_back(start.unwatched());
    inputs.push_back(start);
  }
  const std::vector<Tensor> maps = gather_tables(groups, parts, map_shapes, kMap, dtype, device);
  GroupStates result;
  for (const Scan& states_of : scan_groups(maps, starts, borders)) {
    state_shapes.push_back(states_of.after.shape());
    result.before.push_back(
        Table(states_of.after.shape(), count).get(states_of.before, index, kBefore));
    result.after.push_back(states_of.after);
  }
  Tape* const tape = tape_of(inputs);
  if (!tape) return result;

  std::vector<Tensor*> outputs;
  for (Tensor& state : result.before) outputs.push_back(&state);
  for (Tensor& state : result.after) outputs.push_back(&state);
  // The states are few: they are computed again rather than kept.
  tape->push(outputs, inputs, [=](std::span<const Tensor> doutputs, Gradients& gradients) {
    const std::vector<Tensor> dbefore(doutputs.begin(), doutputs.begin() + states);
    const std::vector<Tensor> dtables =
        gather_tables(groups, dbefore, state_shapes, kBefore, dtype, device);
    Tape again;
    std::vector<Tensor> watched_maps, watched_starts;
    for (const Tensor& map : maps) watched_maps.push_back(again.watch(map));
    for (const Tensor& start : starts) watched_starts.push_back(start ? again.watch(start) : start);
    const std::vector<Scan> scans = scan_groups(watched_maps, watched_starts, borders);
    for (std::size_t i = 0; i < states; ++i) {
      again.seed(scans[i].before, dtables[i]);
      if (doutputs[states + i]) again.seed(scans[i].after, doutputs[states + i]);
    }
    again.backward();
    for (std::size_t i = 0; i < map_shapes.size(); ++i)
      if (const GradTarget target = gradients.of(static_cast<int>(i)))
        add_into(target,
                 Table(map_shapes[i], count).get(again.gradient(watched_maps[i]), index, kMap));
    for (std::size_t i = 0; i < states; ++i)
      if (const GradTarget target = gradients.of(static_cast<int>(map_shapes.size() + i)))
        add_into(target, again.gradient(watched_starts[i]));
  });
  return result;
}

MemoryScans accumulate_in_groups(const SegmentGroups& groups, const ScanBorders& borders,
                                 const Tensor& matrix_sums, const Tensor& normalizer_sums,
                                 const Tensor& matrix, const Tensor& normalizer) {
  const GroupStates around = over_groups(
      groups, {scan(matrix_sums, {}, borders).after, scan(normalizer_sums, {}, borders).after},
      {matrix, normalizer}, accumulate);
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
  const GroupStates sums =
      over_groups(groups, {scan(normalizer_sums, {}, borders).after}, {normalizer}, accumulate);
  const Tensor before = scan(normalizer_sums, sums.before[0], borders).before;
  const Tensor taken = overlap(before);
  const GroupStates around = over_groups(groups,
                                         {affine_scan(taken, copy_of(taken), {}, borders).after,
                                          affine_scan(taken, matrix_sums, {}, borders).after},
                                         {matrix}, apply_affine);
  return {.matrix = {.before = affine_scan(taken, matrix_sums, around.before[0], borders).before,
                     .after = around.after[0]},
          .normalizer = {.before = before, .after = sums.after[0]}};
}

}  // namespace infini
