// Small files as one string.
#pragma once

#include <filesystem>
#include <string>

namespace infini {

// The whole file, or standard input for "-". Throws DataError when it cannot be read.
std::string read_text(const std::filesystem::path& file);
// ConfigError unless a file could be written there: `key` names the option that asks for it. To be
// called before what takes long; an empty name asks for nothing.
void check_destination(const char* key, const std::filesystem::path& file);
// Replaces the file. Throws DeviceError when it cannot be written.
void write_text(const std::filesystem::path& file, const std::string& content);

}  // namespace infini
