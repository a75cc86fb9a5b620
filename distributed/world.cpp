#include "distributed/world.h"

#include <mpi.h>

#include <cstdlib>
#include <string>

#include "tensor/error.h"

namespace infini {
namespace {

bool is_set(const char* variable) { return std::getenv(variable) != nullptr; }

void check_mpi(int status, const char* call) {
  if (status == MPI_SUCCESS) return;
  char reason[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(status, reason, &length);
  throw DeviceError(text(call, " failed: ", reason));
}

}  // namespace

bool launched_by_mpi() {
  return is_set("OMPI_COMM_WORLD_RANK") || is_set("PMIX_RANK") || is_set("PMI_RANK");
}

World::World() {
  if (!launched_by_mpi()) {
    const char* tasks = std::getenv("SLURM_STEP_NUM_TASKS");
    check<ConfigError>(
        tasks == nullptr || std::string(tasks) == "1", "srun started ", tasks ? tasks : "",
        " tasks that cannot find each other; start them with srun --mpi=pmix or with mpirun");
    return;
  }
  int provided = 0;
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
  finalize_ = true;
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  check_mpi(MPI_Comm_rank(MPI_COMM_WORLD, &rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &size_), "MPI_Comm_size");
}

World::~World() {
  if (finalize_) MPI_Finalize();
}

bool World::all_agree(bool mine) const {
  if (size_ == 1) return mine;
  int all = mine ? 1 : 0;
  check_mpi(MPI_Allreduce(MPI_IN_PLACE, &all, 1, MPI_INT, MPI_LAND, MPI_COMM_WORLD),
            "MPI_Allreduce");
  return all != 0;
}

void World::require_single(const std::string& command) const {
  check<ConfigError>(size_ == 1, "infini ", command, " was started on ", size_,
                     " ranks but runs on one for now; start it without mpirun");
}

}  // namespace infini
