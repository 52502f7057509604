#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/iostreams/device/file.hpp>
#include <boost/iostreams/filter/gzip.hpp>
#include <boost/iostreams/filter/lzma.hpp>
#include <boost/iostreams/filtering_streambuf.hpp>
#include <fstream>
#include <ios>
#include <span>
#include <string>
#include <string_view>

#include "slipstream/base/error.h"
#include "slipstream/trainer/tasks/idx_internal.h"

namespace slip {
namespace {

namespace io = boost::iostreams;

constexpr std::uint64_t largest_array = std::uint64_t{1} << 30;
constexpr std::size_t block = std::size_t{1} << 20;
constexpr std::uint8_t type_bytes = 0x08;
constexpr std::string_view gzip_magic("\x1f\x8b", 2);
constexpr std::string_view xz_magic("\xfd\x37zXZ\0", 6);

[[noreturn]] void refuse(const std::filesystem::path& file, std::string_view why) {
  throw Error(Code::bad_data, fmt::format("{}: {}", file.string(), why));
}

/// The unpacked bytes of a plain, gzip or xz file.
class Unpacked {
 public:
  explicit Unpacked(const std::filesystem::path& file) : file_(file) {
    std::ifstream probe(file, std::ios::binary);
    if (!probe) throw_errno(file.string());
    std::string start(6, '\0');
    probe.read(start.data(), static_cast<std::streamsize>(start.size()));
    if (start.starts_with(gzip_magic)) {
      stream_.push(io::gzip_decompressor());
    } else if (start.starts_with(xz_magic)) {
      stream_.push(io::lzma_decompressor());
    }
    stream_.push(io::file_source(file.string(), std::ios::binary));
  }

  /// Fills `out` as far as the file reaches.
  std::size_t read(std::span<std::uint8_t> out) {
    try {
      return static_cast<std::size_t>(stream_.sgetn(reinterpret_cast<char*>(out.data()),
                                                    static_cast<std::streamsize>(out.size())));
    } catch (const std::ios_base::failure& error) {
      refuse(file_, fmt::format("the compressed data are damaged ({}); fetch the file again",
                                error.what()));
    }
  }

 private:
  std::filesystem::path file_;
  io::filtering_streambuf<io::input> stream_;
};

std::uint32_t big_endian(std::span<const std::uint8_t, 4> b) {
  return std::uint32_t{b[0]} << 24 | std::uint32_t{b[1]} << 16 | std::uint32_t{b[2]} << 8 | b[3];
}

}  // namespace

IdxArray read_idx(const std::filesystem::path& file, std::uint8_t dimensions) {
  Unpacked unpacked(file);
  std::array<std::uint8_t, 4> word{};
  if (unpacked.read(word) < word.size()) refuse(file, "truncated: no IDX header");
  const std::uint32_t magic = big_endian(word);
  const std::uint32_t expected = std::uint32_t{type_bytes} << 8 | dimensions;
  if (magic != expected) {
    refuse(file, fmt::format("its magic number is {}, not {} (IDX, bytes, {} dimension{})", magic,
                             expected, dimensions, dimensions == 1 ? "" : "s"));
  }

  IdxArray array;
  std::uint64_t total = 1;
  for (int i = 0; i < dimensions; ++i) {
    if (unpacked.read(word) < word.size()) refuse(file, "truncated inside the IDX header");
    array.sizes.push_back(big_endian(word));
    total *= array.sizes.back();
    if (total > largest_array) {
      refuse(file, fmt::format("its header claims more than {} bytes, the most that is read",
                               largest_array));
    }
  }

  while (array.bytes.size() < total) {
    const std::size_t before = array.bytes.size();
    const auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(block, total - before));
    array.bytes.resize(before + wanted);
    const std::size_t got = unpacked.read(std::span(array.bytes).subspan(before));
    if (got < wanted) {
      refuse(file, fmt::format("truncated: its header claims {} bytes, it holds {}", total,
                               before + got));
    }
  }
  // Reading on to the end also makes the decompressor check its checksum.
  if (unpacked.read(std::span(word).first(1)) != 0) {
    refuse(file, fmt::format("it holds more than the {} bytes that its header claims", total));
  }
  return array;
}

}  // namespace slip
