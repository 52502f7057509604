#include <infiniband/verbs.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "device.h"
#include "memory.h"
#include "pair.h"
#include "queues.h"
#include "settings.h"

// The functions of libibverbs, each as its manual page says, for as much of it as is used.

using namespace fake_verbs;

namespace {

std::lock_guard<std::mutex> locked(ibv_context* context) {
  return std::lock_guard(Device::of(context).mutex);
}

// ---- What is called through the context.

int query_port(ibv_context*, std::uint8_t number, ibv_port_attr* attributes, std::size_t) {
  if (number != 1) return EINVAL;
  *attributes = {};
  attributes->state = IBV_PORT_ACTIVE;
  attributes->max_mtu = attributes->active_mtu = IBV_MTU_4096;
  attributes->gid_tbl_len = attributes->pkey_tbl_len = 1;
  attributes->link_layer = IBV_LINK_LAYER_ETHERNET;
  return 0;
}

int poll_cq(ibv_cq* queue, int most, ibv_wc* completions) {
  Device& device = Device::of(queue->context);
  auto& entries = static_cast<CompletionQueue*>(queue)->entries;
  const std::lock_guard lock(device.mutex);
  int count = 0;
  for (; count < most && !entries.empty(); ++count) {
    const CompletionQueue::Entry& entry = entries.front();
    completions[count] = entry.completion;
    const auto pair = device.pairs.find(entry.completion.qp_num);
    if (pair != device.pairs.end()) pair->second->release(entry.released);
    entries.pop_front();
  }
  return count;
}

int req_notify_cq(ibv_cq* queue, int solicited_only) {
  const auto lock = locked(queue->context);
  using Armed = CompletionQueue::Armed;
  static_cast<CompletionQueue*>(queue)->armed =
      solicited_only != 0 ? Armed::for_solicited : Armed::for_any;
  return 0;
}

int post_send(ibv_qp* pair, ibv_send_wr* works, ibv_send_wr** bad) {
  const auto lock = locked(pair->context);
  return static_cast<Pair*>(pair)->post(works, bad);
}

int post_recv(ibv_qp* pair, ibv_recv_wr* works, ibv_recv_wr** bad) {
  const auto lock = locked(pair->context);
  return static_cast<Pair*>(pair)->own_receives().post(works, bad);
}

int post_srq_recv(ibv_srq* queue, ibv_recv_wr* works, ibv_recv_wr** bad) {
  const auto lock = locked(queue->context);
  return static_cast<SharedReceives*>(queue)->receives.post(works, bad);
}

ibv_mr* add_memory(ibv_pd* domain, Memory* memory) {
  if (memory == nullptr) return nullptr;
  const auto lock = locked(domain->context);
  Device::of(domain->context).memories[memory->lkey] = memory;
  return memory;
}

}  // namespace

