#pragma once

#include <infiniband/verbs.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "device.h"
#include "queues.h"
#include "socket.h"

namespace fake_verbs {

/// Where datagrams go.
struct Way : ibv_ah {
  Gid gid{};
};

/// A queue pair, of a reliable connection or of datagrams. Its device's lock is held.
class Pair : public ibv_qp {
 public:
  Pair(ibv_pd* domain, const ibv_qp_init_attr& wanted);

  const Socket& socket() const { return socket_; }

  int modify(const ibv_qp_attr& attributes, int mask);
  /// As ibv_post_send.
  int post(ibv_send_wr* works, ibv_send_wr** bad);
  Receives& own_receives() { return receives_; }
  /// Completions that the program has seen make room in the send queue.
  void release(std::uint32_t requests) { in_use_ -= requests; }

  /// What the engine does: takes what has come, and sends as much as it may.
  void work();
  /// Upon which there is more to do: POLLIN and POLLOUT of its socket.
  short awaits() const;

 private:
  /// A request of the send queue.
  struct Request {
    std::uint64_t id = 0;
    ibv_wr_opcode opcode = IBV_WR_RDMA_WRITE;
    unsigned flags = 0;
    std::uint32_t immediate = 0;
    std::uint64_t to = 0;
    std::uint32_t rkey = 0;
    std::vector<ibv_sge> parts;
    std::vector<std::byte> inlined;  // instead of parts
    std::size_t bytes = 0;
    std::size_t sent = 0;
  };
  enum class Step { done, later, failed };

  int check(const ibv_send_wr& work) const;
  Request request_of(const ibv_send_wr& work) const;
  bool gather(const Request& request, std::size_t at, std::byte* into, std::size_t bytes) const;

  void send_datagram(const ibv_send_wr& work);
  Step send_packet(Request& request);
  Step send(const Header& header, const std::byte* payload, std::size_t bytes);
  void transmit();

  bool may_receive() const { return state == IBV_QPS_RTR || state == IBV_QPS_RTS; }
  void receive(const Packet& packet, std::size_t bytes);
  void receive_datagram(const Packet& packet, std::size_t bytes);
  ibv_wc_status receive_write(const Packet& packet, std::size_t bytes);
  void answer(const Header& to, ibv_wc_status status);
  void acknowledge(std::uint64_t message);
  void finish_first(ibv_wc_status status);
  void fail(ibv_wc_status status);

  Device& device_;
  const Socket socket_;
  const ibv_qp_cap limits_;
  const bool all_signalled_;
  std::uint32_t queue_key_ = 0;
  int access_ = 0;
  std::size_t packet_bytes_ = most_payload;
  Receives receives_;  // where there is no shared queue

  std::deque<Request> requests_;  // not acknowledged
  std::uint64_t first_ = 0;       // the number of the first of them
  std::uint64_t next_ = 0;        // of the one to be sent next
  std::uint32_t in_use_ = 0;      // of the send queue
  std::uint32_t unsignalled_ = 0;
  std::deque<Header> answers_;  // to be sent
  bool is_blocked_ = false;     // the network takes no more for now
  std::vector<Device::Write> coming_;
};

}  // namespace fake_verbs
