#include "trainer/plan_scans.h"

namespace infini {
namespace {

// Numbers of one row's state.
std::int64_t matrix_size(const HeadLayout& layout) {
  return std::int64_t{layout.kv_heads} * layout.head_width * layout.head_width;
}
std::int64_t normalizer_size(const HeadLayout& layout) {
  return std::int64_t{layout.kv_heads} * layout.head_width;
}
}  // namespace

Sized PlannedMemory::overlap(SizeTape* tape, const Sized& qkv, const Sized& normalizer,
                             const HeadLayout& layout) const {
  Sized made = ops_.make_full(layout.batch * layout.segments * matrix_size(layout));
  const double bytes = ops_.key_bytes(layout);
  ops_.trace().work.overlap_bytes += bytes;
  ++ops_.trace().work.kernels;
  if (tape)
    tape->push(
        {&made}, {qkv, normalizer},
        [=, this, kept = qkv.block, z = normalizer.block](const auto&, const auto& gradients) {
          const auto dqkv = gradients.of(0), dnormalizer = gradients.of(1);
          Trace::Block scratch;
          if (ops_.on_gpu() && !ops_.has_fast_kernels(layout))
            scratch =
                ops_.workspace(layout.rows() * (normalizer_size(layout) + 2 * layout.kv_heads) *
                               ops_.options().full_bytes);
          ops_.trace().work.overlap_bytes += 3 * bytes;
          ++ops_.trace().work.kernels;
        });
  return made;
}

PlannedMemory::Scan PlannedMemory::scan(SizeTape* tape, const Sized& overlap, const Sized& sums,
                                        const Sized& initial, std::int64_t rows,
                                        std::int64_t entries, std::int64_t state) const {
  Scan made{.before = ops_.make_full(rows * entries * state),
            .after = ops_.make_full(rows * state)};
  const double bytes = static_cast<double>(rows * entries * state * ops_.options().full_bytes);
  const bool affine = static_cast<bool>(overlap);
  const auto work = [this, affine, bytes](double linear, double moved) {
    Work& done = ops_.trace().work;
    (affine ? done.affine_scan_bytes : done.scan_bytes) += (affine ? moved : linear) * bytes;
    ++done.kernels;
  };
  work(2, 3);
  // Accumulating reads nothing back.
  const Trace::Block kept = affine ? made.before.block : nullptr;
  if (tape)
    tape->push({&made.before, &made.after}, {overlap, sums, initial},
               [=, this, map = overlap.block](const auto&, const auto& gradients) {
                 const auto doverlap = gradients.of(0), dsums = gradients.of(1);
                 const auto dinitial = gradients.of(2);
                 work(2, 5);
                 (void)kept;
               });
  return made;
}

PlannedMemory::History PlannedMemory::accumulate(SizeTape* tape, const Sized& qkv,
                                                 const SizedState& added, const HeadLayout& layout,
                                                 const SizedState& memory) const {
  if (groups_ > 0) return accumulate_in_groups(tape, qkv, added, layout, memory);
  const auto over_segments = [&](const Sized& map, const Sized& part, const Sized& initial,
                                 std::int64_t state) {
    return scan(tape, map, part, initial, layout.batch, layout.segments, state);
  };
  const Scan normalizer =
      over_segments({}, added.normalizer, memory.normalizer, normalizer_size(layout));
  const Scan matrix = rule_ == MemoryRule::kLinear
                          ? over_segments({}, added.matrix, memory.matrix, matrix_size(layout))
                          : over_segments(overlap(tape, qkv, normalizer.before, layout),
                                          added.matrix, memory.matrix, matrix_size(layout));
  return {.before = {.matrix = matrix.before, .normalizer = normalizer.before},
          .after = {.matrix = matrix.after, .normalizer = normalizer.after}};
}

Sized PlannedMemory::gather(std::int64_t elements) const {
  const Sized packed = ops_.make_full(elements, MemoryKind::kExchange);
  if (groups_ == 1) return packed;
  const Sized all = ops_.make_full(groups_ * elements, MemoryKind::kExchange);
  ++ops_.trace().work.segment_gathers;
  ops_.trace().work.segment_gather_bytes +=
      static_cast<double>(elements * ops_.options().full_bytes);
  return all;
}

std::vector<Sized> PlannedMemory::gather_tables(int count, std::int64_t size,
                                                std::int64_t rows) const {
  const Sized everyone = gather(count * rows * size);
  std::vector<Sized> tables;
  for (int i = 0; i < count; ++i)
    tables.push_back(ops_.make_full(rows * 2 * groups_ * size, MemoryKind::kExchange));
  return tables;
}

PlannedMemory::GroupStates PlannedMemory::add_over_groups(SizeTape* tape,
                                                          const std::vector<Sized>& mine,
                                                          const std::vector<std::int64_t>& sizes,
                                                          const std::vector<Sized>& initial,
                                                          std::int64_t rows) const {
  std::int64_t elements = 0;
  for (const std::int64_t size : sizes) elements += rows * size;
  const auto work = [=, this] {
    ops_.trace().work.scan_bytes +=
        static_cast<double>((groups_ + 2) * elements * ops_.options().full_bytes);
    ops_.trace().work.kernels += 2 * static_cast<int>(sizes.size());  // with the copies
  };
  std::vector<Sized> inputs = mine;
  for (const Sized& start : initial) inputs.push_back(start);
  GroupStates result;
  {
    const Sized all = gather(elements);
    for (const std::int64_t size : sizes) {
      result.before.push_back(ops_.make_full(rows * size));
      result.after.push_back(ops_.make_full(rows * size));
    }
    work();
  }
  if (!tape) return result;
  std::vector<Sized*> outputs;
  for (Sized& state : result.before) outputs.push_back(&state);
  for (Sized& state : result.after) outputs.push_back(&state);
  tape->push(outputs, inputs, [=, this, count = inputs.size()](const auto&, const auto& gradients) {
    const Sized all = gather(elements);
    work();
    for (std::size_t i = 0; i < count; ++i) gradients.of(i);
  });
  return result;
}

PlannedMemory::Scan PlannedMemory::map_over_groups(SizeTape* tape, const Sized& overlap,
                                                   const Sized& sums, const Sized& initial,
                                                   std::int64_t size, std::int64_t rows) const {
  const std::int64_t entries = 2 * groups_;
  const Sized start = initial.unwatched();
  const std::vector<Sized> maps = gather_tables(2, size, rows);
  Scan result;
  {
    const Scan states = scan(nullptr, maps[0], maps[1], start, rows, entries, size);
    result = {.before = ops_.make_full(rows * size), .after = states.after};
  }
  if (!tape) return result;
  tape->push({&result.before, &result.after}, {overlap, sums, initial},
             [=, this](const auto& doutputs, const auto& gradients) {
               const std::vector<Sized> dtables = gather_tables(1, size, rows);
               SizeTape again(ops_.trace());
               const Sized watched[] = {again.watch(maps[0]), again.watch(maps[1]),
                                        start ? again.watch(start) : start};
               const Scan states =
                   scan(&again, watched[0], watched[1], watched[2], rows, entries, size);
               again.seed(states.before);
               if (doutputs[1]) again.seed(states.after);
               again.backward();
               for (std::size_t i = 0; i < 3; ++i) gradients.of(i);
             });
  return result;
}

PlannedMemory::History PlannedMemory::accumulate_in_groups(SizeTape* tape, const Sized& qkv,
                                                           const SizedState& added,
                                                           const HeadLayout& layout,
                                                           const SizedState& memory) const {
  const std::int64_t matrix = matrix_size(layout), normalizer = normalizer_size(layout);
  const std::int64_t rows = layout.batch;
  const auto over_segments = [&](const Sized& map, const Sized& part, const Sized& initial,
                                 std::int64_t state) {
    return scan(tape, map, part, initial, rows, layout.segments, state);
  };
  const auto of_group = [&](const Sized& map, const Sized& part, std::int64_t state) {
    return over_segments(map, part, {}, state).after;
  };
  if (rule_ == MemoryRule::kLinear) {
    const Sized matrix_sum = of_group({}, added.matrix, matrix);
    const Sized normalizer_sum = of_group({}, added.normalizer, normalizer);
    const GroupStates around =
        add_over_groups(tape, {matrix_sum, normalizer_sum}, {matrix, normalizer},
                        {memory.matrix, memory.normalizer}, rows);
    return {
        .before = {.matrix = over_segments({}, added.matrix, around.before[0], matrix).before,
                   .normalizer =
                       over_segments({}, added.normalizer, around.before[1], normalizer).before},
        .after = {.matrix = around.after[0], .normalizer = around.after[1]}};
  }
  const Sized normalizer_sum = of_group({}, added.normalizer, normalizer);
  const GroupStates sums_of =
      add_over_groups(tape, {normalizer_sum}, {normalizer}, {memory.normalizer}, rows);
  const Sized before = over_segments({}, added.normalizer, sums_of.before[0], normalizer).before;
  const Sized taken = overlap(tape, qkv, before, layout);
  const auto copy_of = [&](const Sized& x) {
    Sized copy = ops_.make_full(rows * layout.segments * matrix);
    if (tape) tape->push({&copy}, {x}, [](const auto&, const auto& gradients) { gradients.of(0); });
    return copy;
  };
  const Sized group_overlap = of_group(taken, copy_of(taken), matrix);
  const Sized group_sums = of_group(taken, added.matrix, matrix);
  const Scan around = map_over_groups(tape, group_overlap, group_sums, memory.matrix, matrix, rows);
  return {.before = {.matrix = over_segments(taken, added.matrix, around.before, matrix).before,
                     .normalizer = before},
          .after = {.matrix = around.after, .normalizer = sums_of.after[0]}};
}

Sized PlannedMemory::recall(SizeTape* tape, const Sized& qkv, const SizedState& before,
                            const Sized& gate, const Sized& local, const HeadLayout& layout) const {
  if (rule_ == MemoryRule::kNone) return local;
  Sized y = ops_.make(layout.rows() * layout.query_width());
  const double bytes =
      static_cast<double>(layout.rows() * layout.query_width() * ops_.options().element_bytes);
  ops_.trace().work.memory_bytes += 3 * bytes;
  ++ops_.trace().work.kernels;
  if (tape)
    tape->push({&y}, {qkv, before.matrix, before.normalizer, gate, local},
               [=, this, q = qkv.block, m = before.matrix.block, z = before.normalizer.block,
                l = local.block](const auto&, const auto& gradients) {
                 const auto dqkv = gradients.of(0), dmatrix = gradients.of(1);
                 const auto dnormalizer = gradients.of(2), dlocal = gradients.of(4);
                 Trace::Block scratch;
                 if (ops_.on_gpu() && !ops_.has_fast_kernels(layout))
                   scratch =
                       ops_.workspace(layout.rows() * (layout.query_width() + 4 * layout.heads) *
                                      ops_.options().full_bytes);
                 ops_.trace().work.memory_bytes += 5 * bytes;
                 ++ops_.trace().work.kernels;
               });
  return y;
}

}  // namespace infini
