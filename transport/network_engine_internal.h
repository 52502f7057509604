#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "slipstream/base/error.h"
#include "slipstream/base/steady_clock_internal.h"
#include "slipstream/base/time.h"
#include "slipstream/base/word.h"
#include "slipstream/transport/doorbell.h"
#include "slipstream/transport/network_transport.h"
#include "slipstream/transport/parking_internal.h"
#include "slipstream/transport/region.h"

#pragma GCC visibility push(hidden)

namespace slip {

/// Tells one life of a worker from the next.
std::uint64_t draw_life();

/// A word and where in the region it goes.
struct Signal {
  std::size_t offset;
  Word word;
};

/// Memory of this worker that peers may write.
struct SharedMemory {
  std::shared_ptr<std::byte> memory;  // outlives its registration
  std::size_t bytes = 0;
  Bell bell = Bell::worker;
  std::shared_ptr<Landing> landing;  // null: it is there when it has come
};

/// What arrived for a region in a message: payload, and then a word if there is one.
struct Arrival {
  std::uint64_t offset = 0;
  const std::byte* payload = nullptr;
  std::size_t bytes = 0;
  bool has_word = false;
  std::uint64_t word_offset = 0;
  Word word = 0;
};

/// What a peer asks that waits for `drained`: whether everything before its question has taken
/// effect.
struct Question {
  std::uint64_t life = 0;  // the peer's
  std::uint64_t number = 0;
};

/// What the engines of networks share: a lock, how their worker and their progress thread sleep and
/// are woken, and what is told of peers that are lost.
class NetworkEngine {
 public:
  int progress_fd() const { return parking_.fd(); }
  const std::shared_ptr<Doorbell>& doorbell() const { return doorbell_; }
  void announce_by(std::shared_ptr<Announcer> announcer);
  void on_lost(std::function<void(const Status&)> lost);
  /// From any thread, without the lock.
  void wake(Bell bell);

 protected:
  /// `doorbell` is made where it is null.
  NetworkEngine(std::shared_ptr<Doorbell> doorbell, Duration peer_timeout);
  ~NetworkEngine() = default;

  // ---- With the lock held.

  /// Services need no bell on the thread that runs them, which looks at them before it sleeps.
  void ring(Bell bell);
  /// Writes it there, and rings. False if it does not fit: a peer has sent it.
  bool land(const SharedMemory& region, const Arrival& arrival);
  /// False: it has, as far as the network has brought it. True: something is still on its way to a
  /// GPU; `next_settled` gives the question when it is there.
  bool has_to_wait(const Question& question);
  std::optional<Question> next_settled();
  /// Sets `done` to 1, and wakes the progress thread, once all words that have come are announced.
  void after_words(Word& done);
  /// To be freed by `free_memory`: a GPU's waits until the GPU has done its work, which may have to
  /// wait for what only the lock's next owner brings.
  void add_freed(SharedMemory memory) { freed_.push_back(std::move(memory)); }
  /// To be told by `tell_losses`, soon.
  void add_loss(const Status& why);
  bool has_losses() const { return !losses_.empty(); }

  /// When peers have to be told that this worker lives.
  struct Beat {
    bool is_due = false;
    bool was_stopped = false;  // their silence was this worker's
    Time now{0};
  };
  Beat beat();
  bool is_silent(Time heard, Time now) const { return now - heard > peer_timeout_; }

  // ---- With the lock not held.

  void free_memory();
  /// Whoever is told may put.
  void tell_losses();

  std::mutex mutex_;
  std::shared_ptr<Doorbell> doorbell_;
  Parking parking_;
  std::shared_ptr<Announcer> announcer_;  // null: words are stored as they come

 private:
  struct Waiting {
    Question question;
    Word is_settled = 0;  // announced, as a word is. Acquire: pairs with the announcer's release
  };

  const Duration peer_timeout_;
  std::deque<Waiting> waiting_questions_;  // which stay where they are
  std::vector<SharedMemory> freed_;
  std::vector<Status> losses_;  // not told yet
  std::function<void(const Status&)> lost_;
  Time last_beat_;
};

/// The transport that an engine makes: what its caller asks for is checked and handed on.
template <class Interface, class Engine>
class EngineTransport : public Interface {
 public:
  explicit EngineTransport(std::shared_ptr<Engine> engine) : engine_(std::move(engine)) {}
  ~EngineTransport() override { engine_->close(); }

  Region allocate(std::size_t bytes, Bell bell, int device) override {
    return engine_->allocate(bytes, bell, device);
  }
  using Interface::share;
  Region share(const std::shared_ptr<std::byte>& memory, std::size_t bytes, Bell bell,
               std::shared_ptr<Landing> landing) override {
    return engine_->share(memory, bytes, bell, std::move(landing));
  }
  RemoteRegion attach(int peer, std::string_view key) override {
    return engine_->attach(peer, key);
  }

  Status put(const RemoteRegion& to, std::size_t offset, const void* from,
             std::size_t bytes) override {
    if (!to.contains(offset, bytes)) [[unlikely]]
      return out_of_bounds(to, offset, bytes);
    return engine_->put(to, offset, from, bytes, nullptr);
  }
  Status put_signal(const RemoteRegion& to, std::size_t offset, const void* from, std::size_t bytes,
                    std::size_t word_offset, Word word) override {
    if (!to.contains(offset, bytes)) [[unlikely]]
      return out_of_bounds(to, offset, bytes);
    if (!to.contains(word_offset, sizeof word) || word_offset % sizeof word != 0) [[unlikely]]
      return out_of_bounds(to, word_offset, sizeof word);
    const Signal signal{word_offset, word};
    return engine_->put(to, offset, from, bytes, &signal);
  }

  bool copies_at_post() const override { return false; }
  bool drained(int peer) override { return engine_->drained(peer); }
  void disconnect(int peer) override { engine_->disconnect(peer); }
  int progress_fd() const override { return engine_->progress_fd(); }
  void arm() override { engine_->arm(); }
  void progress() override { engine_->progress(); }
  void attend() override { engine_->attend(); }
  void drive() override { engine_->drive(); }
  void rest() override { engine_->rest(); }
  void on_lost(std::function<void(const Status&)> lost) override {
    engine_->on_lost(std::move(lost));
  }
  void announce_by(std::shared_ptr<Announcer> announcer) override {
    engine_->announce_by(std::move(announcer));
  }
  void ring(Bell bell) override { engine_->wake(bell); }
  std::shared_ptr<Doorbell> doorbell() const override { return engine_->doorbell(); }

 protected:
  const std::shared_ptr<Engine> engine_;
};

}  // namespace slip

#pragma GCC visibility pop
