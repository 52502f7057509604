#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "slipstream.h"
#include "slipstream/base/error.h"
#include "slipstream/c_api/bridge.h"
#include "slipstream/gpu/device.h"
#include "slipstream/kernels/vector.h"
#include "slipstream/runtime/world.h"
#include "slipstream/trainer/graph.h"

#pragma GCC visibility push(hidden)

// What stands behind the handles that several sources of the C API share, and how they read their
// arguments. Throws Error(invalid_argument), which `guarded` turns into a status.

struct slip_world {
  std::optional<slip::World> own;  // empty: of slip_launch
  slip::World* world;
};

struct slip_graph {
  slip::Graph graph;
};

namespace slip::c_api {

/// Of this thread's last call that failed.
Status last_failure();

/// `pointer`, which is not null. `what` is "world", ...
template <class T>
T& given(T* pointer, std::string_view what) {
  if (pointer != nullptr) return *pointer;
  throw Error(Code::invalid_argument, std::string(what) + " is NULL");
}

inline std::string text_or(const char* text, const char* other) {
  return text != nullptr ? text : other;
}

/// The fields of `options` that this library knows, over the defaults that `init` sets; null: these
/// alone. `name` is the struct's.
template <class Struct>
Struct read(const Struct* options, void (*init)(Struct*, std::size_t), std::string_view name) {
  Struct known;
  init(&known, sizeof known);
  if (options == nullptr) return known;
  const std::size_t size = options->size;
  if (size < sizeof size || size > 4096) {
    throw Error(Code::invalid_argument, std::string(name) + ".size is " + std::to_string(size) +
                                            "; fill the struct with " + std::string(name) +
                                            "_init first");
  }
  const auto* bytes = reinterpret_cast<const std::byte*>(options);
  if (std::any_of(bytes + std::min(size, sizeof known), bytes + size,
                  [](std::byte b) { return b != std::byte{0}; })) {
    throw Error(Code::not_supported,
                std::string(name) + " has fields that version " + SLIP_VERSION +
                    " of the library does not know; leave them zero or take a newer library");
  }
  std::memcpy(&known, options, std::min(size, sizeof known));
  return known;
}

/// The other way: as much of `known` as fits the caller's struct, whose rest becomes zero.
template <class Struct>
void write(Struct known, Struct* options, std::size_t size) {
  if (options == nullptr || size < sizeof size) return;
  known.size = size;
  std::memset(static_cast<void*>(options), 0, size);
  std::memcpy(static_cast<void*>(options), &known, std::min(size, sizeof known));
}

/// `name` is the struct's that it is a field of.
inline int device_of(int device, std::string_view name) {
  if (device >= SLIP_HOST) return device == SLIP_HOST ? gpu::host : device - SLIP_GPU(0);
  throw Error(Code::invalid_argument, std::string(name) + ".device is " + std::to_string(device) +
                                          "; allowed are SLIP_HOST and SLIP_GPU(0) and so on");
}

inline Dtype dtype_of(slip_dtype dtype) {
  if (dtype == SLIP_FLOAT32) return Dtype::float32;
  if (dtype == SLIP_FLOAT64) return Dtype::float64;
  throw Error(Code::invalid_argument,
              "dtype is " + std::to_string(dtype) + "; allowed are SLIP_FLOAT32 and SLIP_FLOAT64");
}

}  // namespace slip::c_api

#pragma GCC visibility pop
