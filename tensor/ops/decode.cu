#include <algorithm>

#include "tensor/ops/decode.cuh"

namespace infini {
namespace {

constexpr int kFewestTiles = 3;  // for which the ring has room

// Calls function.operator()<M>() for the kernel of a model. The paper's has one of its own: what a
// token takes is mostly instructions, of which fewer are left where sizes are known.
template <class Function>
void dispatch(const DecodeModel& model, Function&& function) {
  const bool alone = model.heads.group() == 1;
  if (model.embedding.dtype() == DType::kFloat32)
    return alone ? function.template operator()<Known<float, 1>>()
                 : function.template operator()<Known<float, kMostGroup>>();
  using N = __nv_bfloat16;
  if (alone && model.width() == 1024 && model.heads.head_width == 128)
    return function.template operator()<Known<N, 1, 1024, 128>>();
  alone ? function.template operator()<Known<N, 1>>()
        : function.template operator()<Known<N, kMostGroup>>();
}

int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  cuda_check(cudaGetDevice(&device), "decode");
  cuda_check(cudaDeviceGetAttribute(&value, attribute, device), "decode");
  return value;
}

// The newest device that the loaded code may rely on.
template <class M>
bool has_code() {
  cudaFuncAttributes attributes{};
  cuda_check(cudaFuncGetAttributes(&attributes, decode_kernel<M>), "decode");
  return attributes.ptxVersion >= 90 && device_attribute(cudaDevAttrCooperativeLaunch) != 0;
}

// `teams` clusters; the first attribute is the cluster's, to which the caller may add.
cudaLaunchConfig_t launch_config(int teams, int shared_bytes, cudaLaunchAttribute& attributes,
                                 unsigned count) {
  attributes.id = cudaLaunchAttributeClusterDimension;
  attributes.val.clusterDim.x = kTeam;
  attributes.val.clusterDim.y = attributes.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(teams * kTeam));
  config.blockDim = dim3(kDecodeThreads);
  config.dynamicSmemBytes = static_cast<std::size_t>(shared_bytes);
  config.stream = cuda_stream();
  config.attrs = &attributes;
  config.numAttrs = count;
  return config;
}

bool is_aligned(const Tensor& tensor) {
  return reinterpret_cast<std::uintptr_t>(tensor.raw()) % 16 == 0;
}

bool is_aligned(const DecodeLayer& layer) {
  for (const Tensor& tensor :
       {layer.attention_norm, layer.feed_forward_norm, layer.qkv, layer.output, layer.up,
        layer.down, layer.matrix, layer.normalizer, layer.window_qkv, layer.window_rotated})
    if (tensor && !is_aligned(tensor)) return false;
  return true;
}

// Whether all vectors are units of what the kernel multiplies at a time.
bool has_shape(const DecodeModel& model) {
  const HeadLayout& heads = model.heads;
  return model.width() % kUnit == 0 && model.inner() % kUnit == 0 && heads.head_width % 32 == 0 &&
         heads.head_width <= (model.embedding.dtype() == DType::kBFloat16 ? 256 : 128) &&
         heads.group() <= kMostGroup;
}

std::int64_t exchange_words(const DecodePlan& plan) {
  const auto meetings = 2 * static_cast<std::int64_t>(plan.model.layers.size());
  return meetings * plan.model.width() * plan.teams;
}

