// Ends a run on all ranks when one of them dies, is stopped or hangs, whatever the others wait for.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "distributed/communicator.h"
#include "distributed/config.h"
#include "distributed/world.h"

namespace infini {

// A thread of every rank tells the first rank over TCP that the process lives and how many
// exchanges it has entered, and the first rank answers. On one rank there is no thread.
//
//   - A rank whose connection breaks is gone; one that is silent for silence_seconds is stopped.
//   - Where no rank has entered an exchange for progress_seconds, the one that entered fewest
//     hangs: the others wait for it. 0: never.
//
// The first rank, or the second where the first is missed, then says so in one line, and all end
// with exit code 4.
class Watchdog {
 public:
  // Collective. Throws DeviceError when the ranks cannot reach each other.
  Watchdog(const World& world, const Communicator& all, const ParallelConfig& parallel);
  // Tells the others that this rank leaves: in order, or by an exception that they will hear of.
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  struct Peer;
  void work();
  void read(Peer& peer);
  void send(Peer& peer, int kind) const;
  void look(double idle_seconds);
  void end(const std::string& message);

  const World& world_;
  double silence_seconds_, progress_seconds_;
  std::uint64_t token_ = 0;                   // strangers do not know it
  std::vector<std::unique_ptr<Peer>> peers_;  // on the first rank all others; elsewhere the first
  bool others_told_ = false;                  // by the first rank, that one has failed
  std::atomic<bool> leaving_ = false;
  std::thread thread_;
};

}  // namespace infini
