#include "queue.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include "settings.h"

namespace fake_cuda {

struct Queue::State {
  State(int of, bool is_blocking) : device(of), blocking(is_blocking) {}

  const int device;
  const bool blocking;
  std::mutex mutex;  // guards the following
  std::condition_variable changed;
  std::deque<std::function<void()>> waiting;
  std::size_t enqueued = 0;
  bool busy = false;
  bool ending = false;

  bool idle() {
    const std::lock_guard lock(mutex);
    return waiting.empty() && !busy;
  }

  void run() {
    std::minstd_rand random(std::random_device{}());
    std::uniform_int_distribution<int> delay(0, settings().delay_us);
    std::unique_lock lock(mutex);
    while (true) {
      changed.wait(lock, [this] { return ending || !waiting.empty(); });
      if (waiting.empty()) return;
      const std::function<void()> work = std::move(waiting.front());
      waiting.pop_front();
      busy = true;
      lock.unlock();
      if (settings().delay_us > 0) {
        std::this_thread::sleep_for(std::chrono::microseconds(delay(random)));
      }
      if (!lost()) work();
      lock.lock();
      busy = false;
    }
  }
};

namespace {

struct Queues {
  std::mutex mutex;
  std::set<std::shared_ptr<Queue::State>> all;  // until their work is done, with a handle or not
  std::map<int, Queue> defaults;
};

Queues& queues() {
  static Queues& known = *new Queues;  // threads may outlive what is static
  return known;
}

}  // namespace

Queue::Queue(int device, bool blocking) : state_(std::make_shared<State>(device, blocking)) {
  {
    const std::lock_guard lock(queues().mutex);
    queues().all.insert(state_);
  }
  std::thread([state = state_] {
    state->run();
    const std::lock_guard lock(queues().mutex);
    queues().all.erase(state);
  }).detach();
}

Queue::~Queue() {
  const std::lock_guard lock(state_->mutex);
  state_->ending = true;
  state_->changed.notify_all();
}

int Queue::device() const { return state_->device; }
bool Queue::blocking() const { return state_->blocking; }

void Queue::enqueue(std::function<void()> work) {
  const std::lock_guard lock(state_->mutex);
  state_->waiting.push_back(std::move(work));
  ++state_->enqueued;
  state_->changed.notify_all();
}

std::size_t Queue::enqueued() const {
  const std::lock_guard lock(state_->mutex);
  return state_->enqueued;
}

bool Queue::idle() const { return state_->idle(); }

Queue& Queue::default_of(int device) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  return queues().defaults.try_emplace(device, device).first->second;
}

void drain(int device) {
  const auto is_idle = [device] {
    const std::lock_guard lock(queues().mutex);
    return std::ranges::all_of(queues().all, [device](const auto& queue) {
      return queue->device != device || queue->idle();
    });
  };
  while (!is_idle()) std::this_thread::sleep_for(std::chrono::microseconds(20));
}

void drain(const Queue& queue) {
  while (!queue.idle()) std::this_thread::sleep_for(std::chrono::microseconds(20));
}

void wait_until(const std::function<bool()>& condition) {
  while (!lost() && !condition()) std::this_thread::sleep_for(std::chrono::microseconds(20));
}

struct Marker::State {
  std::mutex mutex;
  Mark mark;
};

Marker::Marker() : state_(new State) {}

void Marker::record(Queue& queue) const {
  std::uint64_t recorded = 0;
  {
    const std::lock_guard lock(state_->mutex);
    recorded = ++state_->mark.recorded;
  }
  queue.enqueue([state = state_, recorded] {
    const std::lock_guard lock(state->mutex);
    if (recorded < state->mark.done) return;  // marked again, on a stream that was faster
    state->mark.done = recorded;
    state->mark.at = std::chrono::steady_clock::now();
  });
}

Mark Marker::now() const {
  const std::lock_guard lock(state_->mutex);
  return state_->mark;
}

void Marker::wait(std::uint64_t recorded) const {
  wait_until([&] { return now().done >= recorded; });
}

}  // namespace fake_cuda
