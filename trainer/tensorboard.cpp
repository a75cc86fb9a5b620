#include "trainer/tensorboard.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "tensor/error.h"

namespace infini {
namespace {

constexpr std::array<std::uint32_t, 256> crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ (value & 1 ? 0x82F63B78u : 0u);
    table[byte] = value;
  }
  return table;
}

// CRCs are stored rotated and shifted, so that the CRC of data that holds CRCs stays strong.
std::uint32_t masked_crc(std::string_view bytes) {
  return std::rotr(crc32c(bytes), 15) + 0xA282EAD8u;
}

template <class T>
std::string little_endian(T value) {
  static_assert(std::endian::native == std::endian::little);
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

// Protocol buffers: a field is its number and wire type, then its value.
std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(0x80 | (value & 0x7F));
  return bytes + static_cast<char>(value);
}
std::string varint_field(int number, std::int64_t value) {
  return varint(static_cast<std::uint64_t>(number) << 3) +
         varint(static_cast<std::uint64_t>(value));
}
std::string double_field(int number, double value) {
  return varint(static_cast<std::uint64_t>(number) << 3 | 1) + little_endian(value);
}
std::string bytes_field(int number, std::string_view value) {
  return varint(static_cast<std::uint64_t>(number) << 3 | 2) + varint(value.size()) +
         std::string(value);
}
std::string float_field(int number, float value) {
  return varint(static_cast<std::uint64_t>(number) << 3 | 5) + little_endian(value);
}

std::string framed(const std::string& event) {
  const std::string length = little_endian(std::uint64_t{event.size()});
  return length + little_endian(masked_crc(length)) + event + little_endian(masked_crc(event));
}

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  static constexpr auto kTable = crc_table();
  std::uint32_t crc = ~0u;
  for (const unsigned char byte : bytes) crc = kTable[(crc ^ byte) & 0xFF] ^ (crc >> 8);
  return ~crc;
}

std::string version_record(double wall_time) {
  return framed(double_field(1, wall_time) + bytes_field(3, "brain.Event:2"));
}

std::string scalars_record(double wall_time, std::int64_t step, const Metrics& metrics) {
  std::string summary;
  for (const auto& [tag, value] : metrics)
    summary += bytes_field(1, bytes_field(1, tag) + float_field(2, static_cast<float>(value)));
  return framed(double_field(1, wall_time) + varint_field(2, step) + bytes_field(5, summary));
}

std::string restart_record(double wall_time, std::int64_t step) {
  constexpr std::int64_t kStart = 1;  // SessionLog.SessionStatus.START
  return framed(double_field(1, wall_time) + varint_field(2, step) +
                bytes_field(7, varint_field(1, kStart)));
}

EventWriter::EventWriter(const std::filesystem::path& folder, std::int64_t resumed_step) {
  std::filesystem::create_directories(folder);
  char host[256] = "host";
  gethostname(host, sizeof host - 1);
  file_ = folder /
          text("events.out.tfevents.", static_cast<std::int64_t>(now()), ".", host, ".", getpid());
  fd_ = open(file_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  check<DeviceError>(fd_ >= 0, file_.string(), ": cannot be created: ", std::strerror(errno));
  write(version_record(now()));
  if (resumed_step > 0) write(restart_record(now(), resumed_step + 1));
}

EventWriter::~EventWriter() { close(fd_); }

void EventWriter::append(std::int64_t step, const Metrics& metrics) {
  write(scalars_record(now(), step, metrics));
}

void EventWriter::write(const std::string& record) {
  if (failed_) return;
  ssize_t written = 0;
  do {
    written = ::write(fd_, record.data(), record.size());
  } while (written < 0 && errno == EINTR);
  if (written == static_cast<ssize_t>(record.size())) return;
  failed_ = true;
  spdlog::warn("{}: no more events are written: {}", file_.string(),
               std::strerror(written < 0 ? errno : ENOSPC));
}

}  // namespace infini
