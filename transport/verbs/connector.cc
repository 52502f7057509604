#include <fmt/format.h>

#include <cerrno>
#include <cstring>

#include "slipstream/transport/verbs/connector_internal.h"

namespace slip::verbs {
namespace {

constexpr std::uint32_t queue_key = 0x736c6970;
constexpr std::size_t route_header_bytes = 40;  // in front of each datagram that is received
/// Identifiers of completions: of sends they are larger.
constexpr std::uint64_t of_sends = std::uint64_t{1} << 32;

void change(const Device& device, ibv_qp* pair, ibv_qp_attr attributes, int mask) {
  if (const int error = library().ibv_modify_qp(pair, &attributes, mask); error != 0) {
    throw_verbs(device.choice(), "cannot set up a queue pair of datagrams", error);
  }
}

}  // namespace

Connector::Connector(const Device& device, ibv_cq* completions) : device_(device) {
  memory_ = page_memory(std::size_t{knock_completions} * slot_bytes);
  if (!memory_) throw Error(Code::out_of_memory, "verbs: no memory to connect peers with");
  registration_ =
      device.register_memory(memory_.get(), std::size_t{knock_completions} * slot_bytes);
  ibv_qp_init_attr wanted{};
  wanted.send_cq = completions;
  wanted.recv_cq = completions;
  wanted.cap.max_send_wr = sends;
  wanted.cap.max_recv_wr = receives;
  wanted.cap.max_send_sge = 1;
  wanted.cap.max_recv_sge = 1;
  wanted.qp_type = IBV_QPT_UD;
  wanted.sq_sig_all = 1;
  pair_.reset(library().ibv_create_qp(device.domain(), &wanted));
  if (!pair_) throw_verbs(device.choice(), "cannot make a queue pair of datagrams", errno);
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_INIT;
  attributes.pkey_index = static_cast<std::uint16_t>(device.choice().pkey_index);
  attributes.port_num = static_cast<std::uint8_t>(device.choice().port);
  attributes.qkey = queue_key;
  change(device, pair_.get(), attributes,
         IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY);
  for (std::uint32_t i = 0; i < receives; ++i) post_receive(i);
  attributes.qp_state = IBV_QPS_RTR;
  change(device, pair_.get(), attributes, IBV_QP_STATE);
  attributes.qp_state = IBV_QPS_RTS;
  attributes.sq_psn = 0;
  change(device, pair_.get(), attributes, IBV_QP_STATE | IBV_QP_SQ_PSN);
}

void Connector::post_receive(std::uint32_t index) {
  ibv_sge part{reinterpret_cast<std::uint64_t>(slot(index)), slot_bytes, registration_->lkey};
  ibv_recv_wr work{};
  work.wr_id = index;
  work.sg_list = &part;
  work.num_sge = 1;
  ibv_recv_wr* bad = nullptr;
  // One that fails is one less: those who knock try again.
  (void)ibv_post_recv(pair_.get(), &work, &bad);
}

AddressHandle Connector::way_to(const Address& there, int rank) const {
  ibv_ah_attr route = device_.route_to(there.place());
  AddressHandle way(library().ibv_create_ah(device_.domain(), &route));
  if (way) return way;
  throw Error(
      Code::not_supported,
      fmt::format("verbs: {} has no way to rank {} (GID {}): {}; choose a device and a GID "
                  "of a network that both hosts share (SLIP_VERBS_DEVICE, SLIP_VERBS_GID)",
                  device_.choice().device, rank, to_string(there.gid), std::strerror(errno)),
      rank);
}

void Connector::send(ibv_ah* way, std::uint32_t knock_qp, const Knock& knock) {
  if (posted_ - completed_ == sends) return;
  std::byte* const from = slot(receives + static_cast<std::uint32_t>(posted_ % sends));
  std::memcpy(from, &knock, sizeof knock);
  ibv_sge part{reinterpret_cast<std::uint64_t>(from), sizeof knock, registration_->lkey};
  ibv_send_wr work{};
  work.wr_id = of_sends;
  work.sg_list = &part;
  work.num_sge = 1;
  work.opcode = IBV_WR_SEND;
  work.send_flags = IBV_SEND_SOLICITED;
  work.wr.ud.ah = way;
  work.wr.ud.remote_qpn = knock_qp;
  work.wr.ud.remote_qkey = queue_key;
  ibv_send_wr* bad = nullptr;
  if (ibv_post_send(pair_.get(), &work, &bad) == 0) ++posted_;
}

std::optional<Knock> Connector::take(const ibv_wc& completion) {
  if (completion.wr_id >= of_sends) {
    ++completed_;
    return {};
  }
  if (completion.wr_id >= receives) return {};
  const auto index = static_cast<std::uint32_t>(completion.wr_id);
  Knock knock;
  const bool is_whole = completion.status == IBV_WC_SUCCESS &&
                        completion.byte_len == route_header_bytes + sizeof knock;
  if (is_whole)
    std::memcpy(static_cast<void*>(&knock), slot(index) + route_header_bytes, sizeof knock);
  post_receive(index);
  if (!is_whole || knock.magic != Knock::expected || knock.version != wire_version) return {};
  return knock;
}

}  // namespace slip::verbs
