#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>

#include "slipstream/trainer/tasks/idx_internal.h"
#include "slipstream/trainer/tasks/unpacked_file_internal.h"

namespace slip {
namespace {

constexpr std::uint64_t largest_array = std::uint64_t{1} << 30;
constexpr std::size_t block = std::size_t{1} << 20;
constexpr std::uint8_t type_bytes = 0x08;

std::uint32_t big_endian(std::span<const std::uint8_t, 4> b) {
  return std::uint32_t{b[0]} << 24 | std::uint32_t{b[1]} << 16 | std::uint32_t{b[2]} << 8 | b[3];
}

}  // namespace

IdxArray read_idx(const std::filesystem::path& file, std::uint8_t dimensions) {
  UnpackedFile unpacked(file);
  std::array<std::uint8_t, 4> word{};
  if (unpacked.read(word) < word.size()) refuse_file(file, "truncated: no IDX header");
  const std::uint32_t magic = big_endian(word);
  const std::uint32_t expected = std::uint32_t{type_bytes} << 8 | dimensions;
  if (magic != expected) {
    refuse_file(file, fmt::format("its magic number is {}, not {} (IDX, bytes, {} dimension{})",
                                  magic, expected, dimensions, dimensions == 1 ? "" : "s"));
  }

  IdxArray array;
  std::uint64_t total = 1;
  for (int i = 0; i < dimensions; ++i) {
    if (unpacked.read(word) < word.size()) refuse_file(file, "truncated inside the IDX header");
    array.sizes.push_back(big_endian(word));
    total *= array.sizes.back();
    if (total > largest_array) {
      refuse_file(file, fmt::format("its header claims more than {} bytes, the most that is read",
                                    largest_array));
    }
  }

  while (array.bytes.size() < total) {
    const std::size_t before = array.bytes.size();
    const auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(block, total - before));
    array.bytes.resize(before + wanted);
    const std::size_t got = unpacked.read(std::span(array.bytes).subspan(before));
    if (got < wanted) {
      refuse_file(file, fmt::format("truncated: its header claims {} bytes, it holds {}", total,
                                    before + got));
    }
  }
  // Reading on to the end also makes the decompressor check its checksum.
  if (unpacked.read(std::span(word).first(1)) != 0) {
    refuse_file(file, fmt::format("it holds more than the {} bytes that its header claims", total));
  }
  return array;
}

}  // namespace slip
