#include <algorithm>
#include <vector>

#include "distributed/mpi_call.h"
#include "distributed/transport.h"

namespace infini {
namespace {

// Bytes that one call of MPI moves from or to a rank: its counts are ints, and what a sum needs
// beside its tensor grows with them.
constexpr std::int64_t kSlabBytes = 4 << 20;

// parts[0] = the sum of parts [begin, end), a balanced binary tree; `parts` are destroyed.
template <class A>
void add_tree(A* parts, std::int64_t stride, int begin, int end, std::int64_t count) {
  if (end - begin == 1) return;
  const int middle = (begin + end) / 2;
  add_tree(parts, stride, begin, middle, count);
  add_tree(parts, stride, middle, end, count);
  A* const left = parts + begin * stride;
  const A* const right = parts + middle * stride;
#pragma GCC ivdep
  for (std::int64_t i = 0; i < count; ++i) left[i] += right[i];
}

// out[i] = the sum over p of parts[p count + i], in the accumulator of the type.
template <class T>
void sum_parts(const T* parts, int ranks, std::int64_t count, T* out) {
  constexpr std::int64_t kBlock = 1024;
  using A = Accumulator<T>;
  std::vector<A> block(static_cast<std::size_t>(ranks) * kBlock);
  for (std::int64_t first = 0; first < count; first += kBlock) {
    const std::int64_t here = std::min(kBlock, count - first);
    for (int p = 0; p < ranks; ++p)
      for (std::int64_t i = 0; i < here; ++i)
        block[p * kBlock + i] = static_cast<A>(parts[p * count + first + i]);
    add_tree(block.data(), kBlock, 0, ranks, here);
    for (std::int64_t i = 0; i < here; ++i) out[first + i] = T(block[i]);
  }
}

void sum_bytes(DType dtype, const std::byte* parts, int ranks, std::int64_t count, std::byte* out) {
  dispatch_float(dtype, [&]<class T>() {
    sum_parts(reinterpret_cast<const T*>(parts), ranks, count, reinterpret_cast<T*>(out));
  });
}

class MpiTransport final : public Transport {
 public:
  explicit MpiTransport(MPI_Comm group) : group_(group) {
    check_mpi(MPI_Comm_rank(group_, &rank_), "MPI_Comm_rank");
    check_mpi(MPI_Comm_size(group_, &size_), "MPI_Comm_size");
  }

  void sum(const Tensor& values, std::optional<int> root) override {
    const std::int64_t element = bytes_of(values.dtype());
    each_slab(values, root ? 1 : size_, [&](std::byte* slab, std::int64_t count) {
      if (root)
        sum_at(slab, count, values.dtype(), *root);
      else
        sum_everywhere(slab, count, values.dtype(), element);
    });
  }

  void reduce_scatter(const Tensor& all, const Tensor& mine) override {
    const std::int64_t element = bytes_of(all.dtype()), piece = mine.size();
    each_slab(mine, 1, [&](std::byte* slab, std::int64_t count) {
      const std::int64_t first = (slab - mine.raw()) / element;
      outgoing_.resize(static_cast<std::size_t>(size_ * count * element));
      for (int p = 0; p < size_; ++p)
        std::copy_n(all.raw() + (p * piece + first) * element, count * element,
                    outgoing_.data() + p * count * element);
      incoming_.resize(outgoing_.size());
      const int bytes = static_cast<int>(count * element);
      check_mpi(MPI_Alltoall(outgoing_.data(), bytes, MPI_BYTE, incoming_.data(), bytes, MPI_BYTE,
                             group_),
                "MPI_Alltoall");
      sum_bytes(all.dtype(), incoming_.data(), size_, count, slab);
    });
  }

  void all_gather(const Tensor& mine, const Tensor& all) override {
    const std::int64_t element = bytes_of(all.dtype());
    each_slab(mine, 1, [&](std::byte* slab, std::int64_t count) {
      const std::int64_t first = slab - mine.raw(), bytes = count * element;
      incoming_.resize(static_cast<std::size_t>(size_ * bytes));
      check_mpi(MPI_Allgather(slab, static_cast<int>(bytes), MPI_BYTE, incoming_.data(),
                              static_cast<int>(bytes), MPI_BYTE, group_),
                "MPI_Allgather");
      for (int p = 0; p < size_; ++p)
        std::copy_n(incoming_.data() + p * bytes, bytes, all.raw() + p * mine.bytes() + first);
    });
  }

