#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "slipstream/transport/network_engine_internal.h"
#include "slipstream/transport/verbs/channel_internal.h"
#include "slipstream/transport/verbs/connector_internal.h"
#include "slipstream/transport/verbs/verbs_transport.h"

#pragma GCC visibility push(hidden)

namespace slip::verbs {

/// One worker's part of verbs: shared by the transport, its regions and those it has attached to,
/// so that it ends when the last of them does.
class Engine : public NetworkEngine, public std::enable_shared_from_this<Engine> {
 public:
  /// Throws Error.
  explicit Engine(VerbsOptions options);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  Region allocate(std::size_t bytes, Bell bell, int device);
  Region share(const std::shared_ptr<std::byte>& memory, std::size_t bytes, Bell bell,
               std::shared_ptr<Landing> landing);
  std::optional<Region> share_gpu(const Region& region, Bell bell, std::shared_ptr<Landing> landing,
                                  std::string* why);
  std::shared_ptr<void> hold_source(const RemoteRegion& to, const std::byte* from,
                                    std::size_t bytes);
  RemoteRegion attach(int peer, std::string_view key);
  Status put(const RemoteRegion& to, std::size_t offset, const void* from, std::size_t bytes,
             const Signal* signal);
  bool drained(int peer);
  void disconnect(int peer);

  void arm();
  void progress();
  void attend();
  void drive();
  void rest();
  void close();
  std::string description() const { return describe(device_.choice()); }

 private:
  /// One life of a peer.
  struct Peer {
    int rank = -1;
    Address address;
    AddressHandle way;                 // to its connector
    std::unique_ptr<Channel> channel;  // null once it is lost
    Status failure;
    Time heard{0};
    bool was_heard = false;                 // since the last beat
    bool has_left = false;                  // it has said bye
    bool is_waiting = false;                // and listed in waiting_
    bool is_awake = false;                  // its worker polls what lands there
    int landed = 0;                         // notices here since the worker's rest number
    std::uint64_t landed_since = 0;         // this one
    std::uint64_t posted = 0;               // puts
    std::uint64_t asked = 0;                // the count of puts up to which it was asked, and
    std::uint64_t drained = 0;              // has answered, that they have taken effect
    std::map<std::uint64_t, int> attached;  // to which regions here, how often
  };
  /// What a RemoteRegion's handle refers to.
  struct Remote {
    ~Remote() { engine->detach(*this); }
    std::shared_ptr<Engine> engine;
    std::shared_ptr<Peer> peer;  // null: this worker itself
    std::uint64_t address = 0;
    std::uint64_t region = 0;
    std::uint32_t rkey = 0;
    bool has_landing = false;
    bool is_attached = false;
  };
  /// It stays while a peer is attached, so that what is still under way harms nobody.
  struct LocalRegion : SharedMemory {
    Registration registration;
    int attached = 0;
    int users = 0;  // requests that send out of it
    bool freed = false;
  };

  // ---- Set-up.
  void make_queues();
  Region publish(const std::shared_ptr<std::byte>& memory, std::size_t bytes, Bell bell,
                 Registration registration, std::shared_ptr<Landing> landing);
  void release(std::uint64_t region);
  void release_all();
  std::shared_ptr<Peer> peer_for(int rank, const Address& address);
  void knock(Peer& peer, Knock::Kind kind);
  void answer(const Knock& knock);
  bool wants_landing(const Knock& knock) const;
  void await_channel(std::unique_lock<std::mutex>& lock, Peer& peer, Time deadline);
  Status await_attached(const Peer& peer, std::uint64_t number, Time deadline);
  Status no_answer(const Peer& peer) const;
  void detach(const Remote& remote);

  // ---- Puts; with the lock held.
  LocalRegion* region_of(const std::byte* begin, std::size_t bytes);
  Buffer* copy(const std::byte* from, std::size_t bytes, std::size_t room);
  Status no_buffer(const Peer& peer) const;
  void put_here(Message message, const std::byte* from, std::size_t bytes, bool has_word);
  Status add_payload(Peer& peer, const Remote& remote, std::size_t offset, const std::byte* from,
                     std::size_t bytes);
  Status add_landed(Peer& peer, const Remote& remote, std::size_t offset, Bell bell,
                    const std::byte* from, std::size_t bytes, Word word);
  Status add_message(Peer& peer, const Message& message, const std::byte* payload);
  Status send(Peer& peer, const Message& message);
  Status pump(Peer& peer);
  bool land(const Message& message, const std::byte* payload);
  bool note_written(const Message& message) const;

  // ---- Progress; with the lock held.
  int poll();
  void poll_all();
  void settle();
  Peer* take(const ibv_wc& completion);
  bool is_shared_receive(const ibv_wc& completion) const;
  bool receive(Peer& peer, std::uint32_t immediate);
  bool handle(Peer& peer, const Message& message, const std::byte* payload);
  void reply_to_attach(Peer& peer, const Message& message);
  void reply_to_drain(Peer& peer, std::uint64_t number);
  void count_notice(Peer& peer);
  Status send(Peer& peer, Kind kind);
  void lose(Peer& peer, const std::string& why);
  void cut(Peer& peer, const Status& why);
  void tell_beat();
  void take_events();

  VerbsOptions options_;
  const std::uint64_t life_;
  Device device_;
  std::uint32_t window_ = 0;
  CompletionChannel events_;
  CompletionQueue completions_;
  ReceiveQueue receives_;
  ibv_recv_wr receive_works_[16];
  std::unique_ptr<Connector> connector_;
  Address address_;  // this worker's

  // The lock guards the queues and all below.
  Buffers buffers_;
  std::unordered_map<std::uint64_t, LocalRegion> regions_;
  std::map<const std::byte*, LocalRegion*> spans_;  // where regions lie
  std::uint64_t last_region_ = 0;
  bool has_unused_regions_ = false;  // freed, but kept for a request that sends out of them
  std::map<int, std::shared_ptr<Peer>> peers_;
  std::unordered_map<std::uint32_t, Peer*> by_pair_;        // those with a channel, by its number
  std::unordered_set<std::uint64_t> gone_;                  // lives that are over
  std::vector<Peer*> waiting_;                              // have more to post
  std::vector<Knock> knocks_;                               // not answered yet
  bool is_spinning_ = false;                                // the worker, or it computes
  std::uint64_t rests_ = 0;                                 // of the worker
  std::vector<Peer*> spared_;                               // were told that it is awake
  std::map<std::uint64_t, std::optional<bool>> attaching_;  // by number: whether it succeeded
  std::uint64_t last_number_ = 0;
};

}  // namespace slip::verbs

#pragma GCC visibility pop
