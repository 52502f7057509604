#include "slipstream/transport/sim/sim_transport.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "slipstream/base/align_internal.h"

namespace slip::sim {
namespace {

void store_word(std::byte* at, Word word) {
  std::atomic_ref<Word>(*reinterpret_cast<Word*>(at)).store(word, std::memory_order_release);
}

}  // namespace

Fabric::Fabric(EventQueue& events, int workers, Network network,
               std::function<void(int, Bell)> delivered)
    : events_(events),
      network_(std::move(network)),
      delivered_(std::move(delivered)),
      cut_off_(static_cast<std::size_t>(workers)) {}

Fabric::~Fabric() = default;

Fabric::Flight& Fabric::flight(int from, int to) {
  return flights_[(static_cast<std::uint64_t>(from) << 32) | static_cast<std::uint32_t>(to)];
}

Fabric::Message* Fabric::new_message() {
  if (free_.empty()) {
    pool_.push_back(std::make_unique<Message>());
    return pool_.back().get();
  }
  Message* message = free_.back();
  free_.pop_back();
  return message;
}

template <void (Fabric::*step)(Fabric::Message*)>
void Fabric::schedule(Time at, Message* message) {
  events_.schedule(
      at, {[](void* fabric, std::uint64_t argument) {
             (static_cast<Fabric*>(fabric)->*step)(reinterpret_cast<Fabric::Message*>(argument));
           },
           this, reinterpret_cast<std::uint64_t>(message)});
}

/// Its first byte is there.
void Fabric::receive(Message* message) {
  if (!network_.has_rates()) return deliver(message);
  schedule<&Fabric::deliver>(
      network_.arrives(events_.now(), message->from, message->to, message->on_wire), message);
}

void Fabric::deliver(Message* message) {
  std::byte* memory = message->memory.get();
  if (!message->payload.empty()) {
    std::memcpy(memory + message->offset, message->payload.data(), message->payload.size());
  }
  if (message->signals) store_word(memory + message->word_offset, message->word);
  Flight& under_way = *message->flight;
  --under_way.count;
  if (message->signals) delivered_(message->to, message->bell);
  if (under_way.awaited && under_way.count == 0) {
    under_way.awaited = false;
    delivered_(message->from, Bell::worker);
  }
  message->memory.reset();
  message->payload.clear();
  free_.push_back(message);
}

Region SimTransport::allocate(std::size_t bytes, Bell bell, int device) {
  require_host(device, name());
  // Zeroed by calloc, so that pages of large regions take memory only once they are touched.
  std::size_t space = std::max(bytes, line) + line;
  const std::shared_ptr<void> block(std::calloc(space, 1), std::free);
  if (!block) throw std::bad_alloc();
  void* aligned = block.get();
  std::align(line, std::max(bytes, line), aligned, space);
  std::shared_ptr<std::byte> memory(block, static_cast<std::byte*>(aligned));
  const std::uint64_t id = ++fabric_.last_id_;
  fabric_.regions_[id] = {rank_, bell, bytes, memory};
  return {std::move(memory), bytes, std::to_string(id)};
}

RemoteRegion SimTransport::attach(int peer, std::string_view key) {
  std::uint64_t id = 0;
  std::from_chars(key.data(), key.data() + key.size(), id);
  const auto found = fabric_.regions_.find(id);
  if (found == fabric_.regions_.end() || found->second.rank != peer) {
    throw Error(Code::bad_data, fmt::format("rank {} published a damaged region key", peer), peer);
  }
  auto memory = found->second.memory.lock();
  if (!memory) {
    throw Error(Code::peer_lost, fmt::format("rank {} has freed the region", peer), peer);
  }
  return {peer, found->second.bytes, found->second.bell, std::move(memory), nullptr};
}

Status SimTransport::put(const RemoteRegion& to, std::size_t offset, const void* from,
                         std::size_t bytes) {
  return post(to, offset, from, bytes, false, 0, 0);
}

Status SimTransport::put_signal(const RemoteRegion& to, std::size_t offset, const void* from,
                                std::size_t bytes, std::size_t word_offset, Word word) {
  return post(to, offset, from, bytes, true, word_offset, word);
}

Status SimTransport::post(const RemoteRegion& to, std::size_t offset, const void* from,
                          std::size_t bytes, bool signals, std::size_t word_offset, Word word) {
  if (!to.contains(offset, bytes)) return out_of_bounds(to, offset, bytes);
  if (signals && (!to.contains(word_offset, sizeof word) || word_offset % sizeof word != 0)) {
    return out_of_bounds(to, word_offset, sizeof word);
  }
  ++fabric_.messages_;
  if (fabric_.cut_off_[static_cast<std::size_t>(rank_)] ||
      fabric_.cut_off_[static_cast<std::size_t>(to.peer)]) {
    return {};
  }
  if (instant_) {
    if (bytes > 0) std::memcpy(to.memory.get() + offset, from, bytes);
    if (signals) {
      store_word(to.memory.get() + word_offset, word);
      fabric_.delivered_(to.peer, to.bell);
    }
    return {};
  }
  Fabric::Message* message = fabric_.new_message();
  message->memory = to.memory;
  message->from = rank_;
  message->to = to.peer;
  message->bell = to.bell;
  message->signals = signals;
  message->offset = offset;
  message->word_offset = word_offset;
  message->word = word;
  const auto* source = static_cast<const std::byte*>(from);
  if (bytes > 0) message->payload.assign(source, source + bytes);
  message->flight = &fabric_.flight(rank_, to.peer);
  ++message->flight->count;
  message->on_wire = bytes + (signals ? sizeof word : 0);
  const Time reaches =
      fabric_.network_.reaches(fabric_.events_.now(), rank_, to.peer, message->on_wire);
  fabric_.schedule<&Fabric::receive>(reaches, message);
  return {};
}

bool SimTransport::drained(int peer) {
  if (instant_) return true;
  Fabric::Flight& under_way = fabric_.flight(rank_, peer);
  under_way.awaited = under_way.count > 0;
  return under_way.count == 0;
}

}  // namespace slip::sim
