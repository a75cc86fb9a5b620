// Scalars for TensorBoard: an event file, written without protobuf.
//
// A record is  u64 length | u32 masked CRC32C of the length | bytes | u32 masked CRC32C of the
// bytes, all little-endian; the bytes are a tensorflow.Event message.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "trainer/metrics.h"

namespace infini {

std::uint32_t crc32c(std::string_view bytes);  // Castagnoli

// The three events we write, as framed records. Times are seconds since 1970.
std::string version_record(double wall_time);
std::string scalars_record(double wall_time, std::int64_t step, const Metrics& metrics);
// Tells readers to forget whatever earlier files hold from `step` on: the run was resumed there.
std::string restart_record(double wall_time, std::int64_t step);

// Writes <folder>/events.out.tfevents.<seconds>.<host>.<process>. Like MetricsLog, a full disk
// costs records, never the run.
class EventWriter {
 public:
  // `resumed_step`: the last step of the run that counts, 0 for a new run.
  EventWriter(const std::filesystem::path& folder, std::int64_t resumed_step);
  ~EventWriter();
  EventWriter(const EventWriter&) = delete;
  EventWriter& operator=(const EventWriter&) = delete;

  void append(std::int64_t step, const Metrics& metrics);

 private:
  void write(const std::string& record);

  std::filesystem::path file_;
  int fd_ = -1;
  bool failed_ = false;  // a torn record ends the file for its readers
};

}  // namespace infini
