// Lines of a text file that may be compressed.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

namespace infini {

// Calls use(line, number) for each line of `path`, without its line feed, numbered from 1, until it
// returns false. A name ending in .gz or .zst is decompressed on the way. Holds one line and a
// fixed buffer. Throws DataError for a file that cannot be read, is damaged or ends too early.
void read_lines(const std::filesystem::path& path,
                const std::function<bool(std::string& line, std::int64_t number)>& use);

}  // namespace infini
