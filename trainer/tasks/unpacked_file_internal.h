#pragma once

#include <boost/iostreams/filtering_streambuf.hpp>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace slip {

/// Throws Error(bad_data): "FILE: WHY".
[[noreturn]] void refuse_file(const std::filesystem::path& file, std::string_view why);

/// `folder/name`, or with the ending .gz or .xz. Throws Error(not_found), which says that the
/// folder with `what` is to be named.
std::filesystem::path find_packed(const std::filesystem::path& folder, const std::string& name,
                                  std::string_view what);

/// The unpacked bytes of a plain, gzip or xz file, told apart by its first bytes.
class UnpackedFile {
 public:
  /// Throws Error: not_found, or io where it cannot be opened.
  explicit UnpackedFile(const std::filesystem::path& file);

  /// Fills `out` as far as the file reaches; less than all is its end, where checksums have been
  /// checked. Throws Error(bad_data) where it is truncated or damaged.
  std::size_t read(std::span<std::uint8_t> out);

 private:
  std::filesystem::path file_;
  boost::iostreams::filtering_streambuf<boost::iostreams::input> stream_;
};

}  // namespace slip