  void broadcast(const Tensor& values, int root) override {
    each_slab(values, 1, [&](std::byte* slab, std::int64_t count) {
      const auto bytes = static_cast<int>(count * bytes_of(values.dtype()));
      check_mpi(MPI_Bcast(slab, bytes, MPI_BYTE, root, group_), "MPI_Bcast");
    });
  }

  void send(const Tensor& values, int to) override {
    each_slab(values, 1, [&](std::byte* slab, std::int64_t count) {
      const auto bytes = static_cast<int>(count * bytes_of(values.dtype()));
      check_mpi(MPI_Send(slab, bytes, MPI_BYTE, to, 0, group_), "MPI_Send");
    });
  }

  void receive(const Tensor& values, int from) override {
    each_slab(values, 1, [&](std::byte* slab, std::int64_t count) {
      const auto bytes = static_cast<int>(count * bytes_of(values.dtype()));
      check_mpi(MPI_Recv(slab, bytes, MPI_BYTE, from, 0, group_, MPI_STATUS_IGNORE), "MPI_Recv");
    });
  }

  void wait() override {}

 private:
  // visit(first byte, elements) for consecutive pieces of at most `slabs` slabs.
  template <class Visit>
  static void each_slab(const Tensor& values, int slabs, Visit&& visit) {
    const std::int64_t element = bytes_of(values.dtype()), most = slabs * (kSlabBytes / element);
    for (std::int64_t begin = 0; begin < values.size(); begin += most)
      visit(values.raw() + begin * element, std::min(most, values.size() - begin));
  }

  void sum_at(std::byte* slab, std::int64_t count, DType dtype, int root) {
    const std::int64_t bytes = count * bytes_of(dtype);
    incoming_.resize(static_cast<std::size_t>(rank_ == root ? size_ * bytes : 0));
    check_mpi(MPI_Gather(slab, static_cast<int>(bytes), MPI_BYTE, incoming_.data(),
                         static_cast<int>(bytes), MPI_BYTE, root, group_),
              "MPI_Gather");
    if (rank_ == root) sum_bytes(dtype, incoming_.data(), size_, count, slab);
  }

  // Rank p sums piece p of the slab, [count p / P, count (p + 1) / P); then all get all pieces.
  void sum_everywhere(std::byte* slab, std::int64_t count, DType dtype, std::int64_t element) {
    std::vector<int> bytes(size_), begins(size_), mine(size_), mine_begins(size_);
    const auto begin_of = [&](int p) { return count * p / size_; };
    const std::int64_t piece = begin_of(rank_ + 1) - begin_of(rank_);
    for (int p = 0; p < size_; ++p) {
      begins[p] = static_cast<int>(begin_of(p) * element);
      bytes[p] = static_cast<int>((begin_of(p + 1) - begin_of(p)) * element);
      mine[p] = static_cast<int>(piece * element);
      mine_begins[p] = p * mine[p];
    }
    incoming_.resize(static_cast<std::size_t>(size_ * piece * element));
    check_mpi(MPI_Alltoallv(slab, bytes.data(), begins.data(), MPI_BYTE, incoming_.data(),
                            mine.data(), mine_begins.data(), MPI_BYTE, group_),
              "MPI_Alltoallv");
    sum_bytes(dtype, incoming_.data(), size_, piece, slab + begins[rank_]);
    check_mpi(MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, slab, bytes.data(), begins.data(),
                             MPI_BYTE, group_),
              "MPI_Allgatherv");
  }

  MPI_Comm group_;
  int rank_ = 0, size_ = 1;
  std::vector<std::byte> outgoing_, incoming_;
};

}  // namespace

std::unique_ptr<Transport> mpi_transport(MPI_Comm group) {
  return std::make_unique<MpiTransport>(group);
}

}  // namespace infini
