// The processes of one run: who this one is and how many there are.
#pragma once

#include <string>

namespace infini {

// Whether mpirun, or srun with a PMI, started this process.
bool launched_by_mpi();

// MPI is initialised only in a process that a launcher started; a plain start never touches it.
// Create one, in main, before any other thread. The destructor finalises MPI.
class World {
 public:
  // Throws ConfigError when srun started several tasks that cannot find each other.
  World();
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  int rank() const { return rank_; }  // 0 .. size() - 1
  int size() const { return size_; }
  bool is_first() const { return rank_ == 0; }

  // Among the ranks of this machine: 0 .. local_size() - 1. Says which of its GPUs a rank takes.
  int local_rank() const { return local_rank_; }
  int local_size() const { return local_size_; }

  // Ends the run on all ranks with this exit code, wherever they are.
  [[noreturn]] void abort(int exit_code) const;

  // Throws ConfigError on every rank when there are several: for commands that run alone.
  void require_single(const std::string& command) const;

 private:
  bool finalize_ = false;
  int rank_ = 0;
  int size_ = 1;
  int local_rank_ = 0;
  int local_size_ = 1;
};

}  // namespace infini
