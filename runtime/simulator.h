#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "slipstream/runtime/clock.h"
#include "slipstream/runtime/progress.h"
#include "slipstream/runtime/wait.h"
#include "slipstream/transport/sim/event_queue.h"
#include "slipstream/transport/sim/network.h"
#include "slipstream/transport/sim/sim_transport.h"

namespace slip::sim {

struct SimulatorOptions {
  NetworkOptions network;
  std::size_t stack_bytes = 256 * 1024;  // of each worker's fiber; only touched pages cost memory
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
  Fabric& fabric() { return *fabric_; }
  Waiter& waiter(int rank);
  AbortToken& abort_token(int rank);
  /// Serves upon delivery.
  std::shared_ptr<Progress> progress(int rank);

  /// Runs `body(rank)` as every worker until all have returned. A state in which every worker waits
  /// and nothing is under way is reported to all as an abort that names it.
  void run(const std::function<void(int)>& body);

 private:
  class Worker;
  class VirtualClock;

  void enqueue(Worker& worker);
  void delivered(int rank, Bell bell);
  void report_deadlock();

  EventQueue events_;
  std::unique_ptr<VirtualClock> clock_;
  std::unique_ptr<Fabric> fabric_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::deque<Worker*> ready_;
  SimulatorOptions options_;
};

}  // namespace slip::sim
