#pragma once

#include <cstdlib>

/// How the stand-ins for drivers and devices (fake_cuda, fake_nccl, fake_verbs) are told what to
/// do.
namespace slip::testing {

/// `*value` becomes the number in that variable of the environment, if it is set.
template <class T>
void read_setting(const char* name, T* value) {
  if (const char* text = std::getenv(name)) {
    *value = static_cast<T>(std::strtoull(text, nullptr, 10));
  }
}

}  // namespace slip::testing
