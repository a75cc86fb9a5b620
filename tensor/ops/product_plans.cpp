#ifdef INFINI_CUDA

#include "tensor/ops/product_plans.h"

#include <cuda_runtime_api.h>

#include <cctype>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace infini {
namespace {

namespace fs = std::filesystem;

// $INFINI_CACHE_DIR, else $XDG_CACHE_HOME/infini, else ~/.cache/infini; empty when none is set.
fs::path cache_directory() {
  if (const char* given = std::getenv("INFINI_CACHE_DIR")) return given;
  if (const char* cache = std::getenv("XDG_CACHE_HOME")) return fs::path(cache) / "infini";
  if (const char* home = std::getenv("HOME")) return fs::path(home) / ".cache" / "infini";
  return {};
}

// Another card or library has other algorithms.
std::string file_name() {
  int device = 0;
  cudaDeviceProp properties{};
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaGetDeviceProperties(&properties, device) != cudaSuccess)
    return "unknown";
  std::string card = properties.name;
  for (char& c : card)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '-';
  return text("products-", card, "-cublaslt-", cublasLtGetVersion(), ".txt");
}

// One line of the file: the shape, then the algorithm as eight words.
std::string line_of(const ProductShape& shape, const cublasLtMatmulAlgo_t& algorithm) {
  std::ostringstream out;
  out << shape.m << ' ' << shape.n << ' ' << shape.k << ' ' << shape.batch << ' '
      << shape.transpose_a << ' ' << shape.transpose_b << ' ' << shape.accumulate << ' '
      << static_cast<int>(shape.in) << ' ' << static_cast<int>(shape.out) << ' ' << shape.tf32
      << ' ' << shape.epilogue << ' ' << shape.alignment << std::hex;
  for (const std::uint64_t word : algorithm.data) out << ' ' << word;
  out << '\n';
  return out.str();
}

std::optional<std::pair<ProductShape, cublasLtMatmulAlgo_t>> parsed(const std::string& line) {
  std::istringstream in(line);
  ProductShape shape{};
  cublasLtMatmulAlgo_t algorithm{};
  int from = 0, to = 0;
  in >> shape.m >> shape.n >> shape.k >> shape.batch >> shape.transpose_a >> shape.transpose_b >>
      shape.accumulate >> from >> to >> shape.tf32 >> shape.epilogue >> shape.alignment >> std::hex;
  for (std::uint64_t& word : algorithm.data) in >> word;
  std::string more;
  // A line cut short by a full disk, two in one, or one of a version that knew no batches.
  if (!in || in >> more) return std::nullopt;
  shape.in = static_cast<DType>(from);
  shape.out = static_cast<DType>(to);
  return std::pair{shape, algorithm};
}

}  // namespace

ProductPlans::ProductPlans() {
  const fs::path directory = cache_directory();
  if (directory.empty()) return;
  std::error_code ignored;
  fs::create_directories(directory, ignored);
  path_ = (directory / file_name()).string();
  std::ifstream file(path_);
  for (std::string line; std::getline(file, line) && !file.eof();)  // what has no end is not whole
    if (const auto entry = parsed(line)) known_.insert({entry->first, {entry->second, true}});
}

const cublasLtMatmulAlgo_t* ProductPlans::find(const ProductShape& shape, const Accepts& accepts) {
  const auto found = known_.find(shape);
  if (found == known_.end()) return nullptr;
  Plan& plan = found->second;
  if (plan.was_read && !accepts(plan.algorithm)) {
    known_.erase(found);
    return nullptr;
  }
  plan.was_read = false;
  return &plan.algorithm;
}

void ProductPlans::add(const ProductShape& shape, const cublasLtMatmulAlgo_t& algorithm) {
  known_.insert_or_assign(shape, Plan{algorithm, false});
  if (path_.empty()) return;
  std::ofstream file(path_, std::ios::app);
  file << line_of(shape, algorithm) << std::flush;  // one write: processes side by side may append
}

}  // namespace infini

#endif  // INFINI_CUDA
