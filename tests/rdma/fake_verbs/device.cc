#include "device.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <set>

#include "pair.h"

namespace fake_verbs {
namespace {

struct Opened {
  std::mutex mutex;  // before those of devices
  std::set<Device*> devices;
};
Opened& opened() {
  static Opened all;
  return all;
}

void flush_all() {
  const std::lock_guard lock(opened().mutex);
  for (Device* device : opened().devices) {
    const std::lock_guard its(device->mutex);
    device->flush_to_gpus();
  }
}

}  // namespace

Device::Device(ibv_device* of)
    : verbs_context(), gid_(gid_of(number_of(of))), event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  context.device = of;
  context.abi_compat = __VERBS_ABI_IS_EXTENDED;
  sz = sizeof(verbs_context);
  {
    const std::lock_guard lock(opened().mutex);
    opened().devices.insert(this);
  }
  // The program's signals are not its engine's.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  engine_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Device::~Device() {
  {
    const std::lock_guard lock(opened().mutex);
    opened().devices.erase(this);
  }
  {
    const std::lock_guard lock(mutex);
    if (!pairs.empty() || !memories.empty()) die("a device was closed that is in use");
    is_ending_ = true;
  }
  wake();
  engine_.join();
  close(event_);
}

void Device::wake() const {
  const std::uint64_t one = 1;
  (void)!write(event_, &one, sizeof one);
}

void Device::run() {
  std::vector<pollfd> awaited;
  for (;;) {
    awaited.assign(1, {event_, POLLIN, 0});
    {
      const std::lock_guard lock(mutex);
      if (is_ending_) return;
      for (const auto& [number, pair] : pairs) {
        pair->work();
        awaited.push_back({pair->socket().fd(), pair->awaits(), 0});
      }
    }
    (void)poll(awaited.data(), awaited.size(), -1);
    std::uint64_t count = 0;
    (void)!read(event_, &count, sizeof count);
  }
}

Memory* Device::find(std::uint32_t key, std::uint64_t at, std::size_t bytes) const {
  const auto found = memories.find(key);
  return found != memories.end() && found->second->contains(at, bytes) ? found->second : nullptr;
}

void Device::place(std::vector<Write>& writes) {
  if (!settings.in_order) std::reverse(writes.begin(), writes.end());
  for (Write& write : writes) {
    // It may have been given back since.
    const Memory* const memory = find(write.key, write.to, write.bytes.size());
    if (memory == nullptr) continue;
    if (memory->is_gpus && gpus_are_flushed_by(&flush_all)) {
      before_gpus_.push_back(std::move(write));
    } else {
      copy_in_order(memory->at(write.to), write.bytes.data(), write.bytes.size());
    }
  }
  writes.clear();
}

void Device::flush_to_gpus() {
  for (const Write& write : before_gpus_) {
    const Memory* const memory = find(write.key, write.to, write.bytes.size());
    if (memory == nullptr) continue;
    copy_in_order(memory->at(write.to), write.bytes.data(), write.bytes.size());
  }
  before_gpus_.clear();
}

Gid gid_of(int device) {
  return {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 9, static_cast<std::uint8_t>(device), 1};
}

int number_of(const ibv_device* device) { return std::atoi(device->name + std::strlen("rxe")); }

}  // namespace fake_verbs
