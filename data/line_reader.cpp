#include "data/line_reader.h"

#include <zlib.h>
#include <zstd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "tensor/error.h"

namespace infini {
namespace {

constexpr std::size_t kBuffer = 1 << 18;

// Bytes of a file, decompressed. read() returns 0 at the end.
class ByteStream {
 public:
  virtual ~ByteStream() = default;
  virtual std::size_t read(std::span<char> out) = 0;
};

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
  bool whole_ = true;  // at the border of a frame
};

std::unique_ptr<ByteStream> open_stream(const std::filesystem::path& path) {
  if (path.extension() == ".gz") return std::make_unique<GzipStream>(path);
  if (path.extension() == ".zst") return std::make_unique<ZstdStream>(path);
  return std::make_unique<PlainStream>(path);
}

}  // namespace

void read_lines(const std::filesystem::path& path,
                const std::function<bool(std::string& line, std::int64_t number)>& use) {
  const auto stream = open_stream(path);
  std::vector<char> buffer(kBuffer);
  std::string line;
  std::int64_t number = 1;
  while (const std::size_t count = stream->read(buffer)) {
    for (std::string_view rest(buffer.data(), count); !rest.empty();) {
      const std::size_t end = rest.find('\n');
      line += rest.substr(0, end);
      if (end == rest.npos) break;
      rest.remove_prefix(end + 1);
      if (!use(line, number++)) return;
      line.clear();
    }
  }
  if (!line.empty()) use(line, number);
}

}  // namespace infini