template <class M>
SharedLayout shared_layout(const DecodePlan& plan) {
  using N = typename M::N;
  const DecodeModel& model = plan.model;
  const int width = static_cast<int>(model.width()), head_width = model.heads.head_width;
  const int group = model.heads.group(), size = static_cast<int>(sizeof(N));
  const int keys = static_cast<int>((model.window_tokens() + kTeam - 1) / kTeam) + 1;
  const auto share = [](std::int64_t count, std::int64_t parts) {
    return static_cast<int>((count + parts - 1) / parts);
  };
  const int inner_units = static_cast<int>(model.inner() / kUnit);
  const InnerParts inner(inner_units, std::min(plan.teams, model.heads.kv_heads),
                         std::min(plan.teams, inner_units));
  const int own_units = share(width / kUnit, kTeam);
  int end = kBarriers * static_cast<int>(sizeof(std::uint64_t));
  const auto take = [&](int bytes) {
    const int begin = (end + 15) / 16 * 16;
    end = begin + bytes;
    return begin;
  };
  const auto take_floats = [&](int count) { return take(count * 4); };
  SharedLayout at;
  at.score_stride = keys + 1;
  at.layers = take(static_cast<int>(model.layers.size() * sizeof(LayerPointers<N>)));
  at.products = take(kParts * static_cast<int>(sizeof(Product<M>)));
  at.inverse = take_floats(2);
  at.angles = take_floats(head_width);
  at.stream = take_floats(own_units * kUnit);
  at.middle = take(width / kUnit * kNormUnitBytes<N>);
  at.sum = take(width / kUnit * kNormUnitBytes<N>);
  at.heads = take((2 * group + 2) * head_stride<N>(head_width));
  at.records = take_floats(kTeam * group * record_numbers(head_width));
  at.mixed = take(group * head_width * size);
  at.inner = take(inner.most() * kUnit * size);
  at.partials = take_floats(2 * kPartials);
  at.outputs = take_floats(own_units * kUnit);
  at.letters = take(kConsumerWarps * kLetterBytes);
  at.scores = take_floats(group * at.score_stride);
  at.state = take_floats((2 * kConsumerWarps + 3) * kMostGroup);
  at.local = take_floats(kConsumerWarps * group * head_width);
  at.recalled = take_floats(kConsumerWarps * group * head_width);
  at.nothing = take(kNothingBytes);
  at.ring = (end + kTileAlignment - 1) / kTileAlignment * kTileAlignment;
  const int most = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  at.ring_bytes = (most - at.ring) / kTileAlignment * kTileAlignment;
  at.bytes = at.ring + at.ring_bytes;
  return at;
}

