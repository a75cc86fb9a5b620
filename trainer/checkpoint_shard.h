// One rank's part of a checkpoint: an HDF5 file with the dataset buffers/<name> for each buffer and
// the text `position`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace infini {

struct BufferInfo {
  std::string name;
  std::string dtype;  // f64 f32 bf16 i64 i32 u64 u32 u8
  std::vector<std::int64_t> shape;
  // Where this is a part of a buffer that ranks divide: the shape of all of it, and where the part
  // begins on each axis. Empty: this is all of it.
  std::vector<std::int64_t> whole{}, begin{};

  const std::vector<std::int64_t>& whole_shape() const { return whole.empty() ? shape : whole; }
};

// Memory of the caller: `bytes` bytes, row-major.
struct NamedBuffer {
  std::string name;
  std::string dtype;
  std::vector<std::int64_t> shape;
  void* data = nullptr;
  std::size_t bytes = 0;
  std::vector<std::int64_t> whole{}, begin{};  // as in BufferInfo

  BufferInfo info() const { return {name, dtype, shape, whole, begin}; }
};

// "f32 [2, 3]", as messages show buffers.
std::string type_text(const std::string& dtype, const std::vector<std::int64_t>& shape);

// Writes the shard to disk and reads it back. The file is composed in memory first, as large as the
// buffers: HDF5 does not survive a full disk, our own write does. Throws DeviceError.
void write_shard(const std::filesystem::path& file, const std::vector<NamedBuffer>& buffers,
                 const std::string& position_json);

// A shard whose hash was checked. Throw DataError when it is not a shard.
std::vector<BufferInfo> shard_buffers(const std::filesystem::path& file);
std::string shard_position(const std::filesystem::path& file);
void read_shard(const std::filesystem::path& file, std::span<const NamedBuffer> buffers);

// Copies what `from` holds of `to`, two parts of one buffer, and returns how many elements that is.
std::int64_t copy_common(const NamedBuffer& to, const NamedBuffer& from);
// Whether the parts have any element in common.
bool overlap(const BufferInfo& a, const BufferInfo& b);

}  // namespace infini
