#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "slipstream/base/time.h"
#include "slipstream/runtime/clock.h"
#include "slipstream/runtime/progress.h"
#include "slipstream/runtime/wait.h"
#include "slipstream/transport/sim/event_queue.h"
#include "slipstream/transport/sim/network.h"
#include "slipstream/transport/sim/sim_transport.h"

namespace boost::asio {
class thread_pool;
}

namespace slip::sim {

/// How simulated workers run.
struct SimulatorOptions {
  NetworkOptions network;
  std::size_t stack_bytes = 256 * 1024;  // of each worker's fiber; only touched pages cost memory
  int compute_threads = 0;               // that run what workers compute; 0: the simulator's own
};

/// A worker that dies at a virtual time, as if killed: what it has put before arrives, and the
/// others lose it a while later.
struct Crash {
  int rank = 0;
  Time at{0};
  Duration noticed_after = std::chrono::milliseconds(1);
};

/// What a run came to.
struct Counts {
  std::uint64_t events = 0;    // messages that arrived, and timers
  std::uint64_t messages = 0;  // handed over to the network
};

/// Workers in virtual time: each is a fiber that gives way only where it waits, so a run is one
/// history. A waiting worker's condition is looked at again when something was delivered to it,
/// when its deadline comes, or when it is woken. Used through slip::launch; one thread.
class Simulator {
 public:
  Simulator(int workers, const SimulatorOptions& options);
  ~Simulator();

  int size() const;
  const Clock& clock() const;
  EventQueue& events() { return events_; }
  Counts counts() const { return {events_.executed(), fabric_->messages()}; }
  Fabric& fabric() { return *fabric_; }
  Waiter& waiter(int rank);
  AbortToken& abort_token(int rank);
  /// Serves upon delivery.
  std::shared_ptr<Progress> progress(int rank);

  /// Before `run`: what shall happen. Throws Error(invalid_argument) for a rank that is not there.
  void crash(const Crash& crash);
  bool crashed(int rank) const;

  /// Runs `body(rank)` as every worker until all have returned. A state in which every worker waits
  /// and nothing is under way is reported to all as an abort that names it.
  void run(const std::function<void(int)>& body);

 private:
  class Worker;
  class VirtualClock;

  void enqueue(Worker& worker);
  void delivered(int rank, Bell bell);
  void report_deadlock();
  void kill(int rank);
  void report_loss(int rank);

  EventQueue events_;
  std::unique_ptr<VirtualClock> clock_;
  std::unique_ptr<Fabric> fabric_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::deque<Worker*> ready_;
  SimulatorOptions options_;
  std::unique_ptr<boost::asio::thread_pool> compute_threads_;
};

}  // namespace slip::sim
