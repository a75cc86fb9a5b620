#include "trainer/on_ranks.h"

#include <spdlog/spdlog.h>

#include <chrono>
#include <cstdio>
#include <thread>

#include "tensor/system_memory.h"
#include "trainer/exit_codes.h"

namespace infini {

// Ranks that meet the same error as the first leave the word to it.
int on_ranks(const std::function<int(const World&)>& work) {
  const World world;
  if (world.size() == 1) return work(world);
  if (!world.is_first()) spdlog::set_level(spdlog::level::err);
  try {
    return work(world);
  } catch (const std::exception& error) {
    if (!world.is_first()) std::this_thread::sleep_for(std::chrono::seconds(1));
    std::fprintf(stderr, "infini: error: rank %d of %d: %s\n", world.rank(), world.size(),
                 message_of(error).c_str());
    world.abort(exit_code_of(error));
  }
}

// A launcher that shows each rank one GPU has chosen already.
void choose_gpu(const World& world) {
  const int count = device_count(Device::kCuda);
  if (count == 1) return;
  check<ConfigError>(world.local_size() <= count, "this machine runs ", world.local_size(),
                     " ranks but has ", count,
                     " GPUs; start one rank for each of them, or give device=cpu");
  choose_device(Device::kCuda, world.local_rank());
}

}  // namespace infini
