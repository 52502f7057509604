#pragma once

#include <ucp/api/ucp.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "slipstream/transport/network_engine_internal.h"
#include "slipstream/transport/ucx/library_internal.h"
#include "slipstream/transport/ucx/message_internal.h"
#include "slipstream/transport/ucx/ucx_transport.h"

#pragma GCC visibility push(hidden)

namespace slip::ucx {

/// Puts of up to so many bytes travel in the message that carries their word. UCX sends what is
/// larger without a copy of its own where it can.
constexpr std::size_t small_bytes = 4096;

/// What is larger and goes in messages is cut into so many: UCX puts together what is more than 64
/// KiB, by one more copy.
constexpr std::size_t fragment_bytes = std::size_t{60} << 10;

inline const char* text(ucs_status_t status) { return library().ucs_status_string(status); }

/// One worker's part of UCX: shared by the transport, its regions and those it has attached to, so
/// that it ends when the last of them does.
class Engine : public NetworkEngine, public std::enable_shared_from_this<Engine> {
 public:
  explicit Engine(UcxOptions options);
  /// Before anything else. Throws Error.
  void start();
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  Region allocate(std::size_t bytes, Bell bell, int device);
  Region share(const std::shared_ptr<std::byte>& memory, std::size_t bytes, Bell bell,
               std::shared_ptr<Landing> landing);
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

 private:
  /// One life of a peer.
  struct Peer {
    Engine* engine = nullptr;
    int rank = -1;
    ucp_ep_h endpoint = nullptr;
    std::shared_ptr<Doorbell> doorbell;  // where its memory can be mapped
    bool notices_failure = false;        // UCX tells when the connection breaks
    Status failure;
    Time heard{0};
    std::uint64_t posted = 0;   // puts
    std::uint64_t asked = 0;    // the count of puts up to which it was asked, and
    std::uint64_t drained = 0;  // has answered, that they have taken effect
  };
  /// What a RemoteRegion's handle refers to.
  struct Remote {
    ~Remote() { engine->detach(*this); }
    std::shared_ptr<Engine> engine;
    Peer* peer = nullptr;  // null: this worker itself
    ucp_rkey_h key = nullptr;
    bool direct = false;          // UCX has puts to there
    std::byte* mapped = nullptr;  // where load and store reach it
    std::uint64_t address = 0;
    std::uint64_t region = 0;
  };
  /// It stays while a peer is attached, so that what is still under way harms nobody.
  struct LocalRegion : SharedMemory {
    ucp_mem_h handle = nullptr;
    int attached = 0;
    bool freed = false;
    // Since it was asked for: 1 when no word for here waits for a GPU. Acquire: pairs with the
    // announcer's release.
    std::optional<Word> has_all_words;
  };
  /// A message on its way. Pooled, as UCX may refer to it after the call.
  struct Parcel {
    Engine* engine;
    std::array<std::byte, sizeof(Message) + small_bytes> bytes;
  };

  /// A put on its way, with what it was copied to unless its source is a region's. Pooled.
  struct Sending {
    Engine* engine;
    Message message;  // of a put in messages
    std::vector<std::byte> copy;
  };

  void make_doorbell();
  std::string pack_key(ucp_mem_h handle) const;
  Region publish(ucp_mem_h handle, std::shared_ptr<std::byte> memory, std::size_t bytes, Bell bell,
                 std::shared_ptr<Landing> landing);
  bool has_all_words(LocalRegion& region);
  void release(std::uint64_t region);
  void release_all();
  Peer& connect(int rank, std::uint64_t life, std::string_view address);
  Peer* current(int rank);
  Peer& ask_to_attach(Remote& remote, int rank, const RegionKey& key);
  Status await_attached(const Peer& peer, std::uint64_t number);
  void detach(const Remote& remote);
  void map(Remote& remote, const RegionKey& key);
  bool is_registered(const std::byte* begin, std::size_t bytes) const;
  Sending* new_sending(const std::byte** from, std::size_t bytes);
  Status put_mapped(Peer& peer, const RemoteRegion& to, std::size_t offset, const void* from,
                    std::size_t bytes, const Signal* signal);
  Status put_direct(Peer& peer, const Remote& remote, std::uint64_t offset, const std::byte* from,
                    std::size_t bytes);
  Status put_in_messages(Peer& peer, const Message& put, const std::byte* from, std::size_t bytes);
  Status send(Peer& peer, Message message, const void* payload, std::size_t bytes);
  Status posted(Peer& peer, ucs_status_ptr_t request);
  void handle(const Message& message, const std::byte* data, std::size_t bytes);
  bool land(const Message& message, const std::byte* payload, std::size_t bytes);
  void lose(Peer& peer, const std::string& why);
  void progress_all();
  void settle();
  void answer(const Message& message, const std::string& payload);
  void reply_to_drain(Peer& peer, std::uint64_t number);
  void tell_beat();

  static ucs_status_t on_message(void* engine, const void* header, std::size_t header_bytes,
                                 void* data, std::size_t bytes, const ucp_am_recv_param_t*);
  static void on_sent(void* request, ucs_status_t, void* parcel);
  static void on_put(void* request, ucs_status_t, void* sending);
  static void on_broken(void* peer, ucp_ep_h endpoint, ucs_status_t status);

  UcxOptions options_;
  const std::uint64_t life_ = draw_life();
  int event_fd_ = -1;
  std::shared_ptr<ucp_context> context_;
  ucp_worker_h worker_ = nullptr;
  std::string address_;        // of worker_
  std::string doorbell_rkey_;  // empty: the doorbell was given

  // The lock guards UCX and all below.
  std::map<std::uint64_t, Peer> peers_;  // by life; all that there were
  std::map<int, Peer*> current_;         // by rank
  std::unordered_map<std::uint64_t, LocalRegion> regions_;
  std::map<const std::byte*, std::size_t> spans_;  // where regions lie
  std::uint64_t last_region_ = 0;
  std::vector<std::unique_ptr<Parcel>> parcels_;
  std::vector<Parcel*> free_parcels_;
  std::vector<std::unique_ptr<Sending>> sendings_;
  std::vector<Sending*> free_sendings_;
  bool has_unused_regions_ = false;  // freed, but kept for a put that may have been under way
  std::vector<std::pair<Message, std::string>> questions_;  // to answer outside of UCX's callbacks
  std::map<std::uint64_t, std::optional<bool>> attaching_;  // by number: whether it succeeded
  std::uint64_t last_number_ = 0;
};

}  // namespace slip::ucx

#pragma GCC visibility pop
