#include "distributed/world.h"

#include <cstdlib>
#include <string>

#include "distributed/mpi_call.h"

namespace infini {
namespace {

bool is_set(const char* variable) { return std::getenv(variable) != nullptr; }

// Ranks that share memory, which are those of one machine, and this one's place among them.
struct Neighbours {
  int rank = 0, size = 1;
};
Neighbours neighbours() {
  MPI_Comm machine = MPI_COMM_NULL;
  Neighbours here;
  check_mpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &machine),
            "MPI_Comm_split_type");
  check_mpi(MPI_Comm_rank(machine, &here.rank), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(machine, &here.size), "MPI_Comm_size");
  MPI_Comm_free(&machine);
  return here;
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
  const Neighbours here = neighbours();
  local_rank_ = here.rank;
  local_size_ = here.size;
}

World::~World() {
  if (finalize_) MPI_Finalize();
}

void World::abort(int exit_code) const {
  if (finalize_) MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

void World::require_single(const std::string& command) const {
  check<ConfigError>(size_ == 1, "infini ", command, " was started on ", size_,
                     " ranks but runs on one for now; start it without mpirun");
}

}  // namespace infini
