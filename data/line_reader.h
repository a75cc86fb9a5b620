// Lines of a text file that may be compressed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace infini {

class ByteStream;

// A name ending in .gz or .zst is decompressed on the way. Holds one line and a fixed buffer, of
// lines beyond `longest` bytes only the beginning.
class LineReader {
 public:
  static constexpr std::int64_t kLongest = 256 << 20;

  // Throws DataError for a file that cannot be opened.
  explicit LineReader(const std::filesystem::path& path, std::int64_t longest = kLongest);
  ~LineReader();

  // The next line without its line feed; false at the end of the file. Throws DataError for a file
  // that cannot be read, is damaged or ends too early; the line it ends in is not given.
  bool next(std::string& line);

  std::int64_t number() const { return number_; }  // of the line that next() gave, from 1
  bool too_long() const { return too_long_; }      // it was longer and is cut

 private:
  std::unique_ptr<ByteStream> stream_;
  std::size_t longest_;
  std::vector<char> buffer_;
  std::size_t begin_ = 0, end_ = 0;  // of what is left in the buffer
  std::int64_t number_ = 0;
  bool too_long_ = false;
};

// The name of a file without .gz or .zst.
std::filesystem::path decompressed_name(const std::filesystem::path& path);

// All bytes of a file, decompressed. Throws as LineReader does.
std::string read_decompressed(const std::filesystem::path& path);

}  // namespace infini
