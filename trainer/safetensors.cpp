#include "trainer/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "tensor/error.h"
#include "trainer/guarded_json.h"
#include "trainer/safetensors_header.h"

namespace infini {
namespace {

// Bytes of a tensor of this shape; of one too large to count, as many as no file has.
std::uint64_t bytes_of(const StoredTensor& tensor) {
  auto bytes = static_cast<std::uint64_t>(infini::bytes_of(tensor.type));
  for (const std::int64_t extent : tensor.shape)
    if (__builtin_mul_overflow(bytes, static_cast<std::uint64_t>(extent), &bytes))
      return UINT64_MAX;
  return bytes;
}

// The tensors follow each other without overlap or hole, from the first byte to the last.
void check_layout(const std::string& who, const std::vector<StoredTensor>& tensors,
                  std::uint64_t data_bytes) {
  const auto refuse = [&](const StoredTensor& tensor, const auto&... what) {
    throw DataError(text(who, ": tensor ", shown(tensor.name), ": ", what...));
  };
  std::vector<const StoredTensor*> in_order;
  for (const StoredTensor& tensor : tensors) {
    const std::uint64_t bytes = bytes_of(tensor);
    if (tensor.begin > tensor.end)
      refuse(tensor, "data_offsets [", tensor.begin, ", ", tensor.end, "] run backwards");
    if (tensor.end > data_bytes)
      refuse(tensor, "ends at byte ", tensor.end, " of the data, of which the file has ",
             data_bytes, "; the file is cut");
    if (tensor.end - tensor.begin != bytes)
      refuse(tensor, "data_offsets have ", tensor.end - tensor.begin, " bytes, ",
             tensor.type_text(), " has ", bytes == UINT64_MAX ? "more than 2^64" : text(bytes));
    in_order.push_back(&tensor);
  }
  std::ranges::sort(in_order, {}, [](const StoredTensor* tensor) {
    return std::pair(tensor->begin, tensor->end);
  });
  const StoredTensor* last = nullptr;
  std::uint64_t end = 0;
  for (const StoredTensor* tensor : in_order) {
    if (tensor->begin < end) refuse(*tensor, "overlaps tensor ", shown(last->name));
    if (tensor->begin > end)
      refuse(*tensor, "begins at byte ", tensor->begin, " of the data, nothing fills it from byte ",
             end);
    end = tensor->end;
    last = tensor;
  }
  check<DataError>(end == data_bytes, who, ": ", data_bytes - end,
                   " bytes after the last tensor belong to none");
}

}  // namespace

std::string StoredTensor::type_text() const {
  std::string sizes;
  for (const std::int64_t size : shape) sizes += text(sizes.empty() ? "" : ", ", size);
  return text(name_of(type), " [", sizes, "]");
}

SafetensorsFile::SafetensorsFile(std::filesystem::path path) : path_(std::move(path)) {
  const std::string who = path_.string();
  std::error_code error;
  const std::uintmax_t file_bytes = std::filesystem::file_size(path_, error);
  check<DataError>(!error, who, ": is missing or cannot be read");
  SafetensorsHeader header = read_safetensors_header(path_, file_bytes);
  check_layout(who, header.tensors, file_bytes - header.bytes);
  tensors_ = std::move(header.tensors);
  data_begin_ = header.bytes;
  std::ranges::sort(tensors_, {}, &StoredTensor::name);
  const auto twice = std::ranges::adjacent_find(tensors_, {}, &StoredTensor::name);
  check<DataError>(twice == tensors_.end(), who, ": tensor ",
                   twice == tensors_.end() ? "" : shown(twice->name), ": is there twice");

  const int fd = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  check<DataError>(fd >= 0, who, ": cannot be opened: ", std::strerror(errno));
  void* const address = mmap(nullptr, file_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
  const int cause = errno;
  close(fd);
  check<DataError>(address != MAP_FAILED, who, ": cannot be mapped: ", std::strerror(cause));
  mapped_ = {static_cast<const std::byte*>(address),
             [address, file_bytes](const std::byte*) { munmap(address, file_bytes); }};
}

const StoredTensor* SafetensorsFile::find(const std::string& name) const {
  const auto found = std::ranges::lower_bound(tensors_, name, {}, &StoredTensor::name);
  return found != tensors_.end() && found->name == name ? &*found : nullptr;
}

std::span<const std::byte> SafetensorsFile::bytes(const StoredTensor& tensor) const {
  return {mapped_.get() + data_begin_ + tensor.begin, tensor.end - tensor.begin};
}

}  // namespace infini
