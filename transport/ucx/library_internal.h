#pragma once

#include <ucp/api/ucp.h>

#include <string>

#pragma GCC visibility push(hidden)

namespace slip::ucx {

/// What is used of libucp. It is loaded when the first transport is made and not linked, so that
/// the program runs where UCX is absent, and so that UCX is told before it starts to leave signals
/// and standard output to the program.
struct Library {
#define SLIP_UCX_FUNCTIONS(X)       \
  X(ucp_am_send_nbx)                \
  X(ucp_cleanup)                    \
  X(ucp_config_read)                \
  X(ucp_config_release)             \
  X(ucp_ep_close_nbx)               \
  X(ucp_ep_create)                  \
  X(ucp_ep_print_info)              \
  X(ucp_ep_rkey_unpack)             \
  X(ucp_get_version_string)         \
  X(ucp_init_version)               \
  X(ucp_mem_map)                    \
  X(ucp_mem_query)                  \
  X(ucp_mem_unmap)                  \
  X(ucp_put_nbx)                    \
  X(ucp_request_check_status)       \
  X(ucp_request_free)               \
  X(ucp_rkey_buffer_release)        \
  X(ucp_rkey_destroy)               \
  X(ucp_rkey_pack)                  \
  X(ucp_rkey_ptr)                   \
  X(ucp_worker_arm)                 \
  X(ucp_worker_create)              \
  X(ucp_worker_destroy)             \
  X(ucp_worker_fence)               \
  X(ucp_worker_get_address)         \
  X(ucp_worker_get_efd)             \
  X(ucp_worker_progress)            \
  X(ucp_worker_release_address)     \
  X(ucp_worker_set_am_recv_handler) \
  X(ucp_worker_signal)              \
  X(ucs_status_string)
#define SLIP_UCX_DECLARE(name) decltype(&::name) name = nullptr;
  SLIP_UCX_FUNCTIONS(SLIP_UCX_DECLARE)
#undef SLIP_UCX_DECLARE

  /// Why it could not be loaded; empty: it is.
  std::string missing;
};

/// Loads it on first use. Never unloaded: UCX has threads and hooks of its own.
const Library& library();

}  // namespace slip::ucx

#pragma GCC visibility pop
