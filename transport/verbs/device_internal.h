#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "slipstream/base/error.h"
#include "slipstream/base/time.h"
#include "slipstream/transport/verbs/library_internal.h"
#include "slipstream/transport/verbs/port_internal.h"

#pragma GCC visibility push(hidden)

namespace slip::verbs {

/// Owns what one of libibverbs' functions has made.
template <class Object, auto Library::*destroy>
struct Destroy {
  void operator()(Object* object) const { (library().*destroy)(object); }
};
template <class Object, auto Library::*destroy>
using Owned = std::unique_ptr<Object, Destroy<Object, destroy>>;

using Context = Owned<ibv_context, &Library::ibv_close_device>;
using Domain = Owned<ibv_pd, &Library::ibv_dealloc_pd>;
using CompletionChannel = Owned<ibv_comp_channel, &Library::ibv_destroy_comp_channel>;
using CompletionQueue = Owned<ibv_cq, &Library::ibv_destroy_cq>;
using ReceiveQueue = Owned<ibv_srq, &Library::ibv_destroy_srq>;
using QueuePair = Owned<ibv_qp, &Library::ibv_destroy_qp>;
using AddressHandle = Owned<ibv_ah, &Library::ibv_destroy_ah>;
using Registration = Owned<ibv_mr, &Library::ibv_dereg_mr>;

/// Every port of every device here. Throws Error where libibverbs is absent.
std::vector<Port> list_ports();

/// A device that is open, with what its queue pairs share.
class Device {
 public:
  /// Throws Error.
  Device(const VerbsSettings& settings, const std::function<std::string()>& nearest);

  const Choice& choice() const { return choice_; }
  ibv_context* context() const { return context_.get(); }
  ibv_pd* domain() const { return domain_.get(); }
  const ibv_device_attr& limits() const { return limits_; }

  /// So that peers may write it. Throws Error that says what to do about locked memory.
  Registration register_memory(void* memory, std::size_t bytes) const;
  /// Null where it cannot be registered.
  Registration try_register(void* memory, std::size_t bytes) const;

  /// To `there`, for a queue pair or an address handle.
  ibv_ah_attr route_to(const Place& there) const;

 private:
  Choice choice_;
  Context context_;
  Domain domain_;
  ibv_device_attr limits_{};
};

/// "256" -> IBV_MTU_256, and back.
ibv_mtu mtu_code(int bytes);
int mtu_bytes(ibv_mtu code);

/// Error(io): "verbs: WHAT: why" by errno.
[[noreturn]] void throw_verbs(const Choice& choice, const std::string& what, int error);

}  // namespace slip::verbs

#pragma GCC visibility pop
