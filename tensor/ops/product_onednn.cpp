#include "tensor/ops/product_onednn.h"

#ifdef INFINI_ONEDNN

#include <map>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <optional>
#include <string_view>
#include <tuple>

#include "tensor/parallel.h"

namespace infini {
namespace {

// What a primitive is compiled for. A primitive made for several threads must not run on one: their
// number is 1 inside a parallel loop.
struct Key {
  std::int64_t m, n, k;
  bool transpose_a, transpose_b, accumulate;
  DType factors, result;
  int threads;

  auto operator<=>(const Key&) const = default;
};

dnnl::memory::data_type type_of(DType dtype) {
  return dtype == DType::kBFloat16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
}

dnnl::memory::desc matrix(std::int64_t rows, std::int64_t columns, DType dtype, bool transposed) {
  const dnnl::memory::dims strides =
      transposed ? dnnl::memory::dims{1, rows} : dnnl::memory::dims{columns, 1};
  return {{rows, columns}, type_of(dtype), strides};
}

const dnnl::engine& engine() {
  static const dnnl::engine& cpu = *new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return cpu;
}

struct Primitive {
  dnnl::memory::desc a, b, c, scratchpad;
  dnnl::matmul run;
};

// Nothing when oneDNN has only its reference implementation, which is slower than gemm.h by far.
std::optional<Primitive> make_primitive(const Key& key) {
  const auto a = matrix(key.m, key.k, key.factors, key.transpose_a);
  const auto b = matrix(key.k, key.n, key.factors, key.transpose_b);
  const auto c = matrix(key.m, key.n, key.result, false);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (key.accumulate) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
  try {
#if DNNL_VERSION_MAJOR >= 3
    const dnnl::matmul::primitive_desc description(engine(), a, b, c, attributes);
#else
    const dnnl::matmul::primitive_desc description(dnnl::matmul::desc(a, b, c), attributes,
                                                   engine());
#endif
    if (std::string_view(description.impl_info_str()).find("ref") != std::string_view::npos)
      return std::nullopt;
    return Primitive{a, b, c, description.scratchpad_desc(), dnnl::matmul(description)};
  } catch (const dnnl::error& error) {
    if (error.status == dnnl_unimplemented) return std::nullopt;
    throw DeviceError(text("oneDNN: a product of ", key.m, " x ", key.k, " by ", key.k, " x ",
                           key.n, " of ", key.factors, ": ", error.what()));
  }
}

// Never destroyed: oneDNN's own static objects may go first.
class PrimitiveCache {
 public:
  std::shared_ptr<const std::optional<Primitive>> get(const Key& key) {
    const std::lock_guard lock(mutex_);
    if (const auto found = primitives_.find(key); found != primitives_.end()) return found->second;
    if (primitives_.size() >= kMostPrimitives) primitives_.clear();  // shapes that never repeat
    auto made = std::make_shared<const std::optional<Primitive>>(make_primitive(key));
    return primitives_.emplace(key, std::move(made)).first->second;
  }

 private:
  static constexpr std::size_t kMostPrimitives = 1024;

  std::mutex mutex_;
  std::map<Key, std::shared_ptr<const std::optional<Primitive>>> primitives_;
};

PrimitiveCache& cache() {
  static PrimitiveCache& primitives = *new PrimitiveCache;
  return primitives;
}

}  // namespace

bool multiply_onednn(const Product& product, std::int64_t m, std::int64_t n, std::int64_t k) {
  if (product.a.dtype() == DType::kFloat64) return false;
  const auto found = cache().get({.m = m,
                                  .n = n,
                                  .k = k,
                                  .transpose_a = product.transpose_a,
                                  .transpose_b = product.transpose_b,
                                  .accumulate = product.accumulate,
                                  .factors = product.a.dtype(),
                                  .result = product.c.dtype(),
                                  .threads = thread_count()});
  if (!*found) return false;
  const Primitive& primitive = **found;

  static thread_local dnnl::stream stream(engine());
  const auto scratchpad =
      allocate(static_cast<std::int64_t>(primitive.scratchpad.get_size()), Device::kCpu);
  primitive.run.execute(
      stream, {{DNNL_ARG_SRC, {primitive.a, engine(), product.a.raw()}},
               {DNNL_ARG_WEIGHTS, {primitive.b, engine(), product.b.raw()}},
               {DNNL_ARG_DST, {primitive.c, engine(), product.c.raw()}},
               {DNNL_ARG_SCRATCHPAD, {primitive.scratchpad, engine(), scratchpad.get()}}});
  stream.wait();
  return true;
}

}  // namespace infini

#else

namespace infini {

bool multiply_onednn(const Product&, std::int64_t, std::int64_t, std::int64_t) { return false; }

}  // namespace infini

#endif
