#include "distributed/world.h"

#include <gtest/gtest.h>
#include <mpi.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "tensor/error.h"

namespace infini {
namespace {

// Runs `body` in a process of its own with one environment variable set; true if it returned true.
template <class Body>
bool in_child(const char* variable, const char* value, Body body) {
  const pid_t child = fork();
  if (child == 0) {
    setenv(variable, value, 1);
    _exit(body() ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

TEST(World, PlainStartIsOneProcessAndLeavesMpiAlone) {
  const World world;
  EXPECT_EQ(world.rank(), 0);
  EXPECT_EQ(world.size(), 1);
  EXPECT_TRUE(world.is_first());
  EXPECT_EQ(world.local_rank(), 0);
  EXPECT_EQ(world.local_size(), 1);
  EXPECT_NO_THROW(world.require_single("evaluate"));
  int initialized = 1;
  MPI_Initialized(&initialized);
  EXPECT_FALSE(initialized);
}

TEST(World, LauncherIsRecognised) {
  EXPECT_FALSE(launched_by_mpi());
  EXPECT_TRUE(in_child("OMPI_COMM_WORLD_RANK", "0", launched_by_mpi));
  EXPECT_TRUE(in_child("PMIX_RANK", "0", launched_by_mpi));
}

TEST(World, TasksOfSrunThatCannotMeetAreRefused) {
  EXPECT_TRUE(in_child("SLURM_STEP_NUM_TASKS", "1", [] { return World().size() == 1; }));
  EXPECT_TRUE(in_child("SLURM_STEP_NUM_TASKS", "4", [] {
    try {
      World world;
    } catch (const ConfigError& error) {
      return std::string(error.what()).find("srun started 4 tasks") != std::string::npos;
    }
    return false;
  }));
}

}  // namespace
}  // namespace infini
