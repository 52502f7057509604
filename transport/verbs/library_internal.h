#pragma once

#include <infiniband/verbs.h>

#include <string>

// They would name functions of the library that is not linked.
#undef ibv_query_port
#undef ibv_reg_mr

#pragma GCC visibility push(hidden)

namespace slip::verbs {

/// What is used of libibverbs. It is loaded when first asked for and not linked, so that the
/// program runs where it is absent; SLIP_VERBS_LIBRARY names another file. The calls of the hot
/// path (ibv_post_send, ibv_poll_cq and the like) are inline functions of its header that go to the
/// device's driver.
struct Library {
#define SLIP_VERBS_FUNCTIONS(X) \
  X(ibv_ack_cq_events)          \
  X(ibv_alloc_pd)               \
  X(ibv_close_device)           \
  X(ibv_create_ah)              \
  X(ibv_create_comp_channel)    \
  X(ibv_create_cq)              \
  X(ibv_create_qp)              \
  X(ibv_create_srq)             \
  X(ibv_dealloc_pd)             \
  X(ibv_dereg_mr)               \
  X(ibv_destroy_ah)             \
  X(ibv_destroy_comp_channel)   \
  X(ibv_destroy_cq)             \
  X(ibv_destroy_qp)             \
  X(ibv_destroy_srq)            \
  X(ibv_free_device_list)       \
  X(ibv_get_cq_event)           \
  X(ibv_get_device_list)        \
  X(ibv_get_device_name)        \
  X(ibv_modify_qp)              \
  X(ibv_open_device)            \
  X(ibv_query_device)           \
  X(ibv_query_pkey)             \
  X(ibv_reg_mr)                 \
  X(ibv_wc_status_str)          \
  X(_ibv_query_gid_table)
#define SLIP_VERBS_DECLARE(name) decltype(&::name) name = nullptr;
  SLIP_VERBS_FUNCTIONS(SLIP_VERBS_DECLARE)
#undef SLIP_VERBS_DECLARE
  // These may be absent.
  decltype(&::ibv_query_qp_data_in_order) ibv_query_qp_data_in_order = nullptr;
  decltype(&::ibv_reg_dmabuf_mr) ibv_reg_dmabuf_mr = nullptr;

  /// Why it could not be loaded; empty: it is.
  std::string missing;
};

/// Loads it on first use. Never unloaded.
const Library& library();

}  // namespace slip::verbs

#pragma GCC visibility pop