// Teams that the device runs at a time, of blocks that take all shared memory.
template <class M>
int teams_of_device() {
  const int bytes = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  // For all plans of a process.
  cuda_check(
      cudaFuncSetAttribute(decode_kernel<M>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
      "decode");
  cudaLaunchAttribute cluster{};
  cudaLaunchConfig_t config = launch_config(1, bytes, cluster, 1);
  int teams = 0;
  cuda_check(cudaOccupancyMaxActiveClusters(&teams, decode_kernel<M>, &config), "decode");
  return std::min(teams, kMostTeams);
}

template <class N>
Tensor layer_pointers(const DecodeModel& model) {
  using T = std::conditional_t<sizeof(N) == 2, BFloat16, float>;
  static_assert(sizeof(LayerPointers<N>) % 8 == 0);
  std::vector<std::int64_t> words;
  for (const DecodeLayer& layer : model.layers) {
    const bool recalls = layer.gate && layer.matrix;
    const LayerPointers<N> pointers{
        .attention_norm = layer.attention_norm.data<float>(),
        .feed_forward_norm = layer.feed_forward_norm.data<float>(),
        .gate = layer.gate ? layer.gate.data<float>() : nullptr,
        .matrix = recalls ? layer.matrix.data<float>() : nullptr,
        .normalizer = recalls ? layer.normalizer.data<float>() : nullptr,
        .qkv = native<T>(layer.qkv),
        .output = native<T>(layer.output),
        .up = native<T>(layer.up),
        .down = native<T>(layer.down),
        .window_qkv = native<T>(layer.window_qkv),
        .window_rotated = native<T>(layer.window_rotated)};
    const auto* const begin = reinterpret_cast<const std::int64_t*>(&pointers);
    words.insert(words.end(), begin, begin + sizeof pointers / 8);
  }
  return Tensor::of(words, {static_cast<std::int64_t>(words.size())}).to(Device::kCuda);
}

template <class M>
void launch_step(const DecodePlan& plan, const DecodeStep& step) {
  using N = typename M::N;
  using T = std::conditional_t<sizeof(N) == 2, BFloat16, float>;
  const DecodeModel& model = plan.model;
  const HeadLayout& heads = model.heads;
  auto* const words = reinterpret_cast<std::uint32_t*>(plan.exchange.data<std::int32_t>());
  const std::int64_t count = plan.exchange.size() / 2, turn = plan.steps % 2;
  const auto choice = [](const Tensor& tensor) {
    return tensor ? reinterpret_cast<std::uint64_t*>(tensor.data<std::int64_t>()) : nullptr;
  };
  DecodeArgs<M> args{.layers = reinterpret_cast<const LayerPointers<N>*>(plan.pointers.raw()),
                     .layer_count = static_cast<int>(model.layers.size()),
                     .any_width = static_cast<int>(model.width()),
                     .heads = heads.heads,
                     .kv_heads = heads.kv_heads,
                     .any_head_width = heads.head_width,
                     .inner = static_cast<int>(model.inner()),
                     .vocabulary = static_cast<int>(model.vocabulary()),
                     .teams = plan.teams,
                     .activation = model.activation,
                     .scale = static_cast<float>(model.scale),
                     .norm_eps = static_cast<float>(model.norm_eps),
                     .recall_eps = static_cast<float>(model.recall.eps),
                     .recalls = static_cast<bool>(model.layers.front().gate),
                     .bypass_empty = model.recall.bypass_empty,
                     .embedding = native<T>(model.embedding),
                     .head = step.logits ? native<T>(model.head) : nullptr,
                     .final_norm = model.final_norm.data<float>(),
                     .angles = model.rotary_table.data<float>() + step.position * heads.head_width,
                     .token = step.token,
                     .position = static_cast<int>(step.position),
                     .from = choice(step.from),
                     .hidden = native<T>(step.hidden),
                     .logits = native<T>(step.logits),
                     .choice = choice(step.choice),
                     .exchange = words + turn * count,
                     .next_exchange = words + (1 - turn) * count,
                     .exchange_words = static_cast<int>(count),
                     .status = plan.status.data<std::int32_t>(),
                     .shared = shared_layout<M>(plan)};
  cudaLaunchAttribute attributes[2] = {};
  cudaLaunchConfig_t config = launch_config(plan.teams, args.shared.bytes, attributes[0], 2);
  // Teams wait for each other, so all of them must run at a time.
  attributes[1].id = cudaLaunchAttributeCooperative;
  attributes[1].val.cooperative = 1;
  cuda_check(cudaLaunchKernelEx(&config, decode_kernel<M>, args), "decode");
  check_launch("decode");
}

class CudaDecode final : public DecodeKernels {
 public:
  bool plan(DecodePlan& plan) const override {
    const DecodeModel& model = plan.model;
    const DType type = model.embedding.dtype();
    if ((type != DType::kBFloat16 && type != DType::kFloat32) || !has_shape(model)) return false;
    if (!is_aligned(model.embedding) || !is_aligned(model.head) || !is_aligned(model.final_norm) ||
        !std::ranges::all_of(model.layers,
                             [](const DecodeLayer& layer) { return is_aligned(layer); }))
      return false;
    bool fits = false;
    dispatch(model, [&]<class M>() {
      if (!has_code<M>()) return;
      plan.teams = teams_of_device<M>();
      if (plan.teams == 0 || shared_layout<M>(plan).ring_bytes < kFewestTiles * kTileBytes) return;
      const std::int64_t words = 2 * exchange_words(plan);
      plan.exchange = Tensor::empty({words}, DType::kInt32, Device::kCuda);
      static_assert(kEmpty == 0xffffffff);
      cuda_check(cudaMemsetAsync(plan.exchange.raw(), 0xff,
                                 static_cast<std::size_t>(plan.exchange.bytes()), cuda_stream()),
                 "decode");
      plan.status = Tensor::zeros({1}, DType::kInt32, Device::kCuda);
      fits = true;
    });
    if (fits) renew(plan);
    return fits;
  }

  void renew(DecodePlan& plan) const override {
    check(std::ranges::all_of(plan.model.layers,
                              [](const DecodeLayer& layer) { return is_aligned(layer); }),
          "decode: expected memories that begin at multiples of 16 bytes");
    dispatch(plan.model,
             [&]<class M>() { plan.pointers = layer_pointers<typename M::N>(plan.model); });
  }

  void decode(const DecodePlan& plan, const DecodeStep& step) const override {
    dispatch(plan.model, [&]<class M>() { launch_step<M>(plan, step); });
  }
};

}  // namespace

const DecodeKernels& cuda_decode() {
  static const CudaDecode kernels;
  return kernels;
}

}  // namespace infini
