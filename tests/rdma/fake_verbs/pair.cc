#include "pair.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "settings.h"

namespace fake_verbs {
namespace {

constexpr std::size_t route_header_bytes = 40;
constexpr int most_packets = 64;  // of a pair at a time

bool has_immediate(ibv_wr_opcode opcode) { return opcode == IBV_WR_RDMA_WRITE_WITH_IMM; }

CompletionQueue& queue_of(ibv_cq* queue) { return static_cast<CompletionQueue&>(*queue); }

}  // namespace

Pair::Pair(ibv_pd* domain, const ibv_qp_init_attr& wanted)
    : ibv_qp(),
      device_(Device::of(domain->context)),
      socket_(device_.gid()),
      limits_(wanted.cap),
      all_signalled_(wanted.sq_sig_all != 0) {
  context = domain->context;
  pd = domain;
  send_cq = wanted.send_cq;
  recv_cq = wanted.recv_cq;
  srq = wanted.srq;
  qp_num = socket_.number();
  qp_type = wanted.qp_type;
  state = IBV_QPS_RESET;
  receives_.most = wanted.cap.max_recv_wr;
}

int Pair::modify(const ibv_qp_attr& attributes, int mask) {
  if ((mask & IBV_QP_ACCESS_FLAGS) != 0) access_ = static_cast<int>(attributes.qp_access_flags);
  if ((mask & IBV_QP_QKEY) != 0) queue_key_ = attributes.qkey;
  if ((mask & IBV_QP_PATH_MTU) != 0) packet_bytes_ = std::size_t{128} << attributes.path_mtu;
  if ((mask & IBV_QP_DEST_QPN) != 0) {
    if ((mask & IBV_QP_AV) == 0 || attributes.ah_attr.is_global == 0) return EINVAL;
    Gid gid;
    std::memcpy(gid.data(), attributes.ah_attr.grh.dgid.raw, gid.size());
    socket_.connect(gid, attributes.dest_qp_num);
  }
  if ((mask & IBV_QP_STATE) != 0) state = attributes.qp_state;
  return 0;
}

// ---- What is sent.

int Pair::check(const ibv_send_wr& work) const {
  if (in_use_ == limits_.max_send_wr) return ENOMEM;
  if (work.num_sge > static_cast<int>(limits_.max_send_sge)) return EINVAL;
  std::size_t bytes = 0;
  for (int i = 0; i < work.num_sge; ++i) bytes += work.sg_list[i].length;
  const bool is_inline = (work.send_flags & IBV_SEND_INLINE) != 0;
  return is_inline && bytes > limits_.max_inline_data ? EINVAL : 0;
}

Pair::Request Pair::request_of(const ibv_send_wr& work) const {
  Request request;
  request.id = work.wr_id;
  request.opcode = work.opcode;
  request.flags = work.send_flags | (all_signalled_ ? IBV_SEND_SIGNALED : 0);
  request.immediate = work.imm_data;
  request.to = work.wr.rdma.remote_addr;
  request.rkey = work.wr.rdma.rkey;
  request.parts.assign(work.sg_list, work.sg_list + work.num_sge);
  for (const ibv_sge& part : request.parts) request.bytes += part.length;
  if ((work.send_flags & IBV_SEND_INLINE) == 0) return request;
  for (const ibv_sge& part : request.parts) {
    const auto* from = reinterpret_cast<const std::byte*>(part.addr);
    request.inlined.insert(request.inlined.end(), from, from + part.length);
  }
  return request;
}

int Pair::post(ibv_send_wr* works, ibv_send_wr** bad) {
  for (ibv_send_wr* work = works; work != nullptr; work = work->next) {
    if (const int error = check(*work); error != 0) {
      *bad = work;
      return error;
    }
    ++in_use_;
    if (qp_type == IBV_QPT_UD) {
      send_datagram(*work);
      continue;
    }
    requests_.push_back(request_of(*work));
  }
  if (state == IBV_QPS_ERR) fail(IBV_WC_WR_FLUSH_ERR);
  device_.wake();
  return 0;
}

/// Nothing waits for it: it is sent at once, or lost.
void Pair::send_datagram(const ibv_send_wr& work) {
  Header header{.kind = Header::Kind::datagram};
  header.from = qp_num;
  header.key = work.wr.ud.remote_qkey;
  header.is_solicited = (work.send_flags & IBV_SEND_SOLICITED) != 0;
  requests_.push_back(request_of(work));
  ++next_;
  std::array<std::byte, most_payload> payload;
  const std::size_t bytes = std::min(requests_.back().bytes, payload.size());
  if (!gather(requests_.back(), 0, payload.data(), bytes)) return fail(IBV_WC_LOC_PROT_ERR);
  socket_.send_to(static_cast<const Way*>(work.wr.ud.ah)->gid, work.wr.ud.remote_qpn, header,
                  payload.data(), bytes);
  acknowledge(next_);
}

/// False: it is in no memory that the device may read.
bool Pair::gather(const Request& request, std::size_t at, std::byte* into,
                  std::size_t bytes) const {
  if (!request.inlined.empty()) {
    std::memcpy(into, request.inlined.data() + at, bytes);
    return true;
  }
  for (const ibv_sge& part : request.parts) {
    if (at >= part.length) {
      at -= part.length;
      continue;
    }
    const std::size_t count = std::min(bytes, part.length - at);
    const Memory* const memory = device_.find(part.lkey, part.addr + at, count);
    if (memory == nullptr || memory->pd != pd) return false;
    copy_in_order(into, memory->at(part.addr + at), count);
    into += count;
    bytes -= count;
    at = 0;
  }
  return true;
}

Pair::Step Pair::send(const Header& header, const std::byte* payload, std::size_t bytes) {
  switch (socket_.send(header, payload, bytes)) {
    case Socket::Sent::yes:
      return Step::done;
    case Socket::Sent::later:
      is_blocked_ = true;
      return Step::later;
    default:
      // A device would try again for a while.
      answers_.clear();
      fail(IBV_WC_RETRY_EXC_ERR);
      return Step::failed;
  }
}

/// The next one of it.
Pair::Step Pair::send_packet(Request& request) {
  std::array<std::byte, most_payload> payload;
  const std::size_t bytes = std::min(request.bytes - request.sent, packet_bytes_);
  if (!gather(request, request.sent, payload.data(), bytes)) {
    fail(IBV_WC_LOC_PROT_ERR);
    return Step::failed;
  }
  Header header{.kind = Header::Kind::write};
  header.from = qp_num;
  header.message = next_;
  header.to = request.to + request.sent;
  header.key = request.rkey;
  header.is_last = request.sent + bytes == request.bytes;
  header.has_immediate = header.is_last && has_immediate(request.opcode);
  header.immediate = request.immediate;
  header.is_solicited = (request.flags & IBV_SEND_SOLICITED) != 0;
  const Step step = send(header, payload.data(), bytes);
  if (step != Step::done) return step;
  request.sent += bytes;
  if (header.is_last) ++next_;
  return step;
}

void Pair::transmit() {
  is_blocked_ = false;
  while (!answers_.empty()) {
    if (send(answers_.front(), nullptr, 0) != Step::done) return;
    answers_.pop_front();
  }
  for (int i = 0; i < most_packets && state == IBV_QPS_RTS; ++i) {
    if (next_ - first_ == requests_.size()) return;
    if (send_packet(requests_[next_ - first_]) != Step::done) return;
  }
}

void Pair::finish_first(ibv_wc_status status) {
  const Request& request = requests_.front();
  ++unsignalled_;
  if ((request.flags & IBV_SEND_SIGNALED) != 0 || status != IBV_WC_SUCCESS) {
    ibv_wc completion{};
    completion.wr_id = request.id;
    completion.status = status;
    completion.opcode = qp_type == IBV_QPT_UD ? IBV_WC_SEND : IBV_WC_RDMA_WRITE;
    completion.qp_num = qp_num;
    queue_of(send_cq).push(completion, unsignalled_, false);
    unsignalled_ = 0;
  }
  requests_.pop_front();
  ++first_;
}

/// All before that one have arrived.
void Pair::acknowledge(std::uint64_t message) {
  while (first_ < message && first_ < next_) finish_first(IBV_WC_SUCCESS);
}

/// Of the first request; the others follow it.
void Pair::fail(ibv_wc_status status) {
  state = IBV_QPS_ERR;
  for (; !requests_.empty(); status = IBV_WC_WR_FLUSH_ERR) finish_first(status);
  next_ = first_;
}

// ---- What comes.

void Pair::work() {
  Packet packet;
  for (int i = 0; i < most_packets && may_receive(); ++i) {
    const std::ptrdiff_t bytes = socket_.receive(&packet);
    if (bytes < 0) break;
    receive(packet, static_cast<std::size_t>(bytes));
  }
  transmit();
}

short Pair::awaits() const {
  const bool has_more = state == IBV_QPS_RTS && next_ - first_ < requests_.size();
  const int out = is_blocked_ || has_more ? POLLOUT : 0;
  return static_cast<short>(out | (may_receive() ? POLLIN : 0));
}

void Pair::receive(const Packet& packet, std::size_t bytes) {
  const Header& header = packet.header;
  switch (header.kind) {
    case Header::Kind::datagram:
      if (qp_type == IBV_QPT_UD) receive_datagram(packet, bytes);
      break;
    case Header::Kind::write: {
      const ibv_wc_status status = receive_write(packet, bytes);
      if (header.is_last || status != IBV_WC_SUCCESS) answer(header, status);
      break;
    }
    case Header::Kind::ack:
      acknowledge(header.message + 1);
      break;
    case Header::Kind::refusal:
      acknowledge(header.message);
      fail(static_cast<ibv_wc_status>(header.status));
      break;
  }
}

void Pair::receive_datagram(const Packet& packet, std::size_t bytes) {
  if (packet.header.key != queue_key_) return;
  const auto receive = receives_.take();
  if (!receive || receive->part.length < route_header_bytes + bytes) return;
  const Memory* const memory =
      device_.find(receive->part.lkey, receive->part.addr, receive->part.length);
  if (memory == nullptr) return;
  std::memcpy(memory->at(receive->part.addr) + route_header_bytes, packet.payload.data(), bytes);
  ibv_wc completion{};
  completion.wr_id = receive->id;
  completion.opcode = IBV_WC_RECV;
  completion.byte_len = static_cast<std::uint32_t>(route_header_bytes + bytes);
  completion.qp_num = qp_num;
  completion.src_qp = packet.header.from;
  completion.wc_flags = IBV_WC_GRH;
  queue_of(recv_cq).push(completion, 0, packet.header.is_solicited);
}

ibv_wc_status Pair::receive_write(const Packet& packet, std::size_t bytes) {
  const Header& header = packet.header;
  if (bytes > 0) {
    const Memory* const memory = device_.find(header.key, header.to, bytes);
    if (memory == nullptr || memory->pd != pd || (access_ & IBV_ACCESS_REMOTE_WRITE) == 0 ||
        (memory->access & IBV_ACCESS_REMOTE_WRITE) == 0) {
      return IBV_WC_REM_ACCESS_ERR;
    }
    coming_.push_back(
        {header.key, header.to, {packet.payload.data(), packet.payload.data() + bytes}});
    if (device_.settings.in_order) device_.place(coming_);
  }
  if (!header.has_immediate) return IBV_WC_SUCCESS;
  auto& receives = srq != nullptr ? static_cast<SharedReceives*>(srq)->receives : receives_;
  const auto receive = receives.take();
  if (!receive) return IBV_WC_RNR_RETRY_EXC_ERR;
  device_.place(coming_);
  ibv_wc completion{};
  completion.wr_id = receive->id;
  completion.opcode = IBV_WC_RECV_RDMA_WITH_IMM;
  completion.imm_data = header.immediate;
  completion.qp_num = qp_num;
  completion.src_qp = header.from;
  completion.wc_flags = IBV_WC_WITH_IMM;
  queue_of(recv_cq).push(completion, 0, header.is_solicited);
  return IBV_WC_SUCCESS;
}

void Pair::answer(const Header& to, ibv_wc_status status) {
  const bool is_ack = status == IBV_WC_SUCCESS;
  Header header{.kind = is_ack ? Header::Kind::ack : Header::Kind::refusal};
  header.from = qp_num;
  header.message = to.message;
  header.status = static_cast<std::uint32_t>(status);
  answers_.push_back(header);
  if (!is_ack) fail(IBV_WC_WR_FLUSH_ERR);
}

}  // namespace fake_verbs
