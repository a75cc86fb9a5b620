#include "trainer/sequence_file.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "data/durable_file.h"
#include "data/seal.h"
#include "trainer/checkpoint_shard.h"
#include "trainer/tensor_buffers.h"

namespace infini {
namespace {

constexpr const char* kFormat = "infini sequence";
constexpr int kVersion = 1;

// What is counted, as one buffer.
enum Number { kPosition, kFilled, kEnded, kOpen, kWaiting, kWritten, kNumbers };

Tensor numbers_of(const SequenceState& state) {
  std::vector<std::int64_t> numbers(kNumbers);
  numbers[kPosition] = state.decoder.position;
  numbers[kFilled] = state.decoder.filled;
  numbers[kEnded] = state.ended;
  numbers[kOpen] = static_cast<std::int64_t>(state.decoder.open.size());
  numbers[kWaiting] = static_cast<std::int64_t>(state.waiting.size());
  numbers[kWritten] = static_cast<std::int64_t>(state.written.size());
  return Tensor::of(numbers, {kNumbers});
}

// Tokens in a buffer with room for at least `room` of them and one.
Tensor padded(std::vector<std::int32_t> tokens, std::int64_t room) {
  const std::int64_t size =
      std::max({static_cast<std::int64_t>(tokens.size()), room, std::int64_t{1}});
  tokens.resize(static_cast<std::size_t>(size));
  return Tensor::of(tokens, {size});
}

std::string memory_name(std::size_t layer, const char* part) {
  return text("memory/", layer, "/", part);
}
std::string window_name(std::size_t layer, const char* part) {
  return text("window/", layer, "/", part);
}

DType dtype_named(const std::string& name, const std::string& who) {
  for (const DType dtype : {DType::kFloat64, DType::kFloat32, DType::kBFloat16, DType::kInt64,
                            DType::kInt32, DType::kUInt8})
    if (name == name_of(dtype)) return dtype;
  throw DataError(text(who, ": has numbers of the unknown type ", name));
}

// The tensors of a file, each read when it is asked for.
class SavedTensors {
 public:
  explicit SavedTensors(const std::filesystem::path& path) : path_(path) {
    for (const BufferInfo& info : shard_buffers(path)) infos_.emplace(info.name, info);
  }
  Tensor find(const std::string& name) const {
    const auto found = infos_.find(name);
    if (found == infos_.end()) return {};
    const BufferInfo& info = found->second;
    const Tensor tensor = Tensor::empty(Shape(info.shape), dtype_named(info.dtype, path_.string()));
    TensorBuffers buffers(false);
    buffers.add(name, tensor);
    read_shard(path_, buffers.list());
    return tensor;
  }
  Tensor at(const std::string& name) const {
    const Tensor tensor = find(name);
    check<DataError>(static_cast<bool>(tensor), path_.string(), ": holds no ", name);
    return tensor;
  }
  std::vector<std::int32_t> tokens(const std::string& name, std::int64_t count) const {
    std::vector<std::int32_t> tokens = at(name).to_vector<std::int32_t>();
    check<DataError>(count >= 0 && count <= static_cast<std::int64_t>(tokens.size()),
                     path_.string(), ": holds ", tokens.size(), " ", name, " tokens, not ", count);
    tokens.resize(static_cast<std::size_t>(count));
    return tokens;
  }

