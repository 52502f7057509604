#include "slipstream/transport/mixed_transport.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>

namespace slip {

MixedTransport::MixedTransport(std::unique_ptr<Transport> near,
                               std::unique_ptr<NetworkTransport> far,
                               std::function<bool(int peer)> is_near)
    : name_(fmt::format("{}+{}", near->name(), far->name())),
      near_(std::move(near)),
      far_(std::move(far)),
      is_near_(std::move(is_near)) {
  poll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  if (poll_fd_ < 0) throw_errno("cannot watch two transports");
  for (const int fd : {near_->progress_fd(), far_->progress_fd()}) {
    epoll_event event{};
    event.events = EPOLLIN;
    if (epoll_ctl(poll_fd_, EPOLL_CTL_ADD, fd, &event) != 0) {
      throw_errno("cannot watch a transport");
    }
  }
}

MixedTransport::~MixedTransport() { close(poll_fd_); }

/// The length of the first key, and both.
Region MixedTransport::allocate(std::size_t bytes, Bell bell, int device) {
  const Region near = near_->allocate(bytes, bell, device);
  const Region far = far_->share(near, bell);
  const auto length = static_cast<std::uint32_t>(near.key().size());
  std::string key(reinterpret_cast<const char*>(&length), sizeof length);
  key += near.key() + far.key();
  return {near.device(),
          {std::make_shared<Region>(far), near.data()},
          near.words(),
          near.bytes(),
          std::move(key)};
}

RemoteRegion MixedTransport::attach(int peer, std::string_view key) {
  std::uint32_t length = 0;
  if (key.size() >= sizeof length) std::memcpy(&length, key.data(), sizeof length);
  if (key.size() < sizeof length || key.size() - sizeof length < length) {
    throw Error(Code::bad_data, fmt::format("rank {} published a damaged region key", peer), peer);
  }
  key.remove_prefix(sizeof length);
  return is_near_(peer) ? near_->attach(peer, key.substr(0, length))
                        : far_->attach(peer, key.substr(length));
}

void MixedTransport::arm() {
  near_->arm();
  far_->arm();
}

void MixedTransport::progress() {
  near_->progress();
  far_->progress();
}

}  // namespace slip
