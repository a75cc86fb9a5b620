// Records of a comma-separated file after RFC 4180: fields may stand in quotes, and then hold
// commas, line breaks and, doubled, quotes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/line_reader.h"

namespace infini {

// Decompresses as LineReader does. Lines end in LF or CR LF; a byte order mark and empty lines
// between records are passed over. Holds one record.
class CsvReader {
 public:
  // A record of more than `longest` bytes is refused. Throws as LineReader does.
  explicit CsvReader(const std::filesystem::path& path,
                     std::int64_t longest = LineReader::kLongest);

  // The next record; false at the end of the file. Throws DataError naming file and line for a
  // quote inside a field without quotes, text behind a closing quote, and a quote never closed.
  // What follows such a place cannot be told apart any more: the next call goes on at a line of
  // which nobody knows whether a record begins there.
  bool next(std::vector<std::string>& fields);

  std::int64_t line() const { return line_; }  // on which the record of next() begins, from 1

 private:
  void quoted(std::string& text, std::size_t& at, std::string& field);
  bool read_line(std::string& text);

  std::string path_;
  LineReader lines_;
  std::int64_t longest_, bytes_ = 0;  // of the record so far
  std::int64_t line_ = 0;
};

}  // namespace infini
