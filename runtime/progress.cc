#include "slipstream/runtime/progress.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <list>
#include <mutex>
#include <thread>
#include <utility>

#include "slipstream/base/error.h"

namespace slip {
namespace {

class ProgressThread final : public Progress, public std::enable_shared_from_this<ProgressThread> {
 public:
  ProgressThread() {
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (epoll_ < 0 || wake_ < 0) throw_errno("cannot create the progress thread");
    add(wake_);
    // Signals are for the user's threads.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_ = std::thread([this] { run(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  ~ProgressThread() override {
    stop_.store(true, std::memory_order_release);
    serve_soon();
    thread_.join();
    close(epoll_);
    close(wake_);
  }

  std::unique_ptr<Handle> serve(Transport& transport, std::function<bool()> poll) override {
    const std::lock_guard lock(mutex_);
    const auto known = std::find_if(driven_.begin(), driven_.end(),
                                    [&](const Driven& d) { return d.transport == &transport; });
    if (known == driven_.end()) {
      if (!watched(transport)) add(transport.progress_fd());
      driven_.push_back({&transport, 1});
    } else {
      ++known->users;
    }
    services_.push_back({&transport, std::move(poll)});
    serve_soon();
    return std::make_unique<Registration>(shared_from_this(), std::prev(services_.end()));
  }

  void serve_soon() override {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = write(wake_, &one, sizeof one);
  }

  std::unique_ptr<Handle> watch(int fd, std::function<void()> ready) override {
    const std::lock_guard lock(mutex_);
    watches_.push_back({fd, std::move(ready), false});
    add(fd);
    return std::make_unique<Watching>(shared_from_this(), std::prev(watches_.end()));
  }

 private:
  struct Driven {
    Transport* transport;
    int users;
  };
  struct Service {
    Transport* transport;
    std::function<bool()> poll;
  };
  struct Watch {
    int fd;
    std::function<void()> ready;
    bool done;
  };

  struct Registration final : Handle {
    Registration(std::shared_ptr<ProgressThread> owner, std::list<Service>::iterator service)
        : owner(std::move(owner)), service(service) {}
    ~Registration() override { owner->remove(service); }
    std::shared_ptr<ProgressThread> owner;
    std::list<Service>::iterator service;
  };
  struct Watching final : Handle {
    Watching(std::shared_ptr<ProgressThread> owner, std::list<Watch>::iterator watch)
        : owner(std::move(owner)), watch(watch) {}
    ~Watching() override { owner->remove(watch); }
    std::shared_ptr<ProgressThread> owner;
    std::list<Watch>::iterator watch;
  };

  void remove(std::list<Service>::iterator service) {
    const std::lock_guard lock(mutex_);
    const auto driven = std::find_if(driven_.begin(), driven_.end(), [&](const Driven& d) {
      return d.transport == service->transport;
    });
    if (--driven->users == 0) {
      Transport& transport = *driven->transport;
      transport.progress();  // withdraws its bell
      driven_.erase(driven);
      if (!watched(transport)) epoll_ctl(epoll_, EPOLL_CTL_DEL, transport.progress_fd(), nullptr);
    }
    services_.erase(service);
  }

  void remove(std::list<Watch>::iterator watch) {
    const std::lock_guard lock(mutex_);
    if (!watch->done) epoll_ctl(epoll_, EPOLL_CTL_DEL, watch->fd, nullptr);
    watches_.erase(watch);
  }

  /// True if there is nothing to watch, or it is watched for one that shares it (a decorator).
  bool watched(const Transport& transport) const {
    const int fd = transport.progress_fd();
    return fd < 0 || std::any_of(driven_.begin(), driven_.end(), [fd](const Driven& driven) {
             return driven.transport->progress_fd() == fd;
           });
  }

  void add(int fd) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) throw_errno("cannot watch a descriptor");
  }

  bool poll_services() {
    bool any = false;
    for (Service& service : services_) any |= service.poll();
    return any;
  }

  void run() {
    while (!stop_.load(std::memory_order_acquire)) {
      {
        const std::lock_guard lock(mutex_);
        for (const Driven& driven : driven_) driven.transport->progress();
        while (poll_services()) {
        }
        for (const Driven& driven : driven_) driven.transport->arm();
        if (poll_services()) continue;  // arrived between the last look and arming
      }
      epoll_event events[16];
      const int count = epoll_wait(epoll_, events, 16, 1000);
      const std::lock_guard lock(mutex_);
      for (int i = 0; i < count; ++i) handle(events[i].data.fd);
    }
  }

  void handle(int fd) {
    if (fd == wake_) {
      std::uint64_t value = 0;
      [[maybe_unused]] const auto bytes = read(wake_, &value, sizeof value);
      return;
    }
    const auto watch = std::find_if(watches_.begin(), watches_.end(),
                                    [&](const Watch& w) { return w.fd == fd && !w.done; });
    if (watch == watches_.end()) return;  // a transport's; driven by the loop
    watch->done = true;
    epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);
    // It may tell of an end: what had come before is seen before.
    for (const Driven& driven : driven_) driven.transport->progress();
    watch->ready();
  }

  int epoll_ = -1;
  int wake_ = -1;
  std::atomic<bool> stop_{false};  // release in the destructor, acquire in the loop
  std::mutex mutex_;               // guards the lists; held while callbacks run
  std::list<Driven> driven_;
  std::list<Service> services_;
  std::list<Watch> watches_;
  std::thread thread_;
};

}  // namespace

std::shared_ptr<Progress> progress_thread() {
  static std::mutex mutex;
  static std::weak_ptr<ProgressThread> shared;
  const std::lock_guard lock(mutex);
  auto thread = shared.lock();
  if (!thread) {
    thread = std::make_shared<ProgressThread>();
    shared = thread;
  }
  return thread;
}

}  // namespace slip
