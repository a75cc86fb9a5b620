// What moves tensors between the ranks of a group: MPI for those on the CPU, NCCL for those on a
// device. The group has at least two ranks.
#pragma once

#include <mpi.h>

#include <memory>
#include <optional>

#include "tensor/tensor.h"

namespace infini {

// Sums are over the ranks, element by element. Every call is made by every rank of the group, in
// the same order, with tensors of one size and type, but for send and receive, which pair up.
class Transport {
 public:
  virtual ~Transport() = default;

  // values = the sum of everyone's values; only on `root` where one is given, and undefined on the
  // others then.
  virtual void sum(const Tensor& values, std::optional<int> root) = 0;
  // mine = the sum of everyone's piece rank() of `all`, P pieces of the size of `mine`.
  virtual void reduce_scatter(const Tensor& all, const Tensor& mine) = 0;
  virtual void all_gather(const Tensor& mine, const Tensor& all) = 0;
  virtual void broadcast(const Tensor& values, int root) = 0;
  virtual void send(const Tensor& values, int to) = 0;
  virtual void receive(const Tensor& values, int from) = 0;
  // What the device is asked for next sees the results of the calls so far. The host does not wait.
  virtual void wait() = 0;
};

// Sums are balanced binary trees over the ranks in their order: ranks [a, b) are added as the sum
// of [a, m) plus the sum of [m, b), m = (a + b) / 2.
std::unique_ptr<Transport> mpi_transport(MPI_Comm group);

// On a stream of its own. Collective over the group. Throws DeviceError where the build has no
// NCCL.
std::unique_ptr<Transport> nccl_transport(MPI_Comm group);

}  // namespace infini
