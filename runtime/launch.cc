#include "slipstream/runtime/launch.h"

#include <fmt/format.h>

#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "slipstream/runtime/local_bootstrap.h"
#include "slipstream/runtime/simulator.h"
#include "slipstream/runtime/world_internal.h"
#include "slipstream/transport/paced_transport.h"
#include "slipstream/transport/shm/shm_transport.h"

namespace slip {
namespace {

using Actions = std::vector<std::unique_ptr<std::function<void()>>>;

/// An event that runs a function: what the fault proxy's delays are in virtual time. `actions`
/// outlives the events.
class EventDelayer final : public Delayer {
 public:
  EventDelayer(sim::EventQueue& events, Actions& actions) : events_(events), actions_(actions) {}
  void after(Duration delay, std::function<void()> action) override {
    actions_.push_back(std::make_unique<std::function<void()>>(std::move(action)));
    events_.schedule(events_.now() + delay, {[](void* function, std::uint64_t) {
                                               (*static_cast<std::function<void()>*>(function))();
                                             },
                                             actions_.back().get(), 0});
  }

 private:
  sim::EventQueue& events_;
  Actions& actions_;
};

/// The first failure is the cause; it ends the others' waits.
class Failures {
 public:
  explicit Failures(std::vector<std::pair<std::shared_ptr<AbortToken>, Waiter*>> workers)
      : workers_(std::move(workers)) {}

  void report(int rank, std::exception_ptr failure) {
    const std::lock_guard lock(mutex_);
    if (first_) return;
    first_ = failure;
    std::string what = "an unknown exception";
    try {
      std::rethrow_exception(failure);
    } catch (const std::exception& error) {
      what = error.what();
    } catch (...) {
    }
    for (std::size_t i = 0; i < workers_.size(); ++i) {
      if (static_cast<int>(i) == rank) continue;
      workers_[i].first->abort({Code::aborted, "rank " + std::to_string(rank) + ": " + what, rank});
      workers_[i].second->wake();
    }
  }

  void rethrow() {
    if (first_) std::rethrow_exception(first_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr first_;
  std::vector<std::pair<std::shared_ptr<AbortToken>, Waiter*>> workers_;
};

void run_worker(int rank, std::unique_ptr<World::Parts> parts, Failures& failures,
                const std::function<void(World&)>& work) {
  try {
    World world(std::move(parts));
    work(world);
  } catch (...) {
    failures.report(rank, std::current_exception());
  }
}

void add_faults(World::Parts& parts, const LaunchOptions& options, int rank,
                std::unique_ptr<Delayer> delayer) {
  if (!options.faults) return;
  parts.transport =
      std::make_unique<FaultProxy>(std::move(parts.transport), *options.faults, rank,
                                   std::move(delayer), [waiter = parts.waiter] { waiter->wake(); });
}

void launch_threads(int workers, const std::function<void(World&)>& work,
                    const LaunchOptions& options) {
  const auto store = std::make_shared<LocalStore>(workers);
  const auto clock = std::make_shared<RealClock>();
  std::shared_ptr<PacedNetwork> network;
  if (!options.world.network.instant()) {
    network = std::make_shared<PacedNetwork>(workers, options.world.network);
  }
  std::vector<std::unique_ptr<World::Parts>> worlds;
  std::vector<std::pair<std::shared_ptr<AbortToken>, Waiter*>> waiters;
  std::vector<std::shared_ptr<Waiter>> keep;  // woken by failures after their worlds have gone
  for (int rank = 0; rank < workers; ++rank) {
    auto parts = std::make_unique<World::Parts>();
    parts->options = options.world;
    parts->clock = clock;
    parts->abort = std::make_shared<AbortToken>();
    auto transport = std::make_unique<ShmTransport>("threads");
    parts->waiter = std::make_shared<RealWaiter>(transport->doorbell(), clock, parts->abort,
                                                 options.world.max_spin);
    parts->transport = std::move(transport);
    if (network) {
      parts->transport = std::make_unique<PacedTransport>(
          std::move(parts->transport), network, rank, [waiter = parts->waiter] { waiter->wake(); });
    }
    add_faults(*parts, options, rank, options.faults ? make_delay_thread() : nullptr);
    parts->bootstrap = std::make_unique<LocalBootstrap>(store, rank, *parts->waiter, *clock);
    parts->counters = make_counters(rank);
    waiters.emplace_back(parts->abort, parts->waiter.get());
    keep.push_back(parts->waiter);
    worlds.push_back(std::move(parts));
  }
  Failures failures(std::move(waiters));
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < workers; ++rank) {
    try {
      threads.emplace_back([&, rank] {
        run_worker(rank, std::move(worlds[static_cast<std::size_t>(rank)]), failures, work);
      });
    } catch (const std::exception& error) {
      const Error failure(Code::out_of_memory,
                          fmt::format("cannot start worker {} of {} threads ({}); use fewer "
                                      "workers or raise the limits (ulimit -u, -v)",
                                      rank, workers, error.what()));
      failures.report(rank, std::make_exception_ptr(failure));
      break;
    }
  }
  threads.clear();  // joins
  failures.rethrow();
}

void launch_simulated(int workers, const std::function<void(World&)>& work,
                      const LaunchOptions& options) {
  Actions actions;
  sim::Simulator simulator(workers, {options.world.network, options.stack_bytes});
  const auto store = std::make_shared<LocalStore>(workers);
  // The simulator outlives every world; these handles own nothing.
  const auto borrow = [](auto& object) {
    return std::shared_ptr<std::remove_reference_t<decltype(object)>>(std::shared_ptr<void>(),
                                                                      &object);
  };
  std::vector<std::pair<std::shared_ptr<AbortToken>, Waiter*>> waiters;
  for (int rank = 0; rank < workers; ++rank) {
    waiters.emplace_back(borrow(simulator.abort_token(rank)), &simulator.waiter(rank));
  }
  Failures failures(std::move(waiters));
  simulator.run([&](int rank) {
    auto parts = std::make_unique<World::Parts>();
    parts->options = options.world;
    parts->options.wait_timeout = never;  // virtual time is free; a deadlock is found at once
    parts->options.join_timeout = never;
    parts->clock = borrow(simulator.clock());
    parts->abort = borrow(simulator.abort_token(rank));
    parts->waiter = borrow(simulator.waiter(rank));
    parts->transport = std::make_unique<sim::SimTransport>(simulator.fabric(), rank);
    add_faults(*parts, options, rank, std::make_unique<EventDelayer>(simulator.events(), actions));
    parts->bootstrap = std::make_unique<LocalBootstrap>(store, rank, *parts->waiter, *parts->clock);
    parts->progress = simulator.progress(rank);
    parts->counters = std::make_shared<Counters>();
    parts->counters->rank = rank;
    run_worker(rank, std::move(parts), failures, work);
  });
  failures.rethrow();
}

}  // namespace

void launch(int workers, const std::function<void(World&)>& work, const LaunchOptions& options) {
  if (workers < 1) {
    throw Error(Code::invalid_argument,
                "a world has at least one worker, not " + std::to_string(workers));
  }
  if (options.kind == LaunchKind::threads) {
    launch_threads(workers, work, options);
  } else {
    launch_simulated(workers, work, options);
  }
}

}  // namespace slip