 private:
  std::filesystem::path path_;
  std::map<std::string, BufferInfo> infos_;
};

// What the header says under a name, if it is of that type.
template <class T>
T header_value(const nlohmann::json& header, const char* name, const T& otherwise) {
  try {
    return header.value(name, otherwise);
  } catch (const nlohmann::json::exception&) {  // no object, or of another type
    return otherwise;
  }
}

void check_header(const std::filesystem::path& path, const std::string& identity) {
  const std::string who = path.string();
  const auto header = nlohmann::json::parse(shard_position(path), nullptr, false);
  check<DataError>(header_value<std::string>(header, "format", "") == kFormat, who,
                   ": is not the state of a text");
  const int version = header_value(header, "version", 0);
  check<DataError>(version == kVersion, who, ": is of version ", version, ", this build reads ",
                   kVersion);
  const auto model = header_value<std::string>(header, "model", "");
  check<ConfigError>(model == identity, who, ": was saved with another model: checkpoint ", model,
                     ", this one is ", identity);
}

void check_ids(const std::string& who, const std::vector<std::int32_t>& tokens, int vocabulary) {
  for (const std::int32_t token : tokens)
    check<DataError>(token >= 0 && token < vocabulary, who, ": holds token ", token,
                     ", the model's vocabulary is ", vocabulary);
}

}  // namespace

void save_sequence(const std::filesystem::path& path, const Sequence& sequence,
                   const std::string& identity) {
  const SequenceState state = sequence.state();
  const std::int64_t segment = sequence.decoder().model().config().segment_tokens;
  TensorBuffers buffers(true);
  buffers.add("numbers", numbers_of(state));
  buffers.add("waiting", padded(state.waiting, Decoder::kSegmentsAtOnce * segment));
  buffers.add("written", padded(state.written, 0));
  if (state.decoder.windows.empty()) buffers.add("open", padded(state.decoder.open, segment));
  for (std::size_t layer = 0; layer < state.decoder.memory.size(); ++layer)
    for (const MemoryPart& part : kMemoryParts)
      if (const Tensor& tensor = state.decoder.memory[layer].*part.tensor)
        buffers.add(memory_name(layer, part.name), tensor);
  for (std::size_t layer = 0; layer < state.decoder.windows.size(); ++layer) {
    buffers.add(window_name(layer, "qkv"), state.decoder.windows[layer].qkv);
    buffers.add(window_name(layer, "rotated"), state.decoder.windows[layer].rotated);
  }
  const nlohmann::ordered_json header{
      {"format", kFormat}, {"version", kVersion}, {"model", identity}};

  const std::filesystem::path temporary = temporary_name(path);
  try {
    write_shard(temporary, buffers.list(), header.dump());
    write_seal(temporary);
    publish_file(temporary, path);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(temporary, ignored);
    std::filesystem::remove(temporary_name(temporary), ignored);
    throw;
  }
}

Sequence load_sequence(const std::filesystem::path& path, const InfiniTransformer& model,
                       const std::string& identity) {
  check_seal(path, "state of a text");
  check_header(path, identity);
  const SavedTensors saved(path);
  const auto numbers = saved.at("numbers").to_vector<std::int64_t>();
  check<DataError>(numbers.size() == kNumbers, path.string(), ": holds ", numbers.size(),
                   " numbers, expected ", int{kNumbers});
  SequenceState state{.decoder = {.position = numbers[kPosition]},
                      .waiting = saved.tokens("waiting", numbers[kWaiting]),
                      .written = saved.tokens("written", numbers[kWritten]),
                      .ended = numbers[kEnded] != 0};
  state.decoder.filled = numbers[kFilled];
  if (numbers[kOpen] > 0) state.decoder.open = saved.tokens("open", numbers[kOpen]);
  for (const auto* tokens : {&state.waiting, &state.written, &state.decoder.open})
    check_ids(path.string(), *tokens, model.config().vocabulary);
  state.decoder.memory = empty_memories(model.config());
  for (std::size_t layer = 0; layer < state.decoder.memory.size(); ++layer)
    for (const MemoryPart& part : kMemoryParts)
      state.decoder.memory[layer].*part.tensor = saved.find(memory_name(layer, part.name));
  if (model.config().architecture == Architecture::kInfini)
    for (std::size_t layer = 0; layer < model.blocks().size(); ++layer)
      state.decoder.windows.push_back({.qkv = saved.at(window_name(layer, "qkv")),
                                       .rotated = saved.at(window_name(layer, "rotated"))});
  return Sequence(model, std::move(state));
}

}  // namespace infini
