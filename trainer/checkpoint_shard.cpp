#include "trainer/checkpoint_shard.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <span>
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
    buffers.push_back({.name = path.substr(name + kBuffers.size() + 1),
                       .dtype = shard.text_attribute(path, "dtype"),
                       .shape = shard.dataset(path).dims()});
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

}  // namespace infini
