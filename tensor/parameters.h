// Parameters of a model in flat buffers, cut by name. Zeroing, norms, updates, buckets and shards
// are ranges of a buffer.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tensor/random.h"
#include "tensor/tape.h"

namespace infini {

// Whether a tensor is all there is, or one of `count` equal parts along an axis, which as many
// processes hold. Axis -1: none that could be divided.
struct Division {
  int axis = -1, count = 1, index = 0;

  bool is_part() const { return count > 1; }
  // What a part of this shape is a part of, and where in that it begins.
  Shape whole(const Shape& part) const;
  std::vector<std::int64_t> begin(const Shape& part) const;
  // Where in the whole the elements of a part of this shape lie, in row-major order.
  std::int64_t place(const Shape& part, std::int64_t element) const;
};

struct ParameterSpec {
  std::string name;
  Shape shape;           // of what this process has of it
  double deviation = 0;  // of the normal distribution it starts from
  double mean = 0;
  bool full_precision =
      false;  // computed with in fp32 even where the model computes in bf16: norms, gates
  Division division{};
  bool frozen = false;  // stays as it is: it has no gradient
};

// Whether a parameter is frozen, by its name; an empty function says so of none.
using Frozen = std::function<bool(const std::string& name)>;
// The same of parameters that one product takes as one. Throws ConfigError where some are frozen
// and others are not.
bool frozen_as_one(const std::vector<std::string>& names, const Frozen& frozen);

// Views of the flat buffers; copies share the elements.
struct Parameter {
  std::string name;
  Tensor value;     // what ops read: the compute type, or the master itself when full_precision
  Tensor gradient;  // fp32 (fp64 in fp64 models); ops add into it; absent where it is frozen
  bool full_precision = false;  // computed with as its master
  Tensor master;  // fp32 (fp64), what the optimizer updates; the same elements as value when types
                  // agree
  bool frozen = false;
  Division division{};
  std::int64_t offset = 0;           // of its first element in the order of all parameters
  std::int64_t gradient_offset = 0;  // the same in the order of all gradients
};

// What a process keeps of a parameter; the rest of it is absent, known by shape and type alone.
struct Kept {
  bool value = true;  // and the master
  bool gradient = true;
};
// Says so of every parameter that is not in full precision: those are few, and all of them stay.
using Keeps = std::function<Kept(const ParameterSpec&)>;

class Parameters {
 public:
  // Order matters: parameters named one after the other lie one after the other (see joined).
  // An empty `keeps` keeps all. A flat buffer that does not hold all parameters holds those in full
  // precision first, then the others that are kept, each in their order. Gradients are those of the
  // parameters that train: frozen ones are not missed among them.
  Parameters(const std::vector<ParameterSpec>& specs, DType compute, Device device,
             const Keeps& keeps = {});

  // Draws every master that is kept from its spec; the numbers depend on the seed and the name
  // alone, those of a part on its place in the whole.
  void initialise(std::uint64_t seed);
  // Makes values equal to masters; call after masters change. Nothing to do where they share
  // elements.
  void refresh_values();
  void zero_gradients();

  const Parameter& operator[](const std::string& name) const;  // throws when there is none
  // Consecutive matrices [R_i, C] as one parameter [sum R_i, C], or vectors [R_i] as one [sum R_i].
  Parameter joined(const std::vector<std::string>& names) const;

  const std::vector<Parameter>& all() const { return all_; }
  std::vector<Parameter>& all() { return all_; }
  DType compute() const { return compute_; }
  // Where a parameter begins in the order of all, which is that of a flat buffer that holds all.
  std::int64_t offset(const std::string& name) const { return all_[index(name)].offset; }
  // Where the gradients begin of the parameters from `offset`, where one begins, on: what is frozen
  // has no place in the order of all gradients.
  std::int64_t gradient_offset(std::int64_t offset) const;
  const Tensor& masters() const { return master_.flat; }  // [P], or less where not all are kept
  // [P], or less; undefined where a parameter is computed with in full precision and others are not
  const Tensor& values() const { return value_.flat; }
  const Tensor& gradients() const { return gradient_.flat; }  // [P - frozen], or less
  std::int64_t count() const { return count_; }               // P
  std::int64_t frozen_count() const { return frozen_count_; }

 private:
  struct Buffer {
    Tensor flat;
    std::vector<std::int64_t> places;  // where a parameter begins, or kNowhere
  };
  static constexpr std::int64_t kNowhere = -1;
  // Of the parameters that `wanted` names, those that are kept.
  Buffer buffer_of(bool (*wanted)(const ParameterSpec&), bool (*kept)(const Kept&),
                   const Keeps& keeps, DType dtype, Device device) const;
  // Parameters first, first + 1, ... as one tensor of this shape.
  static Tensor cut(const Buffer& buffer, std::size_t first, const Shape& shape);
  // Whether parameters first .. last lie in the buffer, one after the other.
  bool holds(const Buffer& buffer, std::size_t first, std::size_t last) const;
  std::size_t index(const std::string& name) const;

  std::vector<ParameterSpec> specs_;
  std::vector<Parameter> all_;
  std::map<std::string, std::size_t, std::less<>> by_name_;
  DType compute_;
  std::int64_t count_ = 0, frozen_count_ = 0;
  Buffer value_, gradient_, master_;
};

}  // namespace infini
