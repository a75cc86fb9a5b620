// JSON from whoever made a file, as a stream of events: what is held at a time does not grow with
// the file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace infini {

// What a reader of JSON is told, in the order of the text. Throws DataError to refuse it.
class JsonEvents {
 public:
  virtual ~JsonEvents() = default;
  virtual void begin_object() = 0;
  virtual void key(const std::string& name) = 0;
  virtual void end_object() = 0;
  virtual void begin_array() = 0;
  virtual void end_array() = 0;
  virtual void text(const std::string& value) = 0;
  virtual void number(std::uint64_t value) = 0;
  virtual void other(const std::string& what) = 0;  // "null", "a negative number", ...
};

// Bytes [offset, offset + length) of a file as events. Throws DataError naming the file for text
// that is not JSON or has more than 64 KiB between two events, in a name, say.
void stream_json(const std::filesystem::path& file, std::uint64_t offset, std::uint64_t length,
                 JsonEvents& events);

// A name from a file as a message shows it: at most 100 characters, none of them unprintable.
std::string shown(const std::string& name);

}  // namespace infini