extern "C" {

// ---- Devices.

ibv_device** ibv_get_device_list(int* count) {
  static std::array<ibv_device, 8> devices = [] {
    std::array<ibv_device, 8> all{};
    int number = 0;
    for (ibv_device& one : all) std::snprintf(one.name, sizeof one.name, "rxe%d", number++);
    return all;
  }();
  *count = std::min<int>(read_settings().devices, devices.size());
  auto** const list = new ibv_device*[devices.size() + 1]();
  for (int i = 0; i < *count; ++i) list[i] = &devices[static_cast<std::size_t>(i)];
  return list;
}

void ibv_free_device_list(ibv_device** list) { delete[] list; }

const char* ibv_get_device_name(ibv_device* device) { return device->name; }

ibv_context* ibv_open_device(ibv_device* of) {
  auto* const device = new Device(of);
  device->query_port = &query_port;
  ibv_context& context = device->context;
  context.ops.poll_cq = &poll_cq;
  context.ops.req_notify_cq = &req_notify_cq;
  context.ops.post_send = &post_send;
  context.ops.post_recv = &post_recv;
  context.ops.post_srq_recv = &post_srq_recv;
  return &context;
}

int ibv_close_device(ibv_context* context) {
  delete &Device::of(context);
  return 0;
}

int ibv_query_device(ibv_context*, ibv_device_attr* attributes) {
  *attributes = {};
  attributes->phys_port_cnt = 1;
  attributes->max_cqe = most_completions;
  attributes->max_srq_wr = most_receives;
  return 0;
}

int ibv_query_pkey(ibv_context*, std::uint8_t, int index, __be16* pkey) {
  *pkey = 0xffff;
  return index == 0 ? 0 : -1;
}

ssize_t _ibv_query_gid_table(ibv_context* context, ibv_gid_entry* entries, std::size_t most,
                             std::uint32_t, std::size_t) {
  if (most == 0) return -EINVAL;
  entries[0] = {};
  const Gid& gid = Device::of(context).gid();
  std::memcpy(entries[0].gid.raw, gid.data(), gid.size());
  entries[0].port_num = 1;
  entries[0].gid_type = IBV_GID_TYPE_ROCE_V2;
  return 1;
}

const char* ibv_wc_status_str(ibv_wc_status status) {
  return status == IBV_WC_WR_FLUSH_ERR ? "Work Request Flushed Error" : "an error";
}

// ---- Memory.

ibv_pd* ibv_alloc_pd(ibv_context* context) { return new ibv_pd{context, 0}; }

int ibv_dealloc_pd(ibv_pd* domain) {
  delete domain;
  return 0;
}

#undef ibv_reg_mr
ibv_mr* ibv_reg_mr(ibv_pd* domain, void* address, std::size_t bytes, int access) {
  return add_memory(domain, register_memory(domain, address, bytes, access));
}

ibv_mr* ibv_reg_dmabuf_mr(ibv_pd* domain, std::uint64_t offset, std::size_t bytes,
                          std::uint64_t first, int fd, int access) {
  return add_memory(domain, register_dma_buf(domain, offset, bytes, first, fd, access));
}

int ibv_dereg_mr(ibv_mr* memory) {
  {
    const auto lock = locked(memory->context);
    Device::of(memory->context).memories.erase(memory->lkey);
  }
  deregister(static_cast<Memory*>(memory));
  return 0;
}

// ---- Completions.

ibv_comp_channel* ibv_create_comp_channel(ibv_context* context) {
  auto* const channel = new CompletionChannel;
  channel->context = context;
  channel->fd = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
  return channel;
}

int ibv_destroy_comp_channel(ibv_comp_channel* channel) {
  close(channel->fd);
  delete static_cast<CompletionChannel*>(channel);
  return 0;
}

ibv_cq* ibv_create_cq(ibv_context* context, int entries, void* for_events,
                      ibv_comp_channel* channel, int) {
  if (entries > most_completions) {
    errno = EINVAL;
    return nullptr;
  }
  auto* const queue = new CompletionQueue;
  queue->context = context;
  queue->channel = channel;
  queue->cq_context = for_events;
  queue->cqe = entries;
  return queue;
}

int ibv_destroy_cq(ibv_cq* queue) {
  auto* const mine = static_cast<CompletionQueue*>(queue);
  if (mine->unacknowledged > 0)
    die("a completion queue with events not acknowledged was destroyed");
  std::erase(static_cast<CompletionChannel*>(queue->channel)->events, mine);
  delete mine;
  return 0;
}

int ibv_get_cq_event(ibv_comp_channel* channel, ibv_cq** queue, void** for_events) {
  std::uint64_t one = 0;
  if (read(channel->fd, &one, sizeof one) != sizeof one) return -1;
  const auto lock = locked(channel->context);
  auto& events = static_cast<CompletionChannel*>(channel)->events;
  CompletionQueue* const first = events.front();
  events.pop_front();
  ++first->unacknowledged;
  *queue = first;
  *for_events = first->cq_context;
  return 0;
}

void ibv_ack_cq_events(ibv_cq* queue, unsigned count) {
  const auto lock = locked(queue->context);
  static_cast<CompletionQueue*>(queue)->unacknowledged -= count;
}

// ---- Queue pairs.

ibv_srq* ibv_create_srq(ibv_pd* domain, ibv_srq_init_attr* wanted) {
  if (wanted->attr.max_wr > most_receives) {
    errno = EINVAL;
    return nullptr;
  }
  auto* const queue = new SharedReceives;
  queue->context = domain->context;
  queue->pd = domain;
  queue->receives.most = wanted->attr.max_wr;
  return queue;
}

int ibv_destroy_srq(ibv_srq* queue) {
  delete static_cast<SharedReceives*>(queue);
  return 0;
}

ibv_qp* ibv_create_qp(ibv_pd* domain, ibv_qp_init_attr* wanted) {
  if (wanted->cap.max_inline_data > most_inline) {
    errno = EINVAL;
    return nullptr;
  }
  auto* const pair = new Pair(domain, *wanted);
  const auto lock = locked(domain->context);
  Device::of(domain->context).pairs[pair->qp_num] = pair;
  return pair;
}

int ibv_modify_qp(ibv_qp* pair, ibv_qp_attr* attributes, int mask) {
  const auto lock = locked(pair->context);
  const int error = static_cast<Pair*>(pair)->modify(*attributes, mask);
  Device::of(pair->context).wake();
  return error;
}

int ibv_destroy_qp(ibv_qp* pair) {
  Device& device = Device::of(pair->context);
  {
    const std::lock_guard lock(device.mutex);
    device.pairs.erase(pair->qp_num);
  }
  delete static_cast<Pair*>(pair);
  device.wake();  // its engine lets the socket go, too
  return 0;
}

int ibv_query_qp_data_in_order(ibv_qp* pair, ibv_wr_opcode, std::uint32_t) {
  return Device::of(pair->context).settings.in_order ? 1 : 0;
}

ibv_ah* ibv_create_ah(ibv_pd* domain, ibv_ah_attr* route) {
  if (route->is_global == 0) {
    errno = EINVAL;
    return nullptr;
  }
  auto* const way = new Way;
  way->context = domain->context;
  way->pd = domain;
  std::memcpy(way->gid.data(), route->grh.dgid.raw, way->gid.size());
  return way;
}

int ibv_destroy_ah(ibv_ah* way) {
  delete static_cast<Way*>(way);
  return 0;
}

}  // extern "C"
