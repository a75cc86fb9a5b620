#include "trainer/safetensors_header.h"

#include <algorithm>
#include <fstream>

#include "tensor/error.h"
#include "trainer/guarded_json.h"

namespace infini {
namespace {

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kMostHeaderBytes = 100'000'000;  // the format's own limit
constexpr std::size_t kMostTensors = 100'000;
constexpr std::size_t kMostNameBytes = 256;
constexpr std::size_t kMostAxes = 8;
constexpr const char* kMetadata = "__metadata__";

// {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ..., "__metadata__": {...}}
class HeaderEvents final : public JsonEvents {
 public:
  explicit HeaderEvents(const std::filesystem::path& path) : who_(path.string()) {}

  std::vector<StoredTensor> take() {
    check<DataError>(place_ == Place::kDone, who_, ": its header is not a JSON object");
    return std::move(tensors_);
  }

  void begin_object() override {
    if (place_ == Place::kStart) {
      place_ = Place::kFile;
    } else if (place_ == Place::kFile && name_ == kMetadata) {
      place_ = Place::kTexts;
    } else if (place_ == Place::kFile) {
      expect(tensors_.size() < kMostTensors, "its header has more than ", kMostTensors, " tensors");
      tensors_.emplace_back().name = name_;
      has_dtype_ = has_shape_ = false;
      offsets_ = 0;
      place_ = Place::kTensor;
    } else {
      refuse("an object");
    }
  }

  void key(const std::string& name) override {
    if (place_ == Place::kTensor) {
      expect(name == "dtype" || name == "shape" || name == "data_offsets", "the unknown entry ",
             shown(name));
      field_ = name;
    } else if (place_ == Place::kFile) {
      name_ = name;
      expect(name.size() <= kMostNameBytes, "a name of ", name.size(), " bytes, at most ",
             kMostNameBytes, " are read");
    } else if (place_ == Place::kTexts) {
      expect(++texts_ <= kMostTensors, "more than ", kMostTensors, " texts");
    }
  }

  void end_object() override {
    if (place_ == Place::kTensor)
      expect(has_dtype_ && has_shape_ && offsets_ == 2, "expected dtype, shape and data_offsets");
    place_ = place_ == Place::kFile ? Place::kDone : Place::kFile;
  }

  void begin_array() override {
    if (place_ != Place::kTensor || field_ == "dtype") refuse("a list");
    expect(field_ == "shape" ? !has_shape_ : offsets_ == 0, field_, " twice");
    if (field_ == "shape") has_shape_ = true;
    place_ = Place::kNumbers;
  }
  void end_array() override { place_ = Place::kTensor; }

  void number(std::uint64_t value) override {
    if (place_ != Place::kNumbers) refuse("a number");
    StoredTensor& tensor = tensors_.back();
    if (field_ == "shape") {
      expect(tensor.shape.size() < kMostAxes, "more than ", kMostAxes, " axes");
      expect(value <= INT64_MAX, "an extent of ", value);
      tensor.shape.push_back(static_cast<std::int64_t>(value));
    } else {
      expect(offsets_ < 2, "more than two data_offsets");
      (offsets_++ == 0 ? tensor.begin : tensor.end) = value;
    }
  }

  void text(const std::string& value) override {
    if (place_ == Place::kTexts) return;
    if (place_ != Place::kTensor || field_ != "dtype") refuse("text");
    expect(!has_dtype_, "dtype twice");
    expect(value == "F32" || value == "BF16" || value == "F16", "dtype ", value.substr(0, 100),
           ", expected F32, BF16 or F16");
    tensors_.back().type = value == "F32"    ? StoredType::kFp32
                           : value == "BF16" ? StoredType::kBf16
                                             : StoredType::kFp16;
    has_dtype_ = true;
  }

  void other(const std::string& what) override { refuse(what); }

 private:
  enum class Place { kStart, kFile, kTexts, kTensor, kNumbers, kDone };

  template <class... What>
  void expect(bool holds, const What&... what) const {
    if (!holds) fail(infini::text(what...));
  }
  [[noreturn]] void fail(const std::string& what) const {
    throw DataError(infini::text(who_, ": tensor ", shown(name_), ": ", what));
  }
  [[noreturn]] void refuse(const std::string& what) const {
    if (place_ == Place::kStart) throw DataError(who_ + ": its header is not a JSON object");
    fail(infini::text("has ", what, " where ",
                      place_ == Place::kFile      ? "an object"
                      : place_ == Place::kTexts   ? "text"
                      : place_ == Place::kNumbers ? "a whole number"
                      : field_ == "dtype"         ? "text"
                                                  : "a list of whole numbers",
                      " was expected"));
  }

  std::string who_;
  Place place_ = Place::kStart;
  std::string name_, field_;  // of the tensor and of its entry
  bool has_dtype_ = false, has_shape_ = false;
  int offsets_ = 0;        // read of the tensor so far
  std::size_t texts_ = 0;  // of the metadata
  std::vector<StoredTensor> tensors_;
};

}  // namespace

SafetensorsHeader read_safetensors_header(const std::filesystem::path& path,
                                          std::uint64_t file_bytes) {
  const std::string who = path.string();
  check<DataError>(file_bytes >= kLengthBytes, who, ": has ", file_bytes,
                   " bytes, too few for a safetensors file");
  std::ifstream in(path, std::ios::binary);
  unsigned char length_bytes[kLengthBytes] = {};
  in.read(reinterpret_cast<char*>(length_bytes), kLengthBytes);
  check<DataError>(static_cast<bool>(in), who, ": cannot be read");
  std::uint64_t length = 0;
  for (std::size_t i = kLengthBytes; i-- > 0;) length = length << 8 | length_bytes[i];
  check<DataError>(length <= kMostHeaderBytes, who, ": a header of ", length,
                   " bytes, safetensors allow ", kMostHeaderBytes);
  check<DataError>(length <= file_bytes - kLengthBytes, who, ": a header of ", length,
                   " bytes in a file of ", file_bytes, "; the file is cut");
  HeaderEvents events(path);
  stream_json(path, kLengthBytes, length, events);
  return {.tensors = events.take(), .bytes = kLengthBytes + length};
}

}  // namespace infini
