// A group of ranks and what they exchange.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace infini {

class World;

// A handle: copies are the same group. In a group of one every call is trivial and touches neither
// MPI nor NCCL. Every call is made by all ranks of the group, in the same order.
//
// Tensors on the CPU go by MPI and are there when the call returns. Tensors on a device go by NCCL
// on a stream of its own, which starts when what the device was asked for before the call is done;
// what it is asked for after wait() sees the results. Until then tensors in flight are kept alive.
//
// Sums on the CPU are balanced binary trees over the ranks in their order, whatever the size of the
// tensor. On a device they are NCCL's, which repeat on the same machine.
class Communicator {
 public:
  Communicator() = default;                   // this process alone
  explicit Communicator(const World& world);  // all ranks of the run
  // Ranks with the same color become a group, in the order they have here.
  Communicator split(int color) const;

  int rank() const;
  int size() const;
  bool is_first() const { return rank() == 0; }

  // values = the sum over all ranks, element by element.
  void all_reduce(const Tensor& values) const;
  // The same on `root` alone; what the others have afterwards is undefined.
  void reduce(const Tensor& values, int root) const;
  // all [P n], mine [n]: the sum over all ranks of their piece rank() of `all`.
  void reduce_scatter(const Tensor& all, const Tensor& mine) const;
  // mine [n] -> all [P n], in the order of the ranks.
  void all_gather(const Tensor& mine, const Tensor& all) const;
  void broadcast(const Tensor& values, int root) const;
  // From one rank to another, which calls the other of the two.
  void send(const Tensor& values, int to) const;
  void receive(const Tensor& values, int from) const;
  void wait() const;

  // Small things on the host, with all ranks waiting for each other.
  std::vector<double> gather(double mine) const;            // everyone's, by rank
  std::vector<double> sum(std::vector<double> mine) const;  // each added in the order of the ranks
  bool all_agree(bool mine) const;                          // whether everyone passed true
  std::string from_first(const std::string& mine) const;    // the text of rank 0

 private:
  struct Group;
  explicit Communicator(std::shared_ptr<Group> group) : group_(std::move(group)) {}
  bool is_alone() const { return size() == 1; }

  std::shared_ptr<Group> group_;  // null: this process alone
};

// How many exchanges this process has entered, over all groups; in long work without any,
// note_progress() counts as one.
std::int64_t exchanges_entered();
void note_progress();

}  // namespace infini
