#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "slipstream/trainer/tasks/unpacked_file_internal.h"

namespace slip {

/// The lines of a text file, plain, gzip or xz, one after the other. Throws as UnpackedFile does.
class Lines {
 public:
  explicit Lines(const std::filesystem::path& path) : path_(path), file_(path) {}

  /// False at the end. `line` is valid until the next call.
  bool next(std::string_view& line);

  /// About the line at hand: FILE:LINE: WHY.
  [[noreturn]] void refuse(std::string_view why) const;

 private:
  std::filesystem::path path_;
  UnpackedFile file_;
  std::string text_;    // read but not yet passed on, from at_
  std::size_t at_ = 0;  // the next line
  std::size_t number_ = 0;
  bool ended_ = false;
};

/// What stands in a message for a word of a file.
std::string quoted(std::string_view word);

/// The next word of `line`, which becomes the rest; empty at its end.
std::string_view take_word(std::string_view& line);

/// All of `text` as a finite number, a plus in front allowed.
std::optional<double> number(std::string_view text);

}  // namespace slip
