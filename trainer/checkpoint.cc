#include "slipstream/trainer/checkpoint.h"

#include <fmt/format.h>

#include <cstring>
#include <span>
#include <string_view>

#include "slipstream/base/error.h"
#include "slipstream/kernels/kernels.h"
#include "slipstream/trainer/files.h"

namespace slip {
namespace {

struct Header {
  static constexpr std::uint64_t expected = 0x736c69702d636b31;  // "slip-ck1"
  std::uint64_t magic = expected;
  std::uint64_t checksum = 0;  // of everything after the header, and the fields below
  std::uint64_t count = 0;
  std::uint64_t iteration = 0;
  std::uint64_t seed = 0;
  std::uint32_t dtype = 0;
  std::uint32_t vectors = 0;  // 1: parameters; 2: and velocity
};

std::uint64_t checksum(Header header, std::string_view body) {
  header.checksum = 0;
  const auto bytes = std::as_bytes(std::span(body.data(), body.size()));
  return kernels::checksum(std::as_bytes(std::span(&header, 1))) ^ kernels::checksum(bytes);
}

std::string_view text(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

void write_checkpoint(const Checkpoint& checkpoint, const std::string& path) {
  Header header;
  header.count = checkpoint.count;
  header.iteration = checkpoint.iteration;
  header.seed = checkpoint.seed;
  header.dtype = static_cast<std::uint32_t>(checkpoint.dtype);
  header.vectors = checkpoint.velocity.empty() ? 1 : 2;
  std::string body(text(checkpoint.parameters));
  body += text(checkpoint.velocity);
  header.checksum = checksum(header, body);
  std::string file(reinterpret_cast<const char*>(&header), sizeof header);
  write_file(path, file += body);
}

Checkpoint read_checkpoint(const std::string& path) {
  const std::string file = read_file(path);
  const auto damaged = [&](const char* what) -> Error {
    return {Code::bad_data, fmt::format("{}: {}; it cannot be resumed from", path, what)};
  };
  Header header;
  if (file.size() < sizeof header) throw damaged("too short for a checkpoint");
  std::memcpy(&header, file.data(), sizeof header);
  if (header.magic != Header::expected) throw damaged("not a checkpoint of slip");
  if (header.dtype > static_cast<std::uint32_t>(Dtype::float64) || header.vectors < 1 ||
      header.vectors > 2) {
    throw damaged("damaged header");
  }
  const std::string_view body = std::string_view(file).substr(sizeof header);
  const auto dtype = static_cast<Dtype>(header.dtype);
  if (header.count > body.size() || body.size() != header.vectors * header.count * size_of(dtype)) {
    throw damaged("truncated");
  }
  if (header.checksum != checksum(header, body)) throw damaged("damaged (checksum)");
  Checkpoint checkpoint{dtype, header.count, header.iteration, header.seed, {}, {}};
  const std::size_t bytes = header.count * size_of(dtype);
  const auto* data = reinterpret_cast<const std::byte*>(body.data());
  checkpoint.parameters.assign(data, data + bytes);
  checkpoint.velocity.assign(data + bytes, data + body.size());
  return checkpoint;
}

}  // namespace slip
