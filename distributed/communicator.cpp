#include "distributed/communicator.h"

#include <atomic>

#include "distributed/mpi_call.h"
#include "distributed/transport.h"
#include "distributed/world.h"

namespace infini {
namespace {

std::atomic<std::int64_t> entered = 0;

}  // namespace

std::int64_t exchanges_entered() { return entered; }
void note_progress() { ++entered; }

struct Communicator::Group {
  MPI_Comm ranks = MPI_COMM_NULL;
  int rank = 0, size = 1;
  std::unique_ptr<Transport> cpu, device;  // the device's at its first use

  explicit Group(MPI_Comm made) : ranks(made) {
    check_mpi(MPI_Comm_set_errhandler(ranks, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check_mpi(MPI_Comm_rank(ranks, &rank), "MPI_Comm_rank");
    check_mpi(MPI_Comm_size(ranks, &size), "MPI_Comm_size");
    cpu = mpi_transport(ranks);
  }
  // Left to MPI_Finalize where the run ends by an error: the other ranks do not free it then.
  ~Group() = default;

  Transport& transport(const Tensor& tensor) {
    ++entered;
    if (tensor.device() == Device::kCpu) return *cpu;
    if (!device) device = nccl_transport(ranks);
    return *device;
  }
};

Communicator::Communicator(const World& world) {
  if (world.size() == 1) return;
  MPI_Comm copy = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &copy), "MPI_Comm_dup");
  group_ = std::make_shared<Group>(copy);
}

Communicator Communicator::split(int color) const {
  if (is_alone()) return {};
  MPI_Comm part = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split(group_->ranks, color, rank(), &part), "MPI_Comm_split");
  return Communicator(std::make_shared<Group>(part));
}

int Communicator::rank() const { return group_ ? group_->rank : 0; }
int Communicator::size() const { return group_ ? group_->size : 1; }

void Communicator::all_reduce(const Tensor& values) const {
  if (is_alone() || values.size() == 0) return;
  group_->transport(values).sum(values, std::nullopt);
}

void Communicator::reduce(const Tensor& values, int root) const {
  if (is_alone() || values.size() == 0) return;
  group_->transport(values).sum(values, root);
}

void Communicator::reduce_scatter(const Tensor& all, const Tensor& mine) const {
  check(all.size() == size() * mine.size() && all.dtype() == mine.dtype(),
        "reduce_scatter: ", all.dtype(), all.shape(), " to ", mine.dtype(), mine.shape(),
        " on each of ", size(), " ranks");
  if (is_alone()) return mine.copy_from(all.reshape(mine.shape()));
  if (mine.size() > 0) group_->transport(all).reduce_scatter(all, mine);
}

void Communicator::all_gather(const Tensor& mine, const Tensor& all) const {
  check(all.size() == size() * mine.size() && all.dtype() == mine.dtype(),
        "all_gather: ", mine.dtype(), mine.shape(), " of each of ", size(), " ranks into ",
        all.dtype(), all.shape());
  if (is_alone()) return all.copy_from(mine.reshape(all.shape()));
  if (mine.size() > 0) group_->transport(all).all_gather(mine, all);
}

void Communicator::broadcast(const Tensor& values, int root) const {
  if (is_alone() || values.size() == 0) return;
  group_->transport(values).broadcast(values, root);
}

void Communicator::send(const Tensor& values, int to) const {
  check(!is_alone() && to != rank(), "send: rank ", rank(), " of ", size(), " to rank ", to);
  group_->transport(values).send(values, to);
}

void Communicator::receive(const Tensor& values, int from) const {
  check(!is_alone() && from != rank(), "receive: rank ", rank(), " of ", size(), " from rank ",
        from);
  group_->transport(values).receive(values, from);
}

void Communicator::wait() const {
  if (!is_alone() && group_->device) group_->device->wait();
}

std::vector<double> Communicator::gather(double mine) const {
  std::vector<double> all(size(), mine);
  ++entered;
  if (!is_alone())
    check_mpi(MPI_Allgather(&mine, 1, MPI_DOUBLE, all.data(), 1, MPI_DOUBLE, group_->ranks),
              "MPI_Allgather");
  return all;
}

std::vector<double> Communicator::sum(std::vector<double> mine) const {
  if (is_alone()) return mine;
  ++entered;
  const auto count = static_cast<int>(mine.size());
  std::vector<double> all(mine.size() * static_cast<std::size_t>(size()));
  check_mpi(
      MPI_Allgather(mine.data(), count, MPI_DOUBLE, all.data(), count, MPI_DOUBLE, group_->ranks),
      "MPI_Allgather");
  mine.assign(mine.size(), 0);
  for (std::size_t i = 0; i < all.size(); ++i) mine[i % mine.size()] += all[i];
  return mine;
}

std::string Communicator::from_first(const std::string& mine) const {
  if (is_alone()) return mine;
  ++entered;
  std::uint64_t length = mine.size();
  check_mpi(MPI_Bcast(&length, sizeof length, MPI_BYTE, 0, group_->ranks), "MPI_Bcast");
  std::string text = mine;
  text.resize(length);
  check_mpi(MPI_Bcast(text.data(), static_cast<int>(length), MPI_BYTE, 0, group_->ranks),
            "MPI_Bcast");
  return text;
}

bool Communicator::all_agree(bool mine) const {
  for (const double one : gather(mine ? 1 : 0))
    if (one == 0) return false;
  return true;
}

}  // namespace infini
