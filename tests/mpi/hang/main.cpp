// A program one of whose ranks never comes to an exchange that the others wait in.
#include <chrono>
#include <thread>

#include "distributed/watchdog.h"

int main() {
  using namespace infini;
  const World world;
  const Communicator all(world);
  const Watchdog watchdog(world, all, {.silence_seconds = 60, .progress_seconds = 2});
  all.all_agree(true);
  if (world.rank() == 1) std::this_thread::sleep_for(std::chrono::hours(1));
  all.all_agree(true);
  return 0;
}
