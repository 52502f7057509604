#pragma once

#include <infiniband/verbs.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "memory.h"
#include "settings.h"
#include "socket.h"

#undef ibv_reg_mr

namespace fake_verbs {

class Pair;

constexpr int most_completions = 1 << 16;
constexpr int most_receives = 1 << 15;
constexpr std::uint32_t most_inline = 128;  // less than Slipstream wants

/// A device that a process has opened, and the thread that is its engine.
class Device : public verbs_context {
 public:
  explicit Device(ibv_device* of);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  static Device& of(ibv_context* context) { return static_cast<Device&>(*verbs_get_ctx(context)); }

  const Settings settings = read_settings();
  const Gid& gid() const { return gid_; }
  /// The engine looks for work.
  void wake() const;

  std::mutex mutex;  // guards the following, and all queues
  std::map<std::uint32_t, Pair*> pairs;
  std::map<std::uint32_t, Memory*> memories;

  // ---- With the lock held.

  /// Null: there is none that is so large.
  Memory* find(std::uint32_t key, std::uint64_t at, std::size_t bytes) const;

  /// Bytes that have come and are not in memory yet.
  struct Write {
    std::uint32_t key;
    std::uint64_t to;
    std::vector<std::byte> bytes;
  };
  /// A completion has come behind them: they are in memory of the host, and before the GPU's.
  void place(std::vector<Write>& writes);
  /// And in that, too.
  void flush_to_gpus();

 private:
  void run();

  const Gid gid_;
  const int event_;  // ends the engine's sleep
  bool is_ending_ = false;
  std::vector<Write> before_gpus_;
  std::thread engine_;
};

/// As Slipstream's machine for tests of RDMA has them (tools/rdma-machine): 10.9.D.1, in IPv6.
Gid gid_of(int device);
int number_of(const ibv_device* device);

}  // namespace fake_verbs
