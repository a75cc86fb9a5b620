#include "tensor/parameters.h"

#include <algorithm>

#include "tensor/ops/elementwise.h"
#include "tensor/parallel.h"

namespace infini {
namespace {

// FNV-1a: the stream of a parameter follows from its name, so that adding one leaves the others as
// they were.
std::uint32_t stream_of(const std::string& name) {
  std::uint32_t hash = 2166136261;
  for (const char c : name) hash = (hash ^ static_cast<std::uint8_t>(c)) * 16777619;
  return hash;
}

// A part is `outer` runs of consecutive elements; between two of them lie those of the other parts.
std::int64_t run_of(const Shape& part, int axis) {
  std::int64_t run = 1;
  for (int i = axis; i < part.rank(); ++i) run *= part[i];
  return run;
}

}  // namespace

bool frozen_as_one(const std::vector<std::string>& names, const Frozen& frozen) {
  if (!frozen) return false;
  const bool first = frozen(names.front());
  for (const std::string& name : names)
    check<ConfigError>(frozen(name) == first, first ? name : names.front(), " trains, but ",
                       first ? names.front() : name,
                       " is frozen: they are computed as one matrix, all of which trains or "
                       "nothing");
  return first;
}

Shape Division::whole(const Shape& part) const {
  std::vector<std::int64_t> extents(part.begin(), part.end());
  if (is_part()) extents[axis] *= count;
  return Shape(extents);
}

std::vector<std::int64_t> Division::begin(const Shape& part) const {
  std::vector<std::int64_t> first(part.rank());
  if (is_part()) first[axis] = index * part[axis];
  return first;
}

std::int64_t Division::place(const Shape& part, std::int64_t element) const {
  if (!is_part()) return element;
  const std::int64_t run = run_of(part, axis);
  return (element / run * count + index) * run + element % run;
}

Parameters::Parameters(const std::vector<ParameterSpec>& specs, DType compute, Device device,
                       const Keeps& keeps)
    : specs_(specs), compute_(compute) {
  for (const ParameterSpec& spec : specs) {
    count_ += spec.shape.size();
    if (spec.frozen) frozen_count_ += spec.shape.size();
  }
  const DType full = accumulator_of(compute);
  const auto any = [](const ParameterSpec&) { return true; };
  const auto trains = [](const ParameterSpec& spec) { return !spec.frozen; };
  const auto value = [](const Kept& kept) { return kept.value; };
  const auto gradient = [](const Kept& kept) { return kept.gradient; };
  master_ = buffer_of(any, value, keeps, full, device);
  value_ = compute == full ? master_ : buffer_of(any, value, keeps, compute, device);
  gradient_ = buffer_of(trains, gradient, keeps, full, device);

  std::int64_t offset = 0, gradient_offset = 0;
  for (std::size_t i = 0; i < specs.size(); ++i) {
    const ParameterSpec& spec = specs[i];
    check(by_name_.emplace(spec.name, i).second, "two parameters named ", spec.name);
    all_.push_back({.name = spec.name,
                    .value = cut(spec.full_precision ? master_ : value_, i, spec.shape),
                    .gradient = cut(gradient_, i, spec.shape),
                    .full_precision = spec.full_precision,
                    .master = cut(master_, i, spec.shape),
                    .frozen = spec.frozen,
                    .division = spec.division,
                    .offset = offset,
                    .gradient_offset = gradient_offset});
    offset += spec.shape.size();
    if (!spec.frozen) gradient_offset += spec.shape.size();
  }
}

Parameters::Buffer Parameters::buffer_of(bool (*wanted)(const ParameterSpec&),
                                         bool (*kept)(const Kept&), const Keeps& keeps, DType dtype,
                                         Device device) const {
  Buffer buffer{.flat = {}, .places = std::vector<std::int64_t>(specs_.size(), kNowhere)};
  const auto keeps_it = [&](const ParameterSpec& spec) {
    return !keeps || spec.full_precision || kept(keeps(spec));
  };
  const bool all = std::ranges::all_of(
      specs_, [&](const ParameterSpec& spec) { return !wanted(spec) || keeps_it(spec); });
  std::int64_t place = 0;
  for (const bool full_precision : {true, false})
    for (std::size_t i = 0; i < specs_.size(); ++i) {
      const ParameterSpec& spec = specs_[i];
      if (!wanted(spec)) continue;
      if (all ? !full_precision : spec.full_precision != full_precision || !keeps_it(spec))
        continue;
      buffer.places[i] = place;
      place += spec.shape.size();
    }
  buffer.flat = Tensor::zeros({place}, dtype, device);
  return buffer;
}

Tensor Parameters::cut(const Buffer& buffer, std::size_t first, const Shape& shape) {
  if (buffer.places[first] == kNowhere)
    return Tensor::absent(shape, buffer.flat.dtype(), buffer.flat.device());
  return buffer.flat.slice(buffer.places[first], shape.size()).reshape(shape);
}

bool Parameters::holds(const Buffer& buffer, std::size_t first, std::size_t last) const {
  for (std::size_t i = first; i <= last; ++i)
    if (buffer.places[i] == kNowhere ||
        (i > first && buffer.places[i] != buffer.places[i - 1] + specs_[i - 1].shape.size()))
      return false;
  return true;
}

void Parameters::initialise(std::uint64_t seed) {
  for (std::size_t i = 0; i < specs_.size(); ++i) {
    const ParameterSpec& spec = specs_[i];
    if (!all_[i].master) continue;
    const RandomKey key{.seed = seed, .step = 0, .site = stream_of(spec.name)};
    const Tensor values = Tensor::empty(spec.shape, master_.flat.dtype());
    dispatch_accumulator(values.dtype(), [&]<class A>() {
      A* const value = values.data<A>();
      parallel_ranges(values.size(), kElementGrain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t j = begin; j < end; ++j) {
          const std::int64_t place = spec.division.place(spec.shape, j);
          value[j] = A(spec.mean + (spec.deviation > 0 ? spec.deviation * key.normal(place) : 0.0));
        }
      });
    });
    all_[i].master.copy_from(values);
  }
  refresh_values();
}

