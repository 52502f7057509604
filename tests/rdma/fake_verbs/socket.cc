#include "socket.h"

#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <random>

#include "settings.h"

namespace fake_verbs {
namespace {

struct Name {
  Name(const Gid& gid, std::uint32_t number) {
    constexpr char prefix[] = "\0fake_verbs";  // no file's
    char* at = address.sun_path;
    std::memcpy(at, prefix, sizeof prefix);
    std::memcpy(at += sizeof prefix, gid.data(), gid.size());
    std::memcpy(at += gid.size(), &number, sizeof number);
    bytes = static_cast<socklen_t>(at + sizeof number - reinterpret_cast<char*>(&address));
  }
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&address); }

  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  socklen_t bytes = 0;
};

std::array<iovec, 2> parts_of(const Header& header, const void* payload, std::size_t bytes) {
  return {iovec{const_cast<Header*>(&header), sizeof header},
          iovec{const_cast<void*>(payload), bytes}};
}

}  // namespace

Socket::Socket(const Gid& gid)
    : fd_(socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) {
  if (fd_ < 0) die("no more sockets");
  std::random_device random;
  int failed = 0;
  do {
    number_ = random() & 0xffffff;
    Name name(gid, number_);
    failed = bind(fd_, name.get(), name.bytes);
  } while (failed != 0 && errno == EADDRINUSE);
  if (failed != 0) die("cannot name a socket");
}

Socket::~Socket() { close(fd_); }

void Socket::connect(const Gid& gid, std::uint32_t number) const {
  Name name(gid, number);
  (void)::connect(fd_, name.get(), name.bytes);  // that nobody is there is found by `send`
}

Socket::Sent Socket::send(const Header& header, const std::byte* payload, std::size_t bytes) const {
  auto parts = parts_of(header, payload, bytes);
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  if (sendmsg(fd_, &message, MSG_NOSIGNAL) >= 0) return Sent::yes;
  return errno == EAGAIN || errno == ENOBUFS ? Sent::later : Sent::nobody_there;
}

void Socket::send_to(const Gid& gid, std::uint32_t number, const Header& header,
                     const void* payload, std::size_t bytes) const {
  Name name(gid, number);
  auto parts = parts_of(header, payload, bytes);
  msghdr message{};
  message.msg_name = name.get();
  message.msg_namelen = name.bytes;
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  (void)sendmsg(fd_, &message, MSG_NOSIGNAL);
}

std::ptrdiff_t Socket::receive(Packet* packet) const {
  std::array<iovec, 2> parts = {iovec{&packet->header, sizeof packet->header},
                                iovec{packet->payload.data(), packet->payload.size()}};
  const ssize_t got = readv(fd_, parts.data(), static_cast<int>(parts.size()));
  return got - static_cast<ssize_t>(sizeof packet->header);
}

}  // namespace fake_verbs
