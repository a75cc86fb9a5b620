// Graphs of operations that cuDNN fuses into kernels, through its backend API, 9.10 and later.
#pragma once

#include <cudnn.h>

#include <array>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "tensor/error.h"

namespace infini::cudnn {

class CudnnError : public Error {
 public:
  using Error::Error;
};

inline void check_status(cudnnStatus_t status, const char* call) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  std::array<char, 512> detail{};
  cudnnGetLastErrorString(detail.data(), detail.size());
  throw CudnnError(text(call, ": ", cudnnGetErrorString(status), " ", detail.data()));
}

template <class T>
constexpr cudnnBackendAttributeType_t kTypeOf = CUDNN_TYPE_BACKEND_DESCRIPTOR;
template <>
inline constexpr auto kTypeOf<std::int64_t> = CUDNN_TYPE_INT64;
template <>
inline constexpr auto kTypeOf<bool> = CUDNN_TYPE_BOOLEAN;
template <>
inline constexpr auto kTypeOf<cudnnHandle_t> = CUDNN_TYPE_HANDLE;
template <>
inline constexpr auto kTypeOf<cudnnDataType_t> = CUDNN_TYPE_DATA_TYPE;
template <>
inline constexpr auto kTypeOf<cudnnBackendHeurMode_t> = CUDNN_TYPE_HEUR_MODE;
template <>
inline constexpr auto kTypeOf<cudnnPointwiseMode_t> = CUDNN_TYPE_POINTWISE_MODE;
template <>
inline constexpr auto kTypeOf<cudnnReduceTensorOp_t> = CUDNN_TYPE_REDUCTION_OPERATOR_TYPE;

class Descriptor {
 public:
  explicit Descriptor(cudnnBackendDescriptorType_t type) {
    check_status(cudnnBackendCreateDescriptor(type, &raw_), "cudnnBackendCreateDescriptor");
  }
  Descriptor(Descriptor&& other) noexcept : raw_(std::exchange(other.raw_, nullptr)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (raw_) cudnnBackendDestroyDescriptor(raw_);
  }

  cudnnBackendDescriptor_t raw() const { return raw_; }

  template <class T>
  Descriptor& set(cudnnBackendAttributeName_t name, const T& value) {
    return set(name, kTypeOf<T>, 1, &value);
  }
  Descriptor& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                  std::size_t count, const void* values) {
    check_status(
        cudnnBackendSetAttribute(raw_, name, type, static_cast<std::int64_t>(count), values),
        "cudnnBackendSetAttribute");
    return *this;
  }
  Descriptor& finalize() {
    check_status(cudnnBackendFinalize(raw_), "cudnnBackendFinalize");
    return *this;
  }
  // The number of values read.
  std::int64_t get(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                   std::size_t most, void* values) const {
    std::int64_t count = 0;
    check_status(
        cudnnBackendGetAttribute(raw_, name, type, static_cast<std::int64_t>(most), &count, values),
        "cudnnBackendGetAttribute");
    return count;
  }

 private:
  cudnnBackendDescriptor_t raw_ = nullptr;
};

using Extents = std::array<std::int64_t, 4>;  // batch, head, row, column

constexpr Extents transposed(const Extents& e) { return {e[0], e[1], e[3], e[2]}; }
constexpr Extents packed(const Extents& dims) {
  return {dims[1] * dims[2] * dims[3], dims[2] * dims[3], dims[3], 1};
}

struct Node {
  cudnnBackendDescriptor_t raw;
  Extents dims, strides;
};

// What a plan reads and writes: the number of a tensor and where its elements are.
using Binding = std::pair<std::int64_t, void*>;

// A graph compiled for one device. Keeps everything that it was made from.
class Plan {
 public:
  Plan(std::list<Descriptor> parts, Descriptor plan)
      : parts_(std::move(parts)), plan_(std::move(plan)) {
    plan_.get(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &workspace_bytes_);
  }

  std::int64_t workspace_bytes() const { return workspace_bytes_; }

  void run(cudnnHandle_t handle, std::span<const Binding> bindings, void* workspace) const {
    std::vector<std::int64_t> names;
    std::vector<void*> pointers;
    for (const auto& [name, pointer] : bindings) {
      names.push_back(name);
      pointers.push_back(pointer);
    }
    Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, names.size(), names.data())
        .set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, pointers.size(),
             pointers.data())
        .set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace)
        .finalize();
    check_status(cudnnBackendExecute(handle, plan_.raw(), pack.raw()), "cudnnBackendExecute");
  }

 private:
  std::list<Descriptor> parts_;
  Descriptor plan_;
  std::int64_t workspace_bytes_ = 0;
};

// Tensors are numbered: those in memory by the caller, below kFirstInside, those inside from there.
class Graph {
 public:
  static constexpr std::int64_t kFirstInside = 1000;

  Node memory(std::int64_t name, const Extents& dims, const Extents& strides,
              cudnnDataType_t type) {
    return tensor(name, dims, strides, type, Place::kMemory);
  }
  // An fp32 number that the host gives to each run.
  Node number(std::int64_t name) {
    return tensor(name, {1, 1, 1, 1}, {1, 1, 1, 1}, CUDNN_DATA_FLOAT, Place::kArgument);
  }
  Node inside(const Extents& dims, cudnnDataType_t type = CUDNN_DATA_FLOAT) {
    return tensor(next_++, dims, packed(dims), type, Place::kInside);
  }

