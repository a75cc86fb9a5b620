#include "distributed/mpi_call.h"
#include "distributed/transport.h"

#ifdef INFINI_NCCL
#include <nccl.h>

#include "tensor/cuda.h"
#endif

namespace infini {

#ifdef INFINI_NCCL

namespace {

void check_nccl(ncclResult_t status, const char* call) {
  check<DeviceError>(status == ncclSuccess, call, " failed: ", ncclGetErrorString(status));
}

ncclDataType_t nccl_type(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
      return ncclFloat64;
    case DType::kFloat32:
      return ncclFloat32;
    case DType::kBFloat16:
      return ncclBfloat16;
    case DType::kInt64:
      return ncclInt64;
    case DType::kInt32:
      return ncclInt32;
    case DType::kUInt8:
      return ncclUint8;
  }
  throw Error(text("NCCL moves no ", dtype));
}

class NcclTransport final : public Transport {
 public:
  explicit NcclTransport(MPI_Comm group) {
    int rank = 0, size = 1;
    check_mpi(MPI_Comm_rank(group, &rank), "MPI_Comm_rank");
    check_mpi(MPI_Comm_size(group, &size), "MPI_Comm_size");
    ncclUniqueId id{};
    if (rank == 0) check_nccl(ncclGetUniqueId(&id), "ncclGetUniqueId");
    check_mpi(MPI_Bcast(&id, sizeof id, MPI_BYTE, 0, group), "MPI_Bcast");
    check_nccl(ncclCommInitRank(&ranks_, size, id, rank), "ncclCommInitRank");
    cuda_check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
    cuda_check(cudaEventCreateWithFlags(&ready_, cudaEventDisableTiming), "cudaEventCreate");
    cuda_check(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming), "cudaEventCreate");
  }
  // Unchecked: at the end of the process the driver may be gone already.
  ~NcclTransport() override {
    cudaStreamSynchronize(stream_);
    ncclCommDestroy(ranks_);
    cudaEventDestroy(ready_);
    cudaEventDestroy(done_);
    cudaStreamDestroy(stream_);
  }

  void sum(const Tensor& values, std::optional<int> root) override {
    begin({values});
    const std::size_t count = values.size();
    const ncclDataType_t type = nccl_type(values.dtype());
    if (root)
      check_nccl(
          ncclReduce(values.raw(), values.raw(), count, type, ncclSum, *root, ranks_, stream_),
          "ncclReduce");
    else
      check_nccl(ncclAllReduce(values.raw(), values.raw(), count, type, ncclSum, ranks_, stream_),
                 "ncclAllReduce");
  }
  void reduce_scatter(const Tensor& all, const Tensor& mine) override {
    begin({all, mine});
    check_nccl(ncclReduceScatter(all.raw(), mine.raw(), mine.size(), nccl_type(mine.dtype()),
                                 ncclSum, ranks_, stream_),
               "ncclReduceScatter");
  }
  void all_gather(const Tensor& mine, const Tensor& all) override {
    begin({mine, all});
    check_nccl(
        ncclAllGather(mine.raw(), all.raw(), mine.size(), nccl_type(mine.dtype()), ranks_, stream_),
        "ncclAllGather");
  }
  void broadcast(const Tensor& values, int root) override {
    begin({values});
    check_nccl(ncclBroadcast(values.raw(), values.raw(), values.size(), nccl_type(values.dtype()),
                             root, ranks_, stream_),
               "ncclBroadcast");
  }
  void send(const Tensor& values, int to) override {
    begin({values});
    check_nccl(
        ncclSend(values.raw(), values.size(), nccl_type(values.dtype()), to, ranks_, stream_),
        "ncclSend");
  }
  void receive(const Tensor& values, int from) override {
    begin({values});
    check_nccl(
        ncclRecv(values.raw(), values.size(), nccl_type(values.dtype()), from, ranks_, stream_),
        "ncclRecv");
  }
  void wait() override {
    if (in_flight_.empty()) return;
    cuda_check(cudaEventRecord(done_, stream_), "cudaEventRecord");
    cuda_check(cudaStreamWaitEvent(cuda_stream(), done_, 0), "cudaStreamWaitEvent");
    in_flight_.clear();
  }

 private:
  // The next operation starts when what the device was asked for so far is done. Its tensors must
  // not go back to the allocator, which follows the order of the other stream, before wait().
  void begin(std::initializer_list<Tensor> tensors) {
    cuda_check(cudaEventRecord(ready_, cuda_stream()), "cudaEventRecord");
    cuda_check(cudaStreamWaitEvent(stream_, ready_, 0), "cudaStreamWaitEvent");
    in_flight_.insert(in_flight_.end(), tensors);
  }

  ncclComm_t ranks_ = nullptr;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t ready_ = nullptr, done_ = nullptr;
  std::vector<Tensor> in_flight_;
};

}  // namespace

std::unique_ptr<Transport> nccl_transport(MPI_Comm group) {
  return std::make_unique<NcclTransport>(group);
}

#else

std::unique_ptr<Transport> nccl_transport(MPI_Comm) {
  throw DeviceError(
      "several GPUs exchange tensors by NCCL, which this build was made without; install its "
      "headers and library and build again");
}

#endif  // INFINI_NCCL

}  // namespace infini
