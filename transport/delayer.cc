#include "slipstream/transport/delayer.h"

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

namespace slip {
namespace {

class DelayThread final : public Delayer {
 public:
  DelayThread() : thread_([this] { run(); }) {}
  ~DelayThread() override {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_one();
    thread_.join();
  }

  Time now() const override { return std::chrono::steady_clock::now() - start_; }

  void after(Duration delay, std::function<void()> action) override {
    {
      const std::lock_guard lock(mutex_);
      actions_.emplace(std::chrono::steady_clock::now() + delay, std::move(action));
    }
    changed_.notify_one();
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    while (!stop_ || !actions_.empty()) {
      if (actions_.empty()) {
        changed_.wait(lock);
      } else if (const auto at = actions_.begin()->first;
                 !stop_ && at > std::chrono::steady_clock::now()) {
        changed_.wait_until(lock, at);
      } else {
        const auto action = std::move(actions_.begin()->second);
        actions_.erase(actions_.begin());
        lock.unlock();
        action();
        lock.lock();
      }
    }
  }

  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::mutex mutex_;  // guards all below
  std::condition_variable changed_;
  bool stop_ = false;
  std::multimap<std::chrono::steady_clock::time_point, std::function<void()>> actions_;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Delayer> make_delay_thread() { return std::make_unique<DelayThread>(); }

}  // namespace slip
