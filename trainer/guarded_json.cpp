#include "trainer/guarded_json.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <vector>

#include "tensor/error.h"

namespace infini {
namespace {

constexpr std::uint64_t kPiece = 1 << 16;
constexpr std::uint64_t kMostBetweenEvents = 1 << 16;

// The bytes, a piece at a time.
class Bytes {
 public:
  Bytes(const std::filesystem::path& file, std::uint64_t offset, std::uint64_t length)
      : who_(file.string()), stream_(file, std::ios::binary), left_(length) {
    stream_.seekg(static_cast<std::streamoff>(offset));
    check<DataError>(static_cast<bool>(stream_), who_, ": cannot be read");
    fill();
  }
  bool at_end() const { return at_ == piece_.size(); }
  char current() const { return piece_[at_]; }
  void advance() {
    check<DataError>(++since_event_ <= kMostBetweenEvents, who_, ": more than ", kMostBetweenEvents,
                     " bytes of one name, text or number before byte ", position_ + at_);
    if (++at_ == piece_.size()) fill();
  }
  void event() { since_event_ = 0; }

 private:
  void fill() {
    position_ += piece_.size();
    piece_.resize(static_cast<std::size_t>(std::min(kPiece, left_)));
    stream_.read(piece_.data(), static_cast<std::streamsize>(piece_.size()));
    check<DataError>(static_cast<bool>(stream_) || piece_.empty(), who_, ": cannot be read");
    left_ -= piece_.size();
    at_ = 0;
  }

  std::string who_;
  std::ifstream stream_;
  std::uint64_t left_, position_ = 0, since_event_ = 0;
  std::vector<char> piece_;
  std::size_t at_ = 0;
};

struct ByteIterator {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = char;

  Bytes* bytes = nullptr;  // null: the end

  char operator*() const { return bytes->current(); }
  ByteIterator& operator++() {
    bytes->advance();
    return *this;
  }
  bool operator==(const ByteIterator& other) const { return ended() == other.ended(); }
  bool operator!=(const ByteIterator& other) const { return !(*this == other); }
  bool ended() const { return !bytes || bytes->at_end(); }
};

// From the parser's events to ours.
class Forwarder {
 public:
  Forwarder(std::string who, Bytes& bytes, JsonEvents& events)
      : who_(std::move(who)), bytes_(bytes), events_(events) {}

  bool null() { return other("null"); }
  bool boolean(bool) { return other("true or false"); }
  bool number_integer(std::int64_t) { return other("a negative number"); }
  bool number_unsigned(std::uint64_t value) {
    return tell([&] { events_.number(value); });
  }
  bool number_float(double, const std::string&) {
    return other("a number that is not whole or not below 2^64");
  }
  bool string(const std::string& value) {
    return tell([&] { events_.text(value); });
  }
  bool binary(const std::vector<std::uint8_t>&) { return other("binary data"); }
  bool start_object(std::size_t) {
    return tell([&] { events_.begin_object(); });
  }
  bool key(const std::string& name) {
    return tell([&] { events_.key(name); });
  }
  bool end_object() {
    return tell([&] { events_.end_object(); });
  }
  bool start_array(std::size_t) {
    return tell([&] { events_.begin_array(); });
  }
  bool end_array() {
    return tell([&] { events_.end_array(); });
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception&) {
    throw DataError(text(who_, ": is not JSON at byte ", position, " of it"));
  }

 private:
  template <class Tell>
  bool tell(Tell say) {
    bytes_.event();
    say();
    return true;
  }
  bool other(const char* what) {
    return tell([&] { events_.other(what); });
  }

  std::string who_;
  Bytes& bytes_;
  JsonEvents& events_;
};

}  // namespace

void stream_json(const std::filesystem::path& file, std::uint64_t offset, std::uint64_t length,
                 JsonEvents& events) {
  Bytes bytes(file, offset, length);
  Forwarder forwarder(file.string(), bytes, events);
  nlohmann::json::sax_parse(ByteIterator{&bytes}, ByteIterator{}, &forwarder);
}

std::string shown(const std::string& name) {
  constexpr std::size_t kMost = 100;
  std::string result = name.substr(0, kMost);
  for (char& c : result)
    if (c < ' ' || c > '~') c = '?';
  return name.size() > kMost ? result + "..." : result;
}

}  // namespace infini
