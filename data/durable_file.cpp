#include "data/durable_file.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "tensor/error.h"

namespace infini {
namespace {

// An open file descriptor.
class Descriptor {
 public:
  Descriptor(const std::filesystem::path& path, int flags)
      : fd_(::open(path.c_str(), flags, 0644)) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

std::string system_error() { return std::strerror(errno); }

void sync(const std::filesystem::path& path, int flags) {
  const Descriptor file(path, flags);
  check<DeviceError>(file.get() >= 0 && ::fsync(file.get()) == 0, path.string(),
                     ": cannot be brought to disk: ", system_error());
}

// Calls use(bytes, count) for the file's bytes in order, in pieces.
template <class Use>
void stream(const std::filesystem::path& path, Use use) {
  const Descriptor file(path, O_RDONLY | O_CLOEXEC);
  check<DataError>(file.get() >= 0, path.string(), ": cannot be opened: ", system_error());
  std::vector<char> buffer(1 << 20);
  while (true) {
    const ssize_t count = ::read(file.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    check<DataError>(count >= 0, path.string(), ": cannot be read: ", system_error());
    if (count == 0) return;
    use(buffer.data(), static_cast<std::size_t>(count));
  }
}

}  // namespace

std::string read_file(const std::filesystem::path& path) {
  std::string bytes;
  std::error_code ignored;
  if (const auto size = std::filesystem::file_size(path, ignored); !ignored) bytes.reserve(size);
  stream(path, [&](const char* piece, std::size_t count) { bytes.append(piece, count); });
  return bytes;
}

void write_file(const std::filesystem::path& path, std::string_view bytes) {
  const auto temporary = temporary_name(path);
  {
    const Descriptor file(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC);
    check<DeviceError>(file.get() >= 0, temporary.string(),
                       ": cannot be created: ", system_error());
    for (std::size_t done = 0; done < bytes.size();) {
      const ssize_t count = ::write(file.get(), bytes.data() + done, bytes.size() - done);
      if (count < 0 && errno == EINTR) continue;
      check<DeviceError>(count >= 0, temporary.string(), ": cannot be written: ", system_error());
      done += static_cast<std::size_t>(count);
    }
  }
  publish_file(temporary, path);
}

std::filesystem::path temporary_name(const std::filesystem::path& path) {
  return path.string() + ".tmp";
}

void publish_file(const std::filesystem::path& temporary, const std::filesystem::path& path) {
  sync(temporary, O_RDONLY | O_CLOEXEC);
  check<DeviceError>(std::rename(temporary.c_str(), path.c_str()) == 0, path.string(),
                     ": cannot be renamed from ", temporary.string(), ": ", system_error());
  const auto folder = path.parent_path();
  sync(folder.empty() ? "." : folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

std::uint64_t hash_file(const std::filesystem::path& path, std::uint64_t length) {
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(),
                                                                       XXH3_freeState);
  XXH3_64bits_reset(state.get());
  stream(path, [&](const char* piece, std::size_t count) {
    const auto used = static_cast<std::size_t>(std::min<std::uint64_t>(count, length));
    XXH3_64bits_update(state.get(), piece, used);
    length -= used;
  });
  return XXH3_64bits_digest(state.get());
}

std::string hash_digits(std::uint64_t hash) {
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(hash));
  return digits;
}

}  // namespace infini
