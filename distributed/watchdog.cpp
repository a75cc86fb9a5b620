#include "distributed/watchdog.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <sstream>

namespace infini {
namespace {

using Clock = std::chrono::steady_clock;

// kOtherFailed: the first rank knows of a rank that has failed, which ends all by itself.
enum Kind : int { kAlive, kLeaves, kFailed, kOtherFailed, kEnd };

// What goes over a connection, in the order of bytes of the machines, which are alike.
struct Beat {
  std::uint64_t token = 0;
  std::int32_t rank = 0, kind = kAlive;
  std::int64_t pid = 0, exchanges = 0;
  char host[64] = "";
};

constexpr int kExitDevice = 4;  // the device or the network failed
constexpr double kConnectSeconds = 60;
constexpr int kPollMilliseconds = 100;

double seconds_since(Clock::time_point then) {
  return std::chrono::duration<double>(Clock::now() - then).count();
}

std::string host_name() {
  char name[64] = "";
  gethostname(name, sizeof name - 1);
  return name;
}

void check_socket(bool succeeded, const char* what) {
  check<DeviceError>(succeeded, "the ranks cannot watch each other: ", what, ": ",
                     std::strerror(errno));
}

class Listener {
 public:
  Listener() : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    check_socket(socket_ >= 0, "socket");
    sockaddr_in any{};
    any.sin_family = AF_INET;
    any.sin_addr.s_addr = htonl(INADDR_ANY);
    check_socket(bind(socket_, reinterpret_cast<const sockaddr*>(&any), sizeof any) == 0, "bind");
    check_socket(listen(socket_, SOMAXCONN) == 0, "listen");
  }
  ~Listener() { close(socket_); }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  int port() const {
    sockaddr_in bound{};
    socklen_t length = sizeof bound;
    check_socket(getsockname(socket_, reinterpret_cast<sockaddr*>(&bound), &length) == 0,
                 "getsockname");
    return ntohs(bound.sin_port);
  }
  int accept_one(double timeout_seconds) const {
    pollfd waiting{.fd = socket_, .events = POLLIN, .revents = 0};
    check<DeviceError>(poll(&waiting, 1, static_cast<int>(timeout_seconds * 1000)) > 0,
                       "the ranks cannot watch each other: not all reached the first within ",
                       kConnectSeconds, " s");
    const int accepted = accept4(socket_, nullptr, nullptr, SOCK_CLOEXEC);
    check_socket(accepted >= 0, "accept");
    return accepted;
  }

 private:
  int socket_;
};

int connect_to(const std::string& host, const std::string& port) {
  addrinfo hints{};
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const std::string address = host == host_name() ? "127.0.0.1" : host;
  const int status = getaddrinfo(address.c_str(), port.c_str(), &hints, &found);
  check<DeviceError>(status == 0, "the ranks cannot watch each other: ", host, ": ",
                     gai_strerror(status));
  int connected = -1;
  for (const addrinfo* each = found; each && connected < 0; each = each->ai_next) {
    connected = ::socket(each->ai_family, each->ai_socktype | SOCK_CLOEXEC, each->ai_protocol);
    if (connected >= 0 && connect(connected, each->ai_addr, each->ai_addrlen) != 0) {
      close(connected);
      connected = -1;
    }
  }
  freeaddrinfo(found);
  check_socket(connected >= 0, host.c_str());
  return connected;
}

bool receive_whole(int socket, Beat& beat) {
  return recv(socket, &beat, sizeof beat, MSG_WAITALL) == static_cast<ssize_t>(sizeof beat);
}

}  // namespace

// The other end of a connection.
struct Watchdog::Peer {
  explicit Peer(int connected) : socket(connected) {
    const int now = 1;
    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &now, sizeof now);
  }
  ~Peer() { close(socket); }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  std::string name() const {
    return text("rank ", last.rank, " (process ", last.pid, " on ", last.host, ")");
  }

  int socket;
  Beat last;
  std::size_t received = 0;  // bytes of `incoming`
  Beat incoming;
  Clock::time_point heard = Clock::now();
  bool gone = false;                    // the connection broke, or the rank left
  bool broken = false, failed = false;  // failed: it or, as it says, another one
};

Watchdog::Watchdog(const World& world, const Communicator& all, const ParallelConfig& parallel)
    : world_(world),
      silence_seconds_(parallel.silence_seconds),
      progress_seconds_(parallel.progress_seconds) {
  if (all.size() == 1) return;
  if (all.is_first()) {
    check_socket(getrandom(&token_, sizeof token_, 0) == sizeof token_, "getrandom");
    const Listener listener;
    all.from_first(text(host_name(), ' ', listener.port(), ' ', token_));
    const Clock::time_point begin = Clock::now();
    while (static_cast<int>(peers_.size()) + 1 < all.size()) {
      auto peer = std::make_unique<Peer>(
          listener.accept_one(std::max(0.0, kConnectSeconds - seconds_since(begin))));
      if (receive_whole(peer->socket, peer->last) && peer->last.token == token_)
        peers_.push_back(std::move(peer));
    }
    for (const auto& peer : peers_) send(*peer, kAlive);
  } else {
    std::istringstream address(all.from_first(""));
    std::string host, port;
    address >> host >> port >> token_;
    peers_.push_back(std::make_unique<Peer>(connect_to(host, port)));
    send(*peers_[0], kAlive);
    check_socket(receive_whole(peers_[0]->socket, peers_[0]->last), "no answer of the first rank");
  }
  for (const auto& peer : peers_) peer->heard = Clock::now();
  thread_ = std::thread([this] { work(); });
}

