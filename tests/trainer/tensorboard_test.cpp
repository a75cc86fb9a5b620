#include "trainer/tensorboard.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "data/durable_file.h"

namespace infini {
namespace {

namespace fs = std::filesystem;

std::string hex(const std::string& bytes) {
  std::string out;
  for (const unsigned char byte : bytes) {
    out += "0123456789abcdef"[byte / 16];
    out += "0123456789abcdef"[byte % 16];
  }
  return out;
}

TEST(TensorBoard, ChecksumIsCastagnolis) { EXPECT_EQ(crc32c("123456789"), 0xE3069283u); }

TEST(TensorBoard, RecordsEqualTheKnownBytes) {
  EXPECT_EQ(hex(version_record(1.0)),
            "1800000000000000a37f4b22"
            "09000000000000f03f1a0d627261696e2e4576656e743a32"
            "86bf577a");
  EXPECT_EQ(hex(scalars_record(2.0, 7, {{"loss", 2.5}})),
            "1a00000000000000129bd82d"
            "09000000000000004010072a0d0a0b0a046c6f73731500002040"
            "c2dfec60");
}

TEST(TensorBoard, LongStepsAndSeveralScalarsFit) {
  // 300 = 0b10'0101100: two bytes of seven bits, the lower first.
  EXPECT_NE(hex(scalars_record(0, 300, {{"a", 1}, {"b", 2}})).find("10ac02"), std::string::npos);
}

TEST(TensorBoard, WriterBeginsWithTheVersionAndMarksAResumedRun) {
  char name[] = "/tmp/infini-events-XXXXXX";
  const fs::path folder = mkdtemp(name);
  {
    EventWriter events(folder, 41);
    events.append(42, {{"loss", 2.5}});
  }
  std::string bytes;
  for (const auto& entry : fs::directory_iterator(folder)) {
    EXPECT_EQ(entry.path().filename().string().find("events.out.tfevents."), 0u);
    bytes += read_file(entry.path());
  }
  const std::size_t version = version_record(1.0).size();
  const std::size_t restart = restart_record(1.0, 42).size();
  EXPECT_EQ(bytes.size(), version + restart + scalars_record(1.0, 42, {{"loss", 2.5}}).size());
  // After the time: step 42, then a session log whose status is START.
  EXPECT_EQ(hex(bytes.substr(version + 12 + 9, 6)), "102a3a020801");
  fs::remove_all(folder);
}

}  // namespace
}  // namespace infini