  // c = a b
  void multiply(const Node& a, const Node& b, const Node& c) {
    Descriptor& product = keep(CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    product.set(CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_DATA_FLOAT).finalize();
    operation(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR)
        .set(CUDNN_ATTR_OPERATION_MATMUL_ADESC, a.raw)
        .set(CUDNN_ATTR_OPERATION_MATMUL_BDESC, b.raw)
        .set(CUDNN_ATTR_OPERATION_MATMUL_CDESC, c.raw)
        .set(CUDNN_ATTR_OPERATION_MATMUL_DESC, product.raw())
        .finalize();
  }

  struct Pointwise {
    cudnnPointwiseMode_t mode;
    Node y, x;
    std::optional<Node> b = {}, t = {};  // the second and third argument of mode
    cudnnDataType_t precision = CUDNN_DATA_FLOAT;
    std::int64_t axis = -1;
  };
  void pointwise(const Pointwise& args) {
    Descriptor& function = keep(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    function.set(CUDNN_ATTR_POINTWISE_MODE, args.mode)
        .set(CUDNN_ATTR_POINTWISE_MATH_PREC, args.precision);
    if (args.axis >= 0) function.set(CUDNN_ATTR_POINTWISE_AXIS, args.axis);
    function.finalize();
    Descriptor& step = operation(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    step.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, function.raw())
        .set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, args.x.raw)
        .set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, args.y.raw);
    if (args.b) step.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, args.b->raw);
    if (args.t) step.set(CUDNN_ATTR_OPERATION_POINTWISE_TDESC, args.t->raw);
    step.finalize();
  }
  // mode(x) or mode(x, b) in fp32.
  Node pointwise(cudnnPointwiseMode_t mode, const Node& x, const std::optional<Node>& b = {}) {
    const Node y = inside(x.dims);
    pointwise({.mode = mode, .y = y, .x = x, .b = b});
    return y;
  }

  // Over the axes on which y has extent 1 and x has not.
  void reduce(cudnnReduceTensorOp_t mode, const Node& x, const Node& y) {
    Descriptor& function = keep(CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    function.set(CUDNN_ATTR_REDUCTION_OPERATOR, mode)
        .set(CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_DATA_FLOAT)
        .finalize();
    operation(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR)
        .set(CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x.raw)
        .set(CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y.raw)
        .set(CUDNN_ATTR_OPERATION_REDUCTION_DESC, function.raw())
        .finalize();
  }

  // x seen with rows and columns exchanged.
  Node transpose(const Node& x, cudnnDataType_t type) {
    const Node y = tensor(next_++, transposed(x.dims), transposed(x.strides), type, Place::kInside);
    operation(CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR)
        .set(CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x.raw)
        .set(CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y.raw)
        .finalize();
    return y;
  }

  // The first plan of cuDNN's heuristics that can be built. Throws CudnnError when there is none.
  // Ends the graph.
  std::unique_ptr<Plan> compile(cudnnHandle_t handle) {
    Descriptor& whole = keep(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    whole.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, handle)
        .set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, operations_.size(),
             operations_.data())
        .finalize();
    Descriptor& heuristics = keep(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, whole.raw())
        .set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_HEUR_MODE_A)
        .finalize();

    std::int64_t count =
        heuristics.get(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, nullptr);
    std::vector<cudnnBackendDescriptor_t> choices;
    for (std::int64_t i = 0; i < count; ++i)
      choices.push_back(keep(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR).raw());
    count = heuristics.get(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                           choices.size(), choices.data());

    std::string failures = "no engine";
    for (std::int64_t i = 0; i < count; ++i) {
      try {
        Descriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
        plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, handle)
            .set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, choices[i])
            .finalize();
        return std::make_unique<Plan>(std::move(kept_), std::move(plan));
      } catch (const CudnnError& error) {
        failures = text("the last of ", count, " engines: ", error.what());
      }
    }
    throw CudnnError(failures);
  }

 private:
  enum class Place { kMemory, kArgument, kInside };

  Node tensor(std::int64_t name, const Extents& dims, const Extents& strides, cudnnDataType_t type,
              Place place) {
    Descriptor& made = keep(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    made.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, name)
        .set(CUDNN_ATTR_TENSOR_DATA_TYPE, type)
        .set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, std::int64_t{16})
        .set(CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, dims.size(), dims.data())
        .set(CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, strides.size(), strides.data())
        .set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, place == Place::kInside)
        .set(CUDNN_ATTR_TENSOR_IS_BY_VALUE, place == Place::kArgument)
        .finalize();
    return {made.raw(), dims, strides};
  }

  Descriptor& keep(cudnnBackendDescriptorType_t type) { return kept_.emplace_back(type); }
  Descriptor& operation(cudnnBackendDescriptorType_t type) {
    Descriptor& made = keep(type);
    operations_.push_back(made.raw());
    return made;
  }

  std::list<Descriptor> kept_;  // references stay valid
  std::vector<cudnnBackendDescriptor_t> operations_;
  std::int64_t next_ = kFirstInside;
};

}  // namespace infini::cudnn