Watchdog::~Watchdog() {
  if (!thread_.joinable()) return;
  leaving_ = true;
  thread_.join();
  for (const auto& peer : peers_)
    if (!peer->gone) send(*peer, std::uncaught_exceptions() > 0 ? kFailed : kLeaves);
}

void Watchdog::send(Peer& peer, int kind) const {
  Beat beat{.token = token_,
            .rank = world_.rank(),
            .kind = kind,
            .pid = getpid(),
            .exchanges = exchanges_entered()};
  std::snprintf(beat.host, sizeof beat.host, "%s", host_name().c_str());
  // A full buffer means that the other end has not read for long: silence will tell.
  if (::send(peer.socket, &beat, sizeof beat, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN &&
      errno != EWOULDBLOCK)
    peer.gone = peer.broken = true;
}

void Watchdog::read(Peer& peer) {
  while (!peer.gone) {
    auto* const bytes = reinterpret_cast<char*>(&peer.incoming);
    const ssize_t got =
        recv(peer.socket, bytes + peer.received, sizeof(Beat) - peer.received, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return;
    if (got <= 0) {
      peer.gone = peer.broken = true;
      return;
    }
    peer.received += static_cast<std::size_t>(got);
    if (peer.received < sizeof(Beat)) continue;
    peer.received = 0;
    peer.last = peer.incoming;
    peer.heard = Clock::now();
    peer.gone = peer.last.kind == kLeaves || peer.last.kind == kFailed;
    peer.failed |= peer.last.kind == kFailed || peer.last.kind == kOtherFailed;
    if (peer.last.kind == kEnd) std::_Exit(kExitDevice);  // the first rank has said why
  }
}

void Watchdog::work() {
  const double beat_seconds = std::min(1.0, silence_seconds_ / 5);
  Clock::time_point sent = Clock::now() - std::chrono::hours(1), looked = Clock::now();
  std::int64_t entered = -1;
  Clock::time_point moved = Clock::now();
  std::vector<pollfd> waiting(peers_.size());
  while (!leaving_) {
    for (std::size_t i = 0; i < peers_.size(); ++i)
      waiting[i] = {.fd = peers_[i]->gone ? -1 : peers_[i]->socket, .events = POLLIN, .revents = 0};
    poll(waiting.data(), waiting.size(), kPollMilliseconds);
    for (const auto& peer : peers_) read(*peer);
    // A machine that stood still has heard nobody: that is not the others' silence.
    if (seconds_since(looked) > silence_seconds_ / 2)
      for (const auto& peer : peers_) peer->heard = Clock::now();
    looked = Clock::now();
    if (seconds_since(sent) >= beat_seconds) {
      for (const auto& peer : peers_)
        if (!peer->gone) send(*peer, kAlive);
      sent = Clock::now();
    }
    std::int64_t sum = exchanges_entered();
    for (const auto& peer : peers_) sum += peer->last.exchanges;
    if (sum != entered) moved = Clock::now();
    entered = sum;
    look(seconds_since(moved));
  }
}

// Ends the run where that is due. idle_seconds: since any rank that this one hears has entered an
// exchange.
void Watchdog::look(double idle_seconds) {
  const bool one_failed =
      std::ranges::any_of(peers_, [](const auto& peer) { return peer->failed; });
  if (one_failed && !others_told_ && world_.is_first()) {
    for (const auto& peer : peers_)
      if (!peer->gone) send(*peer, kOtherFailed);
    others_told_ = true;
  }
  for (const auto& peer : peers_) {
    const bool silent = seconds_since(peer->heard) > silence_seconds_;
    if (one_failed) {
      // It ends all ranks itself, and some go before others; this one goes where that does not
      // reach it.
      if (peer->failed && silent) std::_Exit(kExitDevice);
      continue;
    }
    if (peer->broken && !leaving_) {
      // Where the first rank fails or is told to go, its word or the end of this one is near.
      if (world_.rank() == 1) std::this_thread::sleep_for(std::chrono::seconds(2));
      end(text(peer->name(), " is gone"));
    }
    if (silent && !peer->gone)
      end(text(peer->name(), " has not been heard of for ", silence_seconds_,
               " s (parallel.silence_seconds)"));
  }
  if (!world_.is_first() || progress_seconds_ == 0 || idle_seconds < progress_seconds_) return;
  std::int64_t fewest = exchanges_entered();
  std::string name = text("rank 0 (process ", getpid(), " on ", host_name(), ")");
  for (const auto& peer : peers_)
    if (peer->last.exchanges < fewest) {
      fewest = peer->last.exchanges;
      name = peer->name();
    }
  end(text(name, " hangs: no rank has got further for ", progress_seconds_,
           " s (parallel.progress_seconds), and it is behind"));
}

void Watchdog::end(const std::string& message) {
  // Where the first rank is missed, all others notice: the second speaks and ends them, unless it
  // is missing too.
  if (world_.rank() > 1) std::this_thread::sleep_for(std::chrono::seconds(4));
  std::fprintf(stderr, "infini: error: %s; all ranks end\n", message.c_str());
  for (const auto& peer : peers_)
    if (!peer->gone) send(*peer, kEnd);
  std::thread([] {  // where MPI itself hangs
    std::this_thread::sleep_for(std::chrono::seconds(2));
    std::_Exit(kExitDevice);
  })
      .detach();
  world_.abort(kExitDevice);
}

}  // namespace infini
