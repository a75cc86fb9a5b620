#include "trainer/safetensors_writer.h"

#include <nlohmann/json.hpp>

#include "data/durable_file.h"
#include "tensor/error.h"

namespace infini {
namespace {

constexpr std::size_t kLengthBytes = 8;
constexpr std::size_t kAlignment = 64;  // of the data, so that it can be used where it is mapped

const char* name_in_file(StoredType type) {
  return type == StoredType::kFp32 ? "F32" : type == StoredType::kBf16 ? "BF16" : "F16";
}

// The header with its length before it, and spaces behind it.
std::string header_of(const std::vector<StoredTensor>& tensors) {
  nlohmann::ordered_json root;
  root["__metadata__"] = {{"format", "pt"}};  // transformers asks for it
  for (const StoredTensor& tensor : tensors)
    root[tensor.name] = {{"dtype", name_in_file(tensor.type)},
                         {"shape", tensor.shape},
                         {"data_offsets", {tensor.begin, tensor.end}}};
  std::string header = root.dump();
  header.append((kAlignment - (kLengthBytes + header.size()) % kAlignment) % kAlignment, ' ');
  std::string length;
  for (std::size_t i = 0; i < kLengthBytes; ++i)
    length += static_cast<char>(static_cast<std::uint64_t>(header.size()) >> 8 * i & 0xFF);
  return length + header;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(std::filesystem::path path, std::vector<StoredTensor> tensors)
    : path_(std::move(path)), temporary_(temporary_name(path_)), tensors_(std::move(tensors)) {
  std::uint64_t end = 0;
  for (StoredTensor& tensor : tensors_) {
    tensor.begin = end;
    end += static_cast<std::uint64_t>(bytes_of(tensor.type));
    for (const std::int64_t extent : tensor.shape)
      end = tensor.begin + (end - tensor.begin) * static_cast<std::uint64_t>(extent);
    tensor.end = end;
  }
  out_.open(temporary_, std::ios::binary | std::ios::trunc);
  const std::string header = header_of(tensors_);
  out_.write(header.data(), static_cast<std::streamsize>(header.size()));
  check<DeviceError>(static_cast<bool>(out_), temporary_.string(), ": cannot be written");
}

SafetensorsWriter::~SafetensorsWriter() {
  std::error_code ignored;
  if (out_.is_open()) std::filesystem::remove(temporary_, ignored);
}

void SafetensorsWriter::write(std::span<const std::byte> bytes) {
  check(written_ < tensors_.size(), path_.string(), ": has all its tensors");
  const StoredTensor& tensor = tensors_[written_++];
  check(bytes.size() == tensor.end - tensor.begin, path_.string(), ": tensor ", tensor.name,
        ": got ", bytes.size(), " bytes, expected ", tensor.end - tensor.begin);
  out_.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  check<DeviceError>(static_cast<bool>(out_), temporary_.string(), ": cannot be written");
}

void SafetensorsWriter::finish() {
  check(written_ == tensors_.size(), path_.string(), ": has ", written_, " of ", tensors_.size(),
        " tensors");
  out_.flush();
  check<DeviceError>(static_cast<bool>(out_), temporary_.string(), ": cannot be written");
  out_.close();
  publish_file(temporary_, path_);
}

}  // namespace infini
