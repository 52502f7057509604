#include "slipstream/transport/ucx/message_internal.h"

#include <fmt/format.h>

#include <cstring>

#include "slipstream/base/error.h"

namespace slip::ucx {
namespace {

struct Head {
  static constexpr std::uint64_t expected = 0x736c69702d756379;  // "slip-ucy"
  std::uint64_t magic = expected;
  std::uint64_t region;
  std::uint64_t address;
  std::uint64_t bytes;
  std::uint64_t life;
  std::uint64_t doorbell;
  std::uint16_t bell;
  std::uint16_t rkey_bytes;
  std::uint16_t doorbell_bytes;
  std::uint16_t worker_bytes;
};
static_assert(sizeof(Head) == 56);

std::uint16_t length_of(const std::string& part) {
  if (part.size() > 0xffff) {
    throw Error(Code::not_supported, "UCX: a key or an address of more than 64 KiB");
  }
  return static_cast<std::uint16_t>(part.size());
}

}  // namespace

std::string pack(const RegionKey& key) {
  Head head{};
  head.magic = Head::expected;
  head.region = key.region;
  head.address = key.address;
  head.bytes = key.bytes;
  head.life = key.life;
  head.doorbell = key.doorbell;
  head.bell = static_cast<std::uint16_t>(key.bell);
  head.rkey_bytes = length_of(key.rkey);
  head.doorbell_bytes = length_of(key.doorbell_rkey);
  head.worker_bytes = length_of(key.address_of_worker);
  return std::string(reinterpret_cast<const char*>(&head), sizeof head) + key.rkey +
         key.doorbell_rkey + key.address_of_worker;
}

RegionKey unpack(std::string_view text, int peer) {
  Head head{};
  if (text.size() >= sizeof head) std::memcpy(&head, text.data(), sizeof head);
  const auto bell = static_cast<Bell>(head.bell);
  if (head.magic != Head::expected || head.rkey_bytes == 0 || head.worker_bytes == 0 ||
      text.size() != sizeof head + head.rkey_bytes + head.doorbell_bytes + head.worker_bytes ||
      head.bytes == 0 || head.address + head.bytes < head.address ||
      (bell != Bell::worker && bell != Bell::progress)) {
    throw Error(Code::bad_data, fmt::format("rank {} published a damaged region key", peer), peer);
  }
  text.remove_prefix(sizeof head);
  const auto next = [&text](std::size_t bytes) {
    const std::string part(text.substr(0, bytes));
    text.remove_prefix(bytes);
    return part;
  };
  RegionKey key{head.region, head.address, head.bytes, bell, head.life, head.doorbell, {}, {}, {}};
  key.rkey = next(head.rkey_bytes);
  key.doorbell_rkey = next(head.doorbell_bytes);
  key.address_of_worker = next(head.worker_bytes);
  return key;
}

}  // namespace slip::ucx
