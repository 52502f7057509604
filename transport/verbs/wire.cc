#include <fmt/format.h>

#include <cstring>

#include "slipstream/base/error.h"
#include "slipstream/transport/verbs/wire_internal.h"

namespace slip::verbs {

std::string pack(const RegionKey& key) { return {reinterpret_cast<const char*>(&key), sizeof key}; }

RegionKey unpack(std::string_view text, int peer) {
  constexpr std::size_t head = offsetof(RegionKey, bell);
  RegionKey key;
  key.magic = 0;
  if (text.size() >= head) std::memcpy(static_cast<void*>(&key), text.data(), head);
  if (key.magic == RegionKey::expected && key.version != wire_version) {
    throw Error(Code::peer_mismatch,
                fmt::format("verbs: rank {} speaks wire version {} and this worker version {}: "
                            "install the same Slipstream everywhere",
                            peer, key.version, wire_version),
                peer);
  }
  if (text.size() == sizeof key) std::memcpy(static_cast<void*>(&key), text.data(), sizeof key);
  const bool has_link = key.owner.link == Link::infiniband || key.owner.link == Link::ethernet;
  if (text.size() != sizeof key || key.magic != RegionKey::expected || key.bytes == 0 ||
      key.address + key.bytes < key.address || !has_link ||
      (key.bell != Bell::worker && key.bell != Bell::progress)) {
    throw Error(Code::bad_data, fmt::format("rank {} published a damaged region key", peer), peer);
  }
  return key;
}

}  // namespace slip::verbs
