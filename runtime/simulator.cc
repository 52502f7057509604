#include "slipstream/runtime/simulator.h"

#include <fmt/format.h>

#include <algorithm>
// Its fences add nothing to the locks that hand over work, and ThreadSanitizer does not model them.
#define BOOST_ASIO_DISABLE_FENCED_BLOCK
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <future>
#include <list>
#include <string>
#include <utility>

#include "slipstream/runtime/fiber_internal.h"

namespace slip::sim {

class __attribute__((visibility("hidden"))) Simulator::VirtualClock final : public Clock {
 public:
  explicit VirtualClock(const EventQueue& events) : events_(events) {}
  Time now() const override { return events_.now(); }
  bool is_virtual() const override { return true; }

 private:
  const EventQueue& events_;
};

class __attribute__((visibility("hidden"))) Simulator::Worker final : public Waiter,
                                                                      public Progress {
 public:
  Worker(Simulator& simulator, int rank) : simulator_(simulator), rank_(rank) {}

  // ---- As the worker.

  Status wait(FunctionRef<bool()> condition, Time deadline) override {
    if (condition()) return {};
    if (abort.aborted()) return abort.reason();
    return pause(&condition, deadline) ? Status()
           : abort.aborted()           ? abort.reason()
                                       : Status(Code::timeout, "the deadline has passed");
  }

  Status sleep_until(Time time) override {
    while (!abort.aborted()) {
      if (simulator_.events_.now() >= time) return {};
      pause(nullptr, time);
    }
    return abort.reason();
  }

  /// Other workers go on meanwhile, and so may their work, on other threads.
  void compute(FunctionRef<void()> work, Duration duration, FunctionRef<bool()>* until) override {
    const Time end = simulator_.events_.now() + duration;
    const auto pass_time = [&] {
      while (!abort.aborted() && (until == nullptr || !(*until)())) {
        if (pause(until, end) || simulator_.events_.now() >= end) break;
      }
    };
    if (!simulator_.compute_threads_) {
      work();
      if (duration > Duration::zero()) pass_time();
      return;
    }
    std::packaged_task<void()> task(work);
    std::future<void> done = task.get_future();
    boost::asio::post(*simulator_.compute_threads_, std::move(task));
    pass_time();
    done.get();
  }

  void wake() override { simulator_.enqueue(*this); }

  // ---- As the scheduler.

  void start(const SimulatorOptions& options, const std::function<void(int)>& body) {
    fiber_ = std::make_unique<Fiber>(options.stack_bytes, [this, &body] { body(rank_); });
  }

  bool done() const { return fiber_ == nullptr; }
  int rank() const { return rank_; }
  bool sleeping() const { return waiting_ && condition_ == nullptr; }

  /// Looks at what it waits for, and runs it if that holds.
  void advance() {
    if (done()) return;
    if (waiting_) {
      held_ = condition_ != nullptr && (*condition_)();
      if (!held_ && !abort.aborted() && simulator_.events_.now() < deadline_) return;
      waiting_ = false;
    }
    fiber_->resume();
    if (fiber_->done()) fiber_.reset();
  }

  // ---- As its progress thread: served upon delivery.

  std::unique_ptr<Handle> serve(Transport&, std::function<bool()> poll) override {
    services_.push_back(std::move(poll));
    serve_soon();  // something may have arrived before
    return std::make_unique<Registration>(services_, std::prev(services_.end()));
  }
  std::unique_ptr<Handle> watch(int, std::function<void()>) override {
    throw Error(Code::not_supported, "the simulator has no descriptors to watch");
  }
  /// Not at once: services that answer each other would nest, on whosever stack it is.
  void serve_soon() override {
    if (std::exchange(serving_, true)) return;
    simulator_.events_.schedule(
        simulator_.events_.now(),
        {[](void* worker, std::uint64_t) { static_cast<Worker*>(worker)->poll_services(); }, this,
         0});
  }

  AbortToken abort;
  bool queued = false;
  bool crashed = false;

 private:
  struct Registration final : Handle {
    Registration(std::list<std::function<bool()>>& services,
                 std::list<std::function<bool()>>::iterator at)
        : services(services), at(at) {}
    ~Registration() override { services.erase(at); }
    std::list<std::function<bool()>>& services;
    std::list<std::function<bool()>>::iterator at;
  };

  void poll_services() {
    serving_ = false;
    for (auto& service : services_) {
      while (service()) {
      }
    }
    if (!sleeping()) simulator_.enqueue(*this);
  }

  /// Gives way until the condition holds (true), or the deadline or an abort has come.
  bool pause(FunctionRef<bool()>* condition, Time deadline) {
    condition_ = condition;
    deadline_ = deadline;
    waiting_ = true;
    held_ = false;
    set_timer();
    fiber_->yield();
    return held_;
  }

  /// At most one timer is of use: an earlier one that is outstanding sets the next when it fires.
  void set_timer() {
    if (deadline_ == never || timer_ <= deadline_) return;
    timer_ = deadline_;
    simulator_.events_.schedule(
        timer_, {[](void* worker, std::uint64_t at) {
                   static_cast<Worker*>(worker)->timer_fired(Time(static_cast<Time::rep>(at)));
                 },
                 this, static_cast<std::uint64_t>(timer_.count())});
  }

  void timer_fired(Time at) {
    if (at != timer_) return;  // an earlier one was set after it
    timer_ = never;
    if (!waiting_) return;
    if (simulator_.events_.now() >= deadline_) {
      simulator_.enqueue(*this);
    } else {
      set_timer();
    }
  }

  Simulator& simulator_;
  const int rank_;
  std::unique_ptr<Fiber> fiber_;
  std::list<std::function<bool()>> services_;
  bool serving_ = false;  // poll_services is scheduled
  bool waiting_ = false;
  bool held_ = false;
  FunctionRef<bool()>* condition_ = nullptr;  // null: it sleeps through writes
  Time deadline_ = never;
  Time timer_ = never;  // the outstanding timer that counts
};

Simulator::Simulator(int workers, const SimulatorOptions& options)
    : clock_(std::make_unique<VirtualClock>(events_)), options_(options) {
  if (options.compute_threads > 0) {
    compute_threads_ = std::make_unique<boost::asio::thread_pool>(options.compute_threads);
  }
  fabric_ = std::make_unique<Fabric>(events_, workers, Network(workers, options.network),
                                     [this](int rank, Bell bell) { delivered(rank, bell); });
  workers_.reserve(static_cast<std::size_t>(workers));
  for (int rank = 0; rank < workers; ++rank) {
    workers_.push_back(std::make_unique<Worker>(*this, rank));
  }
}

Simulator::~Simulator() = default;

int Simulator::size() const { return static_cast<int>(workers_.size()); }
const Clock& Simulator::clock() const { return *clock_; }
Waiter& Simulator::waiter(int rank) { return *workers_.at(static_cast<std::size_t>(rank)); }
AbortToken& Simulator::abort_token(int rank) {
  return workers_.at(static_cast<std::size_t>(rank))->abort;
}
std::shared_ptr<Progress> Simulator::progress(int rank) {
  return {std::shared_ptr<void>(), workers_.at(static_cast<std::size_t>(rank)).get()};
}

void Simulator::enqueue(Worker& worker) {
  if (std::exchange(worker.queued, true)) return;
  ready_.push_back(&worker);
}

void Simulator::delivered(int rank, Bell bell) {
  Worker& worker = *workers_[static_cast<std::size_t>(rank)];
  if (bell == Bell::progress) worker.serve_soon();
  if (!worker.sleeping()) enqueue(worker);
}

void Simulator::run(const std::function<void(int)>& body) {
  for (auto& worker : workers_) {
    worker->start(options_, body);
    enqueue(*worker);
  }
  std::size_t remaining = workers_.size();
  while (remaining > 0) {
    if (!ready_.empty()) {
      Worker& worker = *ready_.front();
      ready_.pop_front();
      worker.queued = false;
      if (worker.done()) continue;
      worker.advance();
      remaining -= worker.done();
    } else if (!events_.empty()) {
      events_.run_one();
    } else {
      report_deadlock();
    }
  }
}

void Simulator::crash(const Crash& crash) {
  if (crash.rank < 0 || crash.rank >= size()) {
    throw Error(Code::invalid_argument,
                fmt::format("rank {} cannot crash: the ranks are 0 to {}", crash.rank, size() - 1));
  }
  const auto rank = static_cast<std::uint64_t>(crash.rank);
  events_.schedule(crash.at, {[](void* simulator, std::uint64_t rank) {
                                static_cast<Simulator*>(simulator)->kill(static_cast<int>(rank));
                              },
                              this, rank});
  events_.schedule(crash.at + crash.noticed_after,
                   {[](void* simulator, std::uint64_t rank) {
                      static_cast<Simulator*>(simulator)->report_loss(static_cast<int>(rank));
                    },
                    this, rank});
}

bool Simulator::crashed(int rank) const {
  return workers_.at(static_cast<std::size_t>(rank))->crashed;
}

void Simulator::kill(int rank) {
  Worker& worker = *workers_[static_cast<std::size_t>(rank)];
  if (worker.done()) return;
  worker.crashed = true;
  fabric_->cut_off(rank);
  worker.abort.abort({Code::aborted, fmt::format("rank {} has crashed, as planned", rank)});
  enqueue(worker);
}

void Simulator::report_loss(int rank) {
  if (!crashed(rank)) return;
  for (auto& worker : workers_) {
    if (worker->rank() == rank) continue;
    worker->abort.abort(
        {Code::peer_lost,
         fmt::format("rank {}: lost rank {} (it has crashed)", worker->rank(), rank), rank});
    enqueue(*worker);
  }
}

void Simulator::report_deadlock() {
  std::string waiting;
  int count = 0;
  for (const auto& worker : workers_) {
    if (!worker->done() && ++count <= 8) waiting += fmt::format(" {}", worker->rank());
  }
  for (auto& worker : workers_) {
    worker->abort.abort(
        {Code::aborted,
         fmt::format("deadlock at {} s of virtual time: {} workers wait for each "
                     "other (ranks{}{})",
                     to_seconds(events_.now()), count, waiting, count > 8 ? " ..." : "")});
    enqueue(*worker);
  }
}

}  // namespace slip::sim
