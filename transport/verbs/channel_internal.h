#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "slipstream/transport/verbs/buffers_internal.h"
#include "slipstream/transport/verbs/device_internal.h"
#include "slipstream/transport/verbs/window_internal.h"
#include "slipstream/transport/verbs/wire_internal.h"

#pragma GCC visibility push(hidden)

namespace slip::verbs {

/// A write that waits for its turn.
struct Request {
  enum class Kind : std::uint8_t {
    plain,   // payload, or a word that lands with it for a reader who is awake
    cell,    // a message, into the mailbox
    landed,  // a payload and the word right behind it, of which its reader is told
  };
  Kind kind = Kind::plain;
  bool is_signalled = false;   // its completion is waited for
  bool word_is_apart = false;  // it is in `buffer`, the payload is not
  Bell bell = Bell::worker;    // landed
  const std::byte* from = nullptr;
  std::uint32_t bytes = 0;
  std::uint32_t lkey = 0;
  std::uint64_t to = 0;
  std::uint32_t rkey = 0;
  Buffer* buffer = nullptr;  // given back when it is done
  int* users = nullptr;      // of the memory that it is sent from; counted down when it is done
};

/// First in, first out; grows and never shrinks.
class RequestQueue {
 public:
  bool empty() const { return first_ == last_; }
  Request& front() { return at(first_); }
  void pop() { ++first_; }
  void push(const Request& request) {
    if (last_ - first_ == ring_.size()) grow();
    at(last_++) = request;
  }

 private:
  Request& at(std::uint64_t index) { return ring_[index & (ring_.size() - 1)]; }
  void grow();

  std::vector<Request> ring_ = std::vector<Request>(64);
  std::uint64_t first_ = 0;
  std::uint64_t last_ = 0;
};

/// What a worker has open to one peer: the queue pair of a reliable connection, what waits to be
/// sent through it, the windows of both directions, and the peer's mailbox here. When it is
/// destroyed the queue pair is, first of all: from then on the peer writes nothing here.
class Channel {
 public:
  /// Throws Error. `window` of both directions, a power of two.
  Channel(const Device& device, Buffers& buffers, ibv_cq* completions, ibv_srq* receives,
          std::uint32_t window);
  ~Channel();
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  std::uint32_t number() const { return pair_->qp_num; }
  /// Says in `knock` how the peer connects to this end.
  void introduce(Knock& knock) const;
  bool is_connected() const { return is_connected_; }
  /// To the end that `knock` introduces, whose fields are checked. Throws Error.
  void connect(const Knock& knock, Duration peer_timeout);
  /// The peer is known to receive: what waits may be sent.
  void open() { is_open_ = true; }
  bool is_open() const { return is_open_; }

  void add(const Request& request);
  /// Posts what may be posted. 0, or an errno.
  int pump();
  /// A request and all before it are done.
  void complete(std::uint64_t id);
  bool is_waiting() const { return !queue_.empty() || received_.credit_is_due(); }
  /// Everything up to the last signalled request is done.
  bool is_finished() const { return queue_.empty() && completed_ >= marked_; }

  bool credit(std::uint32_t handled) { return window_.credit(handled); }
  ReceiveWindow& received() { return received_; }
  const std::byte* next_cell() const {
    return mailbox_.get() + std::size_t{received_.cell()} * cell_bytes;
  }

  /// The peer polls words that land.
  void let_land() { lands_ = true; }
  bool lands() const { return lands_; }
  /// True if nothing is under way that a word which lands could overtake.
  bool may_land() const;

 private:
  static constexpr int batch = 16;

  void post_credit(ibv_send_wr& work);
  void post(ibv_send_wr& work, ibv_sge* parts, const Request& request, Buffer** inlined);
  void sign(ibv_send_wr& work, bool must);
  void finish(Buffer* buffer, int* users);
  std::uint32_t room() const {
    return static_cast<std::uint32_t>(in_flight_.size() - (posted_ - completed_));
  }

  struct InFlight {
    Buffer* buffer = nullptr;
    int* users = nullptr;
  };

  const Device& device_;
  Buffers& buffers_;
  Memory mailbox_;
  Registration mailbox_registration_;
  QueuePair pair_;
  std::uint32_t first_packet_ = 0;
  std::uint32_t most_inline_ = 0;
  bool is_connected_ = false;
  bool is_open_ = false;
  bool lands_ = false;

  RequestQueue queue_;
  SendWindow window_;
  ReceiveWindow received_;
  std::uint32_t cells_;  // in the mailbox there
  std::uint64_t mailbox_there_ = 0;
  std::uint32_t mailbox_key_ = 0;
  std::vector<InFlight> in_flight_;  // by number of the request; the send queue's size
  std::uint64_t posted_ = 0;
  std::uint64_t completed_ = 0;
  std::uint64_t marked_ = 0;       // the last signalled one that is waited for
  std::uint64_t cells_sent_ = 0;   // the number behind the last one
  std::uint32_t unsignalled_ = 0;  // since the last signalled one
  ibv_send_wr works_[batch];
  ibv_sge parts_[batch][2];
};

}  // namespace slip::verbs

#pragma GCC visibility pop
