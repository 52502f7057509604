#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace fake_verbs {

using Gid = std::array<std::uint8_t, 16>;

constexpr std::size_t most_payload = 4096;

/// What stands before the payload of a packet.
struct Header {
  enum class Kind : std::uint32_t { write, datagram, ack, refusal };
  Kind kind = Kind::write;
  std::uint32_t from = 0;     // the sender's queue pair
  std::uint64_t message = 0;  // whose part it is, or what is answered
  std::uint64_t to = 0;       // write: where
  std::uint32_t key = 0;      // write: of the memory; datagram: of the queue
  std::uint32_t immediate = 0;
  std::uint32_t status = 0;  // refusal: how the work ends
  bool is_last = false;      // of its message
  bool has_immediate = false;
  bool is_solicited = false;
};

/// A packet as it is received.
struct Packet {
  Header header;
  std::array<std::byte, most_payload> payload;
};

/// A queue pair in the network of this host: a socket whose name is the pair's number and its
/// device's GID. So numbers are a host's, as those of a device are.
class Socket {
 public:
  explicit Socket(const Gid& gid);
  ~Socket();
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  int fd() const { return fd_; }
  std::uint32_t number() const { return number_; }

  /// From now on `send` goes there, and only what that one sends is received.
  void connect(const Gid& gid, std::uint32_t number) const;

  enum class Sent { yes, later, nobody_there };
  Sent send(const Header& header, const std::byte* payload, std::size_t bytes) const;
  /// Without a connection; it may be lost.
  void send_to(const Gid& gid, std::uint32_t number, const Header& header, const void* payload,
               std::size_t bytes) const;
  /// How many bytes of payload there are in the packet; negative: there is none.
  std::ptrdiff_t receive(Packet* packet) const;

 private:
  int fd_;
  std::uint32_t number_ = 0;
};

}  // namespace fake_verbs
