#include "slipstream/runtime/launch.h"

#include <fmt/format.h>

#include <exception>
#include <future>
#include <iterator>
#include <list>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "slipstream/runtime/local_bootstrap.h"
#include "slipstream/runtime/simulator.h"
#include "slipstream/runtime/world_internal.h"
#include "slipstream/transport/cuda_ipc/cuda_ipc_transport.h"
#include "slipstream/transport/paced_transport.h"

namespace slip {
namespace {

/// What events will run, if they come to it.
class Actions {
 public:
  sim::Event event(std::function<void()> action) {
    actions_.push_back({std::move(action), this, {}});
    actions_.back().self = std::prev(actions_.end());
    return {[](void* action, std::uint64_t) { run(*static_cast<Action*>(action)); },
            &actions_.back(), 0};
  }

 private:
  struct Action {
    std::function<void()> function;
    Actions* all;
    std::list<Action>::iterator self;
  };
  static void run(Action& action) {
    const std::function<void()> function = std::move(action.function);
    action.all->actions_.erase(action.self);
    function();
  }

  std::list<Action> actions_;
};

/// What the fault proxy's delays are in virtual time. `actions` outlives the events.
class EventDelayer final : public Delayer {
 public:
  EventDelayer(sim::EventQueue& events, Actions& actions) : events_(events), actions_(actions) {}
  Time now() const override { return events_.now(); }
  void after(Duration delay, std::function<void()> action) override {
    events_.schedule(add(events_.now(), delay), actions_.event(std::move(action)));
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
    const Status reason = consequence(rank, failure);
    for (std::size_t i = 0; i < workers_.size(); ++i) {
      if (static_cast<int>(i) == rank) continue;
      workers_[i].first->abort(reason);
      workers_[i].second->wake();
    }
  }

  void rethrow() {
    if (first_) std::rethrow_exception(first_);
  }

 private:
  /// What the others are told: a peer that `rank` has lost is lost to them, too.
  static Status consequence(int rank, std::exception_ptr failure) {
    std::string what = fmt::format("rank {}: ", rank);
    try {
      std::rethrow_exception(failure);
    } catch (const Error& error) {
      what += error.what();
      if (error.code() == Code::peer_lost) return {Code::peer_lost, what, error.peer()};
    } catch (const std::exception& error) {
      what += error.what();
    } catch (...) {
      what += "an unknown exception";
    }
    return {Code::aborted, what, rank};
  }

  std::mutex mutex_;
  std::exception_ptr first_;
  std::vector<std::pair<std::shared_ptr<AbortToken>, Waiter*>> workers_;
};

/// What leaves `work`, if anything does.
std::exception_ptr run_worker(std::unique_ptr<World::Parts> parts,
                              const std::function<void(World&)>& work) {
  try {
    World world(std::move(parts));
    work(world);
    return nullptr;
  } catch (...) {
    return std::current_exception();
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
  if (!options.crashes.empty()) {
    throw Error(Code::not_supported, "only simulated workers can crash by plan");
  }
  const auto store = std::make_shared<LocalStore>(workers);
  const auto clock = std::make_shared<RealClock>();
  std::shared_ptr<PacedNetwork> network;
  if (!options.world.network.instant()) {
    network = std::make_shared<PacedNetwork>(workers, options.world.network);
  }
  const auto real_topology = local_topology(workers);
  const auto topology = modelled_or(real_topology, workers, options.world);
  std::vector<std::unique_ptr<World::Parts>> worlds;
  std::vector<std::pair<std::shared_ptr<AbortToken>, Waiter*>> waiters;
  std::vector<std::shared_ptr<Waiter>> keep;  // woken by failures after their worlds have gone
  for (int rank = 0; rank < workers; ++rank) {
    auto parts = std::make_unique<World::Parts>();
    parts->options = options.world;
    parts->clock = clock;
    parts->abort = std::make_shared<AbortToken>();
    auto transport = std::make_unique<CudaIpcTransport>(
        "threads", CudaIpcTransport::WithoutIpc::on_host, parts->stream_limits());
    parts->waiter = std::make_shared<RealWaiter>(transport->doorbell(), clock, parts->abort,
                                                 options.world.max_spin);
    parts->transport = std::move(transport);
    parts->observer = parts->transport.get();
    if (network) {
      parts->transport = std::make_unique<PacedTransport>(
          std::move(parts->transport), network, rank, [waiter = parts->waiter] { waiter->wake(); });
    }
    add_faults(*parts, options, rank, options.faults ? make_delay_thread() : nullptr);
    parts->bootstrap = std::make_unique<LocalBootstrap>(store, rank, *parts->waiter, *clock);
    parts->counters = make_counters(rank);
    parts->real_topology = real_topology;
    parts->topology = topology;
    waiters.emplace_back(parts->abort, parts->waiter.get());
    keep.push_back(parts->waiter);
    worlds.push_back(std::move(parts));
  }
  Failures failures(std::move(waiters));
  // They begin together, or none does: where one cannot be started, that is the failure, and not
  // what the same lack of memory does to the others.
  bool complete = false;
  std::vector<std::jthread> threads;
  std::promise<void> decided;
  const std::shared_future<void> start = decided.get_future().share();
  for (int rank = 0; rank < workers; ++rank) {
    try {
      threads.emplace_back([&, rank, start] {
        start.wait();
        if (!complete) return;
        const auto failure = run_worker(std::move(worlds[static_cast<std::size_t>(rank)]), work);
        if (failure) failures.report(rank, failure);
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
  complete = threads.size() == static_cast<std::size_t>(workers);
  decided.set_value();
  threads.clear();  // joins
  failures.rethrow();
}

void launch_simulated(int workers, const std::function<void(World&)>& work,
                      const LaunchOptions& options) {
  Actions actions;
  sim::Simulator simulator(workers,
                           {options.world.network, options.stack_bytes, options.compute_threads});
  for (const sim::Crash& crash : options.crashes) simulator.crash(crash);
  const auto store = std::make_shared<LocalStore>(workers);
  const auto topology = modelled_or(nullptr, workers, options.world);
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
    parts->own_observer =
        std::make_unique<sim::SimTransport>(simulator.fabric(), rank, sim::Delivery::instant);
    parts->observer = parts->own_observer.get();
    add_faults(*parts, options, rank, std::make_unique<EventDelayer>(simulator.events(), actions));
    parts->bootstrap = std::make_unique<LocalBootstrap>(store, rank, *parts->waiter, *parts->clock);
    parts->progress = simulator.progress(rank);
    parts->counters = std::make_shared<Counters>();
    parts->counters->rank = rank;
    parts->topology = topology;
    const auto failure = run_worker(std::move(parts), [&](World& world) {
      work(world);
      // Its end is no leaving, of which the others would hear at once.
      if (simulator.crashed(rank)) world.status().throw_if_failed();
    });
    // What a crashed worker throws is no cause of anything; the others tell of its loss.
    if (failure && !simulator.crashed(rank)) failures.report(rank, failure);
  });
  if (options.counts != nullptr) *options.counts = simulator.counts();
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
