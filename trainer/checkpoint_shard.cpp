#include "trainer/checkpoint_shard.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <sstream>
#include <string_view>

#include "data/durable_file.h"
#include "data/hdf5.h"
#include "tensor/error.h"

namespace infini {
namespace {

const std::string kBuffers = "buffers";
const std::string kPosition = "position";

// use(T{}) with the type that a dtype has in HDF5.
template <class Use>
void with_type(const NamedBuffer& buffer, Use use) {
  const std::string& dtype = buffer.dtype;
  if (dtype == "f64") return use(double{});
  if (dtype == "f32") return use(float{});
  if (dtype == "bf16") return use(std::uint16_t{});
  if (dtype == "i64") return use(std::int64_t{});
  if (dtype == "i32") return use(std::int32_t{});
  if (dtype == "u64") return use(std::uint64_t{});
  if (dtype == "u32") return use(std::uint32_t{});
  if (dtype == "u8") return use(std::uint8_t{});
  throw Error(text("checkpoint: buffer ", buffer.name, " has the unknown type ", dtype));
}

template <class T>
std::span<T> elements(const NamedBuffer& buffer) {
  std::size_t count = 1;
  for (const std::int64_t size : buffer.shape) count *= static_cast<std::size_t>(size);
  check(buffer.bytes == count * sizeof(T), "checkpoint: buffer ", buffer.name, " has ",
        buffer.bytes, " bytes, expected ", count * sizeof(T), " for ",
        type_text(buffer.dtype, buffer.shape));
  return {static_cast<T*>(buffer.data), count};
}

std::string numbers_text(const std::vector<std::int64_t>& numbers) {
  std::string joined;
  for (const std::int64_t number : numbers) joined += text(joined.empty() ? "" : " ", number);
  return joined;
}
std::vector<std::int64_t> numbers_of(const std::string& joined) {
  std::istringstream in(joined);
  std::vector<std::int64_t> numbers;
  for (std::int64_t number = 0; in >> number;) numbers.push_back(number);
  return numbers;
}

// What two parts of one buffer have in common on one axis, in coordinates of the whole.
struct Range {
  std::int64_t begin, end;
};
Range common(const BufferInfo& a, const BufferInfo& b, std::size_t axis) {
  const auto range = [axis](const BufferInfo& part) {
    const std::int64_t begin = part.begin.empty() ? 0 : part.begin[axis];
    return Range{begin, begin + part.shape[axis]};
  };
  const Range first = range(a), second = range(b);
  return {std::max(first.begin, second.begin), std::min(first.end, second.end)};
}

// Bytes from the start of a part to the element at `place` of the whole.
std::int64_t offset_of(const BufferInfo& part, const std::vector<std::int64_t>& place,
                       std::int64_t element) {
  std::int64_t index = 0;
  for (std::size_t axis = 0; axis < place.size(); ++axis)
    index = index * part.shape[axis] + place[axis] - (part.begin.empty() ? 0 : part.begin[axis]);
  return index * element;
}

// So that reading back asks the disk, not the memory that the file was written from.
void drop_from_page_cache(const std::filesystem::path& file) {
  const int fd = open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  close(fd);
}

}  // namespace

std::string type_text(const std::string& dtype, const std::vector<std::int64_t>& shape) {
  std::string sizes;
  for (const std::int64_t size : shape) sizes += text(sizes.empty() ? "" : ", ", size);
  return text(dtype, " [", sizes, "]");
}

void write_shard(const std::filesystem::path& file, const std::vector<NamedBuffer>& buffers,
                 const std::string& position_json) {
  Hdf5File shard = Hdf5File::create_in_memory(file.string());
  shard.write_strings(kPosition, {position_json});
  for (const NamedBuffer& buffer : buffers)
    with_type(buffer, [&](auto type) {
      using T = decltype(type);
      const std::string path = kBuffers + "/" + buffer.name;
      const std::span<const T> values = elements<T>(buffer);
      shard.write<T>(path, values, buffer.shape, {.chunk_elements = 1 << 20});
      shard.set_attribute(path, "dtype", buffer.dtype);
      if (buffer.whole.empty()) return;
      shard.set_attribute(path, "whole", numbers_text(buffer.whole));
      shard.set_attribute(path, "begin", numbers_text(buffer.begin));
    });
  const std::string_view image = shard.image();
  write_file(file, image);
  drop_from_page_cache(file);
  check<DeviceError>(hash_file(file) == XXH3_64bits(image.data(), image.size()), file.string(),
                     ": reads back differently from what was written");
}

std::vector<BufferInfo> shard_buffers(const std::filesystem::path& file) {
  const Hdf5File shard = Hdf5File::open(file);
  std::vector<BufferInfo> buffers;
  for (const std::string& path : shard.datasets()) {
    const std::size_t name = path.find(kBuffers + "/");
    if (name > 1) continue;  // not below buffers/
    BufferInfo info{.name = path.substr(name + kBuffers.size() + 1),
                    .dtype = shard.text_attribute(path, "dtype"),
                    .shape = shard.dataset(path).dims()};
    if (shard.has_attribute(path, "whole")) {
      info.whole = numbers_of(shard.text_attribute(path, "whole"));
      info.begin = numbers_of(shard.text_attribute(path, "begin"));
      check<DataError>(
          info.whole.size() == info.shape.size() && info.begin.size() == info.shape.size(),
          file.string(), ": ", info.name, " of ", info.shape.size(), " axes is a part of one of ",
          info.whole.size());
    }
    buffers.push_back(info);
  }
  return buffers;
}

std::string shard_position(const std::filesystem::path& file) {
  const auto position = Hdf5File::open(file).read_strings(kPosition);
  check<DataError>(position.size() == 1, file.string(), ": position has ", position.size(),
                   " texts, expected one");
  return position[0];
}

void read_shard(const std::filesystem::path& file, std::span<const NamedBuffer> buffers) {
  const Hdf5File shard = Hdf5File::open(file);
  for (const NamedBuffer& buffer : buffers)
    with_type(buffer, [&](auto type) {
      using T = decltype(type);
      shard.dataset(kBuffers + "/" + buffer.name).read_into<T>(elements<T>(buffer));
    });
}

bool overlap(const BufferInfo& a, const BufferInfo& b) {
  for (std::size_t axis = 0; axis < a.shape.size(); ++axis)
    if (const Range range = common(a, b, axis); range.begin >= range.end) return false;
  return true;
}

std::int64_t copy_common(const NamedBuffer& to, const NamedBuffer& from) {
  const BufferInfo target = to.info(), source = from.info();
  if (!overlap(target, source)) return 0;
  const std::size_t axes = to.shape.size();
  std::int64_t elements = 1;
  for (const std::int64_t extent : to.shape) elements *= extent;
  const auto element = static_cast<std::int64_t>(to.bytes) / elements;

  std::int64_t run = 1, runs = 1;  // consecutive elements on the last axis, and how often
  std::vector<std::int64_t> place(axes);
  for (std::size_t axis = 0; axis < axes; ++axis) {
    const Range range = common(target, source, axis);
    place[axis] = range.begin;
    (axis + 1 == axes ? run : runs) *= range.end - range.begin;
  }
  for (std::int64_t i = 0; i < runs; ++i) {
    std::memcpy(static_cast<char*>(to.data) + offset_of(target, place, element),
                static_cast<const char*>(from.data) + offset_of(source, place, element),
                static_cast<std::size_t>(run * element));
    for (std::size_t axis = axes > 0 ? axes - 1 : 0; axis-- > 0;) {
      const Range range = common(target, source, axis);
      if (++place[axis] < range.end) break;
      place[axis] = range.begin;
    }
  }
  return run * runs;
}

}  // namespace infini
