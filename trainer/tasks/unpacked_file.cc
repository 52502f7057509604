#include <fmt/format.h>

#include <boost/iostreams/device/file.hpp>
#include <boost/iostreams/filter/gzip.hpp>
#include <boost/iostreams/filter/lzma.hpp>
#include <cerrno>
#include <fstream>
#include <ios>
#include <string>

#include "slipstream/base/error.h"
#include "slipstream/trainer/tasks/unpacked_file_internal.h"

namespace slip {
namespace {

namespace fs = std::filesystem;
namespace io = boost::iostreams;

constexpr std::string_view gzip_magic("\x1f\x8b", 2);
constexpr std::string_view xz_magic("\xfd\x37zXZ\0", 6);

}  // namespace

void refuse_file(const fs::path& file, std::string_view why) {
  throw Error(Code::bad_data, fmt::format("{}: {}", file.string(), why));
}

fs::path find_packed(const fs::path& folder, const std::string& name, std::string_view what) {
  for (const char* ending : {"", ".gz", ".xz"}) {
    const fs::path file = folder / (name + ending);
    std::error_code ignored;
    if (fs::is_regular_file(file, ignored)) return file;
  }
  throw Error(Code::not_found, fmt::format("{}: no {}, .gz or .xz here; name the folder with {}",
                                           folder.string(), name, what));
}

UnpackedFile::UnpackedFile(const fs::path& file) : file_(file) {
  std::ifstream probe(file, std::ios::binary);
  if (!probe) {
    if (errno == ENOENT) {
      throw Error(Code::not_found, fmt::format("{}: no such file", file.string()));
    }
    throw_errno(file.string());
  }
  std::error_code ignored;
  if (fs::is_directory(file, ignored)) refuse_file(file, "it is a folder and no file");
  std::string start(6, '\0');
  probe.read(start.data(), static_cast<std::streamsize>(start.size()));
  if (start.starts_with(gzip_magic)) {
    stream_.push(io::gzip_decompressor());
  } else if (start.starts_with(xz_magic)) {
    stream_.push(io::lzma_decompressor());
  }
  stream_.push(io::file_source(file.string(), std::ios::binary));
}

std::size_t UnpackedFile::read(std::span<std::uint8_t> out) {
  try {
    return static_cast<std::size_t>(stream_.sgetn(reinterpret_cast<char*>(out.data()),
                                                  static_cast<std::streamsize>(out.size())));
  } catch (const std::ios_base::failure& error) {
    refuse_file(file_, fmt::format("the compressed data are damaged ({}); fetch the file again",
                                   error.what()));
  }
}

}  // namespace slip
