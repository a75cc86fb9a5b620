// Files that are either wholly there or not there: written under a temporary name, synced, renamed,
// hashed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace infini {

// All bytes of a file. DataError when it cannot be read.
std::string read_file(const std::filesystem::path& path);

// Replaces `path` with `bytes` in one step: temporary name, fsync, rename, fsync of the folder.
// DeviceError on failure, with what was at `path` untouched.
void write_file(const std::filesystem::path& path, std::string_view bytes);

// The name under which a file destined for `path` is written.
std::filesystem::path temporary_name(const std::filesystem::path& path);
// fsync of the finished `temporary`, rename to `path`, fsync of the folder.
void publish_file(const std::filesystem::path& temporary, const std::filesystem::path& path);

// xxh3 (64 bits) of a file's first `length` bytes, or of all, streamed once with little memory.
std::uint64_t hash_file(const std::filesystem::path& path,
                        std::uint64_t length = static_cast<std::uint64_t>(-1));
std::string hash_digits(std::uint64_t hash);  // 16 hexadecimal digits

}  // namespace infini
