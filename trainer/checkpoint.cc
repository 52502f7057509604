#include "slipstream/trainer/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <string_view>

#include "slipstream/base/error.h"
#include "slipstream/kernels/kernels.h"
#include "slipstream/trainer/files.h"

namespace slip {
namespace {

struct Header {
  static constexpr std::uint64_t expected = 0x736c69702d636b70;  // "slip-ckp"
  static constexpr std::uint32_t this_version = 2;
  std::uint64_t magic = expected;
  std::uint64_t checksum = 0;  // of everything after the header, and the fields below
  std::uint64_t count = 0;
  std::uint64_t iteration = 0;
  std::uint64_t seed = 0;
  std::uint32_t version = this_version;
  std::uint32_t dtype = 0;
  std::uint32_t workers = 0;
  std::uint32_t velocities = 0;  // that follow the parameters
};

constexpr std::uint32_t most_workers = 1U << 20;

/// Could a checkpoint be like this?
bool makes_sense(const Header& header) {
  const std::uint32_t with_momentum = std::max(header.workers, 1U);
  return header.dtype <= static_cast<std::uint32_t>(Dtype::float64) &&
         header.workers <= most_workers &&
         (header.velocities == 0 || header.velocities == with_momentum);
}

std::uint64_t checksum(Header header, std::string_view body) {
  header.checksum = 0;
  const auto bytes = std::as_bytes(std::span(body.data(), body.size()));
  return kernels::checksum(std::as_bytes(std::span(&header, 1))) ^ kernels::checksum(bytes);
}

std::string_view text(const Checkpoint::Vector& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

void write_checkpoint(const Checkpoint& checkpoint, const std::string& path) {
  Header header;
  header.count = checkpoint.count;
  header.iteration = checkpoint.iteration;
  header.seed = checkpoint.seed;
  header.dtype = static_cast<std::uint32_t>(checkpoint.dtype);
  header.workers = static_cast<std::uint32_t>(checkpoint.workers);
  header.velocities = static_cast<std::uint32_t>(checkpoint.velocities.size());
  std::string body(text(checkpoint.parameters));
  for (const Checkpoint::Vector& velocity : checkpoint.velocities) body += text(velocity);
  header.checksum = checksum(header, body);
  std::string file(reinterpret_cast<const char*>(&header), sizeof header);
  write_file(path, file += body);
}

Checkpoint read_checkpoint(const std::string& path) {
  const std::string file = read_file(path);
  const auto damaged = [&](const std::string& what) -> Error {
    return {Code::bad_data, fmt::format("{}: {}; it cannot be resumed from", path, what)};
  };
  Header header;
  if (file.size() < sizeof header) throw damaged("too short for a checkpoint");
  std::memcpy(&header, file.data(), sizeof header);
  if (header.magic != Header::expected) throw damaged("not a checkpoint of slip");
  if (header.version != Header::this_version) {
    throw damaged(fmt::format("a checkpoint of version {}, where this slip reads version {}",
                              header.version, Header::this_version));
  }
  if (!makes_sense(header)) throw damaged("damaged header");
  const std::string_view body = std::string_view(file).substr(sizeof header);
  const auto dtype = static_cast<Dtype>(header.dtype);
  const std::uint64_t vectors = 1ULL + header.velocities;
  if (header.count > body.size() || body.size() % vectors != 0 ||
      body.size() / vectors != header.count * size_of(dtype)) {
    throw damaged("truncated");
  }
  if (header.checksum != checksum(header, body)) throw damaged("damaged (checksum)");
  Checkpoint checkpoint;
  checkpoint.dtype = dtype;
  checkpoint.count = header.count;
  checkpoint.iteration = header.iteration;
  checkpoint.seed = header.seed;
  checkpoint.workers = static_cast<int>(header.workers);
  const std::size_t bytes = header.count * size_of(dtype);
  const auto* next = reinterpret_cast<const std::byte*>(body.data());
  checkpoint.parameters.assign(next, next + bytes);
  for (std::uint32_t i = 0; i < header.velocities; ++i) {
    next += bytes;
    checkpoint.velocities.emplace_back(next, next + bytes);
  }
  return checkpoint;
}

}  // namespace slip