void Parameters::refresh_values() {
  if (value_.flat.raw() != master_.flat.raw()) convert_into(value_.flat, master_.flat);
}

void Parameters::zero_gradients() { gradient_.flat.fill_zero(); }

std::int64_t Parameters::gradient_offset(std::int64_t offset) const {
  const auto found = std::ranges::lower_bound(all_, offset, {}, &Parameter::offset);
  return found == all_.end() ? count_ - frozen_count_ : found->gradient_offset;
}

std::size_t Parameters::index(const std::string& name) const {
  const auto found = by_name_.find(name);
  check(found != by_name_.end(), "no parameter named ", name);
  return found->second;
}

const Parameter& Parameters::operator[](const std::string& name) const { return all_[index(name)]; }

Parameter Parameters::joined(const std::vector<std::string>& names) const {
  const std::size_t first = index(names.front());
  std::int64_t rows = 0;
  const int rank = all_[first].value.shape().rank();
  const std::int64_t width = all_[first].value.shape()[-1];
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::size_t at = index(names[i]);
    const Shape& shape = all_[at].value.shape();
    check(
        at == first + i && shape.rank() == rank && (rank == 1 || (rank == 2 && shape[1] == width)),
        "joined: ", names[i], " does not continue ", names.front());
    rows += shape[0];
  }
  const Shape shape = rank == 1 ? Shape{rows} : Shape{rows, width};
  const std::size_t last = first + names.size() - 1;
  const auto part = [&](const Buffer& buffer) {
    return holds(buffer, first, last)
               ? cut(buffer, first, shape)
               : Tensor::absent(shape, buffer.flat.dtype(), buffer.flat.device());
  };
  return {.name = names.front() + "...",
          .value = part(specs_[first].full_precision ? master_ : value_),
          .gradient = part(gradient_),
          .full_precision = specs_[first].full_precision,
          .master = part(master_),
          .frozen = frozen_as_one(
              names, [this](const std::string& name) { return all_[index(name)].frozen; }),
          .offset = all_[first].offset,
          .gradient_offset = all_[first].gradient_offset};
}

}  // namespace infini
