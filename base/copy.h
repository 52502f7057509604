#pragma once

#include <cstddef>

namespace slip {

/// memcpy for payloads on their way between workers; `to` may also be `from`, and both may be null
/// where there are no bytes. The C library copies some kilobytes by a string instruction, which on
/// common processors takes four times as long if the addresses differ in their last five bits, as
/// those of the caller's memory and of ours mostly do.
void copy_bytes(void* to, const void* from, std::size_t bytes);

}  // namespace slip
