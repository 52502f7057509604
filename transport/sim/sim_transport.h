#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "slipstream/transport/sim/event_queue.h"
#include "slipstream/transport/sim/network.h"
#include "slipstream/transport/transport.h"

namespace slip::sim {

/// What joins the simulated workers: their regions, and the messages on their way. One thread.
class Fabric {
 public:
  /// `delivered(rank, bell)` is called after a word has landed at that worker.
  Fabric(EventQueue& events, int workers, Network network,
         std::function<void(int, Bell)> delivered);
  ~Fabric();
  Fabric(const Fabric&) = delete;
  Fabric& operator=(const Fabric&) = delete;

  /// From now on nothing that this worker puts takes effect, nor what others put to it; what is
  /// under way arrives.
  void cut_off(int rank) { cut_off_.at(static_cast<std::size_t>(rank)) = true; }

  /// Messages handed over so far.
  std::uint64_t messages() const { return messages_; }

 private:
  friend class SimTransport;

  /// Messages under way from one worker to another.
  struct Flight {
    std::uint64_t count = 0;
    bool awaited = false;  // the sender waits for the count to reach 0
  };
  struct Memory {
    int rank;
    Bell bell;
    std::size_t bytes;
    std::weak_ptr<std::byte> memory;
  };
  /// A message on its way. Pooled: a steady run allocates nothing but payloads' growth.
  struct Message {
    std::shared_ptr<std::byte> memory;
    Flight* flight;
    int from;
    int to;
    Bell bell;
    bool signals;
    std::size_t offset;
    std::size_t word_offset;
    Word word;
    std::size_t on_wire;  // bytes
    std::vector<std::byte> payload;
  };

  Flight& flight(int from, int to);
  Message* new_message();
  template <void (Fabric::*step)(Message*)>
  void schedule(Time at, Message* message);
  void receive(Message* message);
  void deliver(Message* message);

  EventQueue& events_;
  Network network_;
  std::function<void(int, Bell)> delivered_;
  std::uint64_t messages_ = 0;
  std::uint64_t last_id_ = 0;
  std::vector<bool> cut_off_;  // by rank
  std::unordered_map<std::uint64_t, Memory> regions_;
  std::unordered_map<std::uint64_t, Flight> flights_;
  std::vector<std::unique_ptr<Message>> pool_;
  std::vector<Message*> free_;
};

/// Whether puts travel the modelled links, or take effect at once.
enum class Delivery { modelled, instant };

/// One simulated worker's view of the fabric. A put is copied when it is posted and takes effect
/// when the network says so (at once where no link is modelled).
class SimTransport final : public Transport {
 public:
  SimTransport(Fabric& fabric, int rank, Delivery delivery = Delivery::modelled)
      : fabric_(fabric),
        rank_(rank),
        instant_(delivery == Delivery::instant || fabric.network_.instant()) {}

  std::string_view name() const override { return "sim"; }
  Region allocate(std::size_t bytes, Bell bell, int device) override;
  RemoteRegion attach(int peer, std::string_view key) override;
  Status put(const RemoteRegion& to, std::size_t offset, const void* from,
             std::size_t bytes) override;
  Status put_signal(const RemoteRegion& to, std::size_t offset, const void* from, std::size_t bytes,
                    std::size_t word_offset, Word word) override;
  bool copies_at_post() const override { return true; }
  bool drained(int peer) override;

 private:
  Status post(const RemoteRegion& to, std::size_t offset, const void* from, std::size_t bytes,
              bool signals, std::size_t word_offset, Word word);

  Fabric& fabric_;
  const int rank_;
  const bool instant_;
};

}  // namespace slip::sim
