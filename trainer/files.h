#pragma once

#include <string>
#include <string_view>

namespace slip {

/// Replaces the file at once (a temporary beside it, then a rename), so that a reader sees the old
/// content or the new and never half of it. Links, pipes and devices are written in place. Throws
/// Error(io or out_of_memory) that names the file, and leaves nothing behind.
void write_file(const std::string& path, std::string_view content);

/// The whole file. Throws Error(not_found or io) that names the file.
std::string read_file(const std::string& path);

}  // namespace slip
