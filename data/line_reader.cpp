#include "data/line_reader.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "tensor/error.h"

namespace infini {

// Bytes of a file, decompressed. read() returns 0 at the end.
class ByteStream {
 public:
  virtual ~ByteStream() = default;
  virtual std::size_t read(std::span<char> out) = 0;
};

namespace {

constexpr std::size_t kBuffer = 1 << 18;

class PlainStream : public ByteStream {
 public:
  explicit PlainStream(const std::filesystem::path& path)
      : path_(path.string()), file_(std::fopen(path.c_str(), "rb"), std::fclose) {
    check<DataError>(file_ != nullptr, path_, ": cannot be opened: ", std::strerror(errno));
  }
  std::size_t read(std::span<char> out) override {
    const std::size_t count = std::fread(out.data(), 1, out.size(), file_.get());
    check<DataError>(!std::ferror(file_.get()), path_, ": cannot be read: ", std::strerror(errno));
    return count;
  }

 private:
  std::string path_;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
};

class GzipStream final : public ByteStream {
 public:
  explicit GzipStream(const std::filesystem::path& path)
      : path_(path.string()), file_(gzopen(path.c_str(), "rb")) {
    check<DataError>(file_ != nullptr, path_, ": cannot be opened: ", std::strerror(errno));
  }
  GzipStream(const GzipStream&) = delete;
  GzipStream& operator=(const GzipStream&) = delete;
  ~GzipStream() override { gzclose(file_); }
  std::size_t read(std::span<char> out) override {
    const int count = gzread(file_, out.data(), static_cast<unsigned>(out.size()));
    int code = Z_OK;
    const char* const reason =
        gzerror(file_, &code);  // a truncated file reads as its end, with Z_BUF_ERROR
    check<DataError>(count >= 0 && (code == Z_OK || code == Z_STREAM_END), path_,
                     ": damaged or truncated gzip file: ", reason);
    // zlib passes on as it is what does not begin as gzip does.
    check<DataError>(!gzdirect(file_), path_, ": is no gzip file");
    return static_cast<std::size_t>(count);
  }

 private:
  std::string path_;
  gzFile file_;
};

class ZstdStream final : public ByteStream {
 public:
  explicit ZstdStream(const std::filesystem::path& path)
      : path_(path.string()), file_(path), context_(ZSTD_createDCtx(), ZSTD_freeDCtx) {
    ZSTD_DCtx_setParameter(context_.get(), ZSTD_d_windowLogMax, 31);  // files made with --long
  }
  std::size_t read(std::span<char> out) override {
    ZSTD_outBuffer target{out.data(), out.size(), 0};
    while (target.pos == 0) {
      if (source_.pos == source_.size) {
        source_ = {buffer_.data(), file_.read(buffer_), 0};
        if (source_.size == 0) {
          check<DataError>(whole_, path_, ": truncated zstd file");
          return 0;
        }
      }
      const std::size_t left = ZSTD_decompressStream(context_.get(), &target, &source_);
      check<DataError>(!ZSTD_isError(left), path_,
                       ": damaged zstd file: ", ZSTD_getErrorName(left));
      whole_ = left == 0;
    }
    return target.pos;
  }

 private:
  std::string path_;
  PlainStream file_;
  std::unique_ptr<ZSTD_DCtx, std::size_t (*)(ZSTD_DCtx*)> context_;
  std::vector<char> buffer_ = std::vector<char>(kBuffer);
  ZSTD_inBuffer source_{nullptr, 0, 0};
  bool whole_ = false;  // at the end of a frame; a file without any frame is a truncated one
};

std::unique_ptr<ByteStream> open_stream(const std::filesystem::path& path) {
  if (path.extension() == ".gz") return std::make_unique<GzipStream>(path);
  if (path.extension() == ".zst") return std::make_unique<ZstdStream>(path);
  return std::make_unique<PlainStream>(path);
}

}  // namespace

LineReader::LineReader(const std::filesystem::path& path, std::int64_t longest)
    : stream_(open_stream(path)), longest_(static_cast<std::size_t>(longest)), buffer_(kBuffer) {}
LineReader::~LineReader() = default;

bool LineReader::next(std::string& line) {
  line.clear();
  too_long_ = false;
  bool some = false;  // a line may be empty, the end of a file is not a line
  while (true) {
    if (begin_ == end_) {
      begin_ = 0;
      end_ = stream_->read(buffer_);
      if (end_ == 0) break;
    }
    some = true;
    const std::string_view rest(buffer_.data() + begin_, end_ - begin_);
    const std::size_t length = std::min(rest.find('\n'), rest.size());
    const std::size_t room = longest_ - line.size();
    line += rest.substr(0, std::min(length, room));
    too_long_ = too_long_ || length > room;
    begin_ += length;
    if (length == rest.size()) continue;
    ++begin_;
    break;
  }
  number_ += some;
  return some;
}

std::filesystem::path decompressed_name(const std::filesystem::path& path) {
  const bool compressed = path.extension() == ".gz" || path.extension() == ".zst";
  return compressed ? path.stem() : path.filename();
}

std::string read_decompressed(const std::filesystem::path& path) {
  const auto stream = open_stream(path);
  std::vector<char> buffer(kBuffer);
  std::string bytes;
  while (const std::size_t count = stream->read(buffer)) bytes.append(buffer.data(), count);
  return bytes;
}

}  // namespace infini
