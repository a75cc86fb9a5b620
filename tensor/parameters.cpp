#include "tensor/parameters.h"

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

Parameters::Parameters(const std::vector<ParameterSpec>& specs, DType compute, Device device)
    : specs_(specs), compute_(compute) {
  std::int64_t count = 0;
  for (const ParameterSpec& spec : specs) {
    offsets_.push_back(count);
    count += spec.shape.size();
  }
  const DType full = accumulator_of(compute);
  master_ = Tensor::zeros({count}, full, device);
  gradient_ = Tensor::zeros({count}, full, device);
  value_ = compute == full ? master_ : Tensor::zeros({count}, compute, device);

  for (std::size_t i = 0; i < specs.size(); ++i) {
    const ParameterSpec& spec = specs[i];
    check(by_name_.emplace(spec.name, i).second, "two parameters named ", spec.name);
    const auto cut = [&](const Tensor& flat) {
      return flat.slice(offsets_[i], spec.shape.size()).reshape(spec.shape);
    };
    all_.push_back({.name = spec.name,
                    .value = cut(spec.full_precision ? master_ : value_),
                    .gradient = cut(gradient_),
                    .full_precision = spec.full_precision,
                    .master = cut(master_),
                    .division = spec.division});
  }
}

void Parameters::initialise(std::uint64_t seed) {
  for (std::size_t i = 0; i < specs_.size(); ++i) {
    const ParameterSpec& spec = specs_[i];
    const RandomKey key{.seed = seed, .step = 0, .site = stream_of(spec.name)};
    const Tensor values = Tensor::empty(spec.shape, master_.dtype());
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
  if (value_.raw() != master_.raw()) convert_into(value_, master_);
}

void Parameters::zero_gradients() { gradient_.fill_zero(); }

std::size_t Parameters::index(const std::string& name) const {
  const auto found = by_name_.find(name);
  check(found != by_name_.end(), "no parameter named ", name);
  return found->second;
}

const Parameter& Parameters::operator[](const std::string& name) const { return all_[index(name)]; }

Parameter Parameters::joined(const std::vector<std::string>& names) const {
  const std::size_t first = index(names.front());
  std::int64_t rows = 0;
  const std::int64_t width = all_[first].value.shape()[-1];
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::size_t at = index(names[i]);
    const Shape& shape = all_[at].value.shape();
    check(at == first + i && shape.rank() == 2 && shape[1] == width, "joined: ", names[i],
          " does not continue ", names.front());
    rows += shape[0];
  }
  const Shape shape{rows, width};
  const auto cut = [&](const Tensor& flat) {
    return flat.slice(offsets_[first], rows * width).reshape(shape);
  };
  return {.name = names.front() + "...",
          .value = cut(specs_[first].full_precision ? master_ : value_),
          .gradient = cut(gradient_),
          .full_precision = specs_[first].full_precision,
          .master = cut(master_),
          .frozen = all_[first].frozen};
}

}  // namespace infini
