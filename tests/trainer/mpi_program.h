// What tests of the program under mpirun share.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "tests/trainer/program.h"
#include "tests/trainer/tiny_run.h"

namespace infini {

class MpiProgramTest : public ProgramTest {
 protected:
  // Two cores must do for four ranks.
  void SetUp() override {
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    setenv("OMPI_MCA_mpi_yield_when_idle", "1", 1);
    setenv("OMP_NUM_THREADS", "1", 1);
    setenv("ASAN_OPTIONS", "detect_leaks=0", 1);  // Open MPI keeps memory to the end
    tiny_store(path("data"), kTinyLengths);
    write("tiny.yaml", kTinyRun);
  }
  Outcome train_on(int ranks, const std::string& arguments) {
    return shell(
        text("mpirun --oversubscribe -np ", ranks, " $infini train tiny.yaml ", arguments));
  }
  static void expect_exit(const Outcome& outcome, int code) {
    EXPECT_EQ(outcome.code, code) << outcome.said;
  }

  // Everything that the newest checkpoint of a run holds, whoever wrote it.
  Bytes held(const std::string& run) const {
    const Checkpoint checkpoint = *find_latest(path(run));
    Bytes bytes;
    std::vector<NamedBuffer> buffers;
    for (const BufferInfo& info : checkpoint.buffers()) {
      std::size_t count = info.dtype == "u8" ? 1 : info.dtype == "f64" ? 8 : 4;
      for (const std::int64_t extent : info.shape) count *= static_cast<std::size_t>(extent);
      bytes[info.name].resize(count);
      buffers.push_back({.name = info.name,
                         .dtype = info.dtype,
                         .shape = info.shape,
                         .data = bytes[info.name].data(),
                         .bytes = count});
    }
    checkpoint.read(buffers);
    return bytes;
  }
  static int times(const std::string& text, const std::string& part) {
    int count = 0;
    for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1))
      ++count;
    return count;
  }
};

}  // namespace infini
