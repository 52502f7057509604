#include "slipstream/transport/ucx/message_internal.h"

#include <fmt/format.h>

#include <cstring>

#include "slipstream/base/error.h"

namespace slip::ucx {
namespace {

struct Head {
  static constexpr std::uint64_t expected = 0x736c69702d756378;  // "slip-ucx"
  std::uint64_t magic = expected;
  std::uint64_t region;
  std::uint64_t address;
  std::uint64_t bytes;
  std::uint16_t bell;
  std::uint16_t has_landing;
  std::uint16_t rkey_bytes;
  std::uint16_t worker_bytes;
};
static_assert(sizeof(Head) == 40);

}  // namespace

std::string pack(const RegionKey& key) {
  Head head{};
  head.magic = Head::expected;
  head.region = key.region;
  head.address = key.address;
  head.bytes = key.bytes;
  head.bell = static_cast<std::uint16_t>(key.bell);
  head.has_landing = key.has_landing ? 1 : 0;
  head.rkey_bytes = static_cast<std::uint16_t>(key.rkey.size());
  head.worker_bytes = static_cast<std::uint16_t>(key.address_of_worker.size());
  if (head.rkey_bytes != key.rkey.size() || head.worker_bytes != key.address_of_worker.size()) {
    throw Error(Code::not_supported, "UCX: a key or an address of more than 64 KiB");
  }
  return std::string(reinterpret_cast<const char*>(&head), sizeof head) + key.rkey +
         key.address_of_worker;
}

RegionKey unpack(std::string_view text, int peer) {
  Head head{};
  if (text.size() >= sizeof head) std::memcpy(&head, text.data(), sizeof head);
  const auto bell = static_cast<Bell>(head.bell);
  if (head.magic != Head::expected || head.rkey_bytes == 0 || head.worker_bytes == 0 ||
      text.size() != sizeof head + head.rkey_bytes + head.worker_bytes || head.bytes == 0 ||
      head.address + head.bytes < head.address ||
      (bell != Bell::worker && bell != Bell::progress)) {
    throw Error(Code::bad_data, fmt::format("rank {} published a damaged region key", peer), peer);
  }
  return {head.region,
          head.address,
          head.bytes,
          bell,
          head.has_landing != 0,
          std::string(text.substr(sizeof head, head.rkey_bytes)),
          std::string(text.substr(sizeof head + head.rkey_bytes))};
}

}  // namespace slip::ucx
