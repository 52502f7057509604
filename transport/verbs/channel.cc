#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <random>

#include "slipstream/transport/verbs/channel_internal.h"

namespace slip::verbs {
namespace {

constexpr std::uint32_t packet_mask = 0xffffff;

/// Not 7, which some devices (Soft-RoCE) take for ever.
constexpr int retries = 6;

/// Of InfiniBand's local ack timeout, 4.096 us * 2^code: the longest after which all attempts are
/// over in a quarter of the time that a peer may be silent.
std::uint8_t timeout_code(Duration peer_timeout) {
  const auto each = static_cast<std::uint64_t>(std::max<Duration::rep>(peer_timeout.count(), 0)) /
                    4 / (1 + retries) / 4096;
  return static_cast<std::uint8_t>(std::clamp(static_cast<int>(std::bit_width(each)) - 1, 8, 30));
}

ibv_qp* create_pair(const Device& device, ibv_cq* completions, ibv_srq* receives,
                    std::uint32_t requests, std::uint32_t* most_inline) {
  for (std::uint32_t bytes = cell_bytes;; bytes /= 2) {
    ibv_qp_init_attr wanted{};
    wanted.send_cq = completions;
    wanted.recv_cq = completions;
    wanted.srq = receives;
    wanted.cap.max_send_wr = requests;
    wanted.cap.max_send_sge = 2;
    wanted.cap.max_inline_data = bytes;
    wanted.qp_type = IBV_QPT_RC;
    ibv_qp* const pair = library().ibv_create_qp(device.domain(), &wanted);
    *most_inline = wanted.cap.max_inline_data;
    if (pair != nullptr) return pair;
    if (bytes == 0) throw_verbs(device.choice(), "cannot make a queue pair", errno);
  }
}

}  // namespace

void RequestQueue::grow() {
  std::vector<Request> larger(ring_.size() * 2);
  for (std::uint64_t i = first_; i < last_; ++i) larger[i & (larger.size() - 1)] = at(i);
  ring_.swap(larger);
}

Channel::Channel(const Device& device, Buffers& buffers, ibv_cq* completions, ibv_srq* receives,
                 std::uint32_t window)
    : device_(device),
      buffers_(buffers),
      window_(window),
      received_(window),
      cells_(window),
      in_flight_(send_queue_for(window)) {
  const std::size_t bytes = std::size_t{window} * cell_bytes;
  mailbox_ = page_memory(bytes);
  if (!mailbox_) throw Error(Code::out_of_memory, "verbs: no memory for a mailbox");
  mailbox_registration_ = device.register_memory(mailbox_.get(), bytes);
  pair_.reset(create_pair(device, completions, receives, send_queue_for(window), &most_inline_));
  first_packet_ = std::random_device()() & packet_mask;
  ibv_qp_attr initial{};
  initial.qp_state = IBV_QPS_INIT;
  initial.pkey_index = static_cast<std::uint16_t>(device.choice().pkey_index);
  initial.port_num = static_cast<std::uint8_t>(device.choice().port);
  initial.qp_access_flags = IBV_ACCESS_REMOTE_WRITE;
  if (const int error = library().ibv_modify_qp(
          pair_.get(), &initial,
          IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
      error != 0) {
    throw_verbs(device.choice(), "cannot set up a queue pair", error);
  }
}

Channel::~Channel() {
  pair_.reset();
  for (; completed_ < posted_; ++completed_) {
    const InFlight& entry = in_flight_[completed_ % in_flight_.size()];
    finish(entry.buffer, entry.users);
  }
  for (; !queue_.empty(); queue_.pop()) finish(queue_.front().buffer, queue_.front().users);
}

void Channel::introduce(Knock& knock) const {
  knock.qp = number();
  knock.packet = first_packet_;
  knock.window = cells_;
  knock.mailbox = reinterpret_cast<std::uint64_t>(mailbox_.get());
  knock.mailbox_key = mailbox_registration_->rkey;
  knock.lands_in_order =
      library().ibv_query_qp_data_in_order != nullptr &&
      library().ibv_query_qp_data_in_order(pair_.get(), IBV_WR_RDMA_WRITE_WITH_IMM, 0) != 0;
}

void Channel::connect(const Knock& knock, Duration peer_timeout) {
  ibv_qp_attr ready{};
  ready.qp_state = IBV_QPS_RTR;
  ready.path_mtu = mtu_code(device_.choice().mtu);
  ready.dest_qp_num = knock.qp;
  ready.rq_psn = knock.packet & packet_mask;
  ready.max_dest_rd_atomic = 1;
  ready.min_rnr_timer = 12;
  ready.ah_attr = device_.route_to(knock.from.place());
  int error =
      library().ibv_modify_qp(pair_.get(), &ready,
                              IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
                                  IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
  if (error == 0) {
    ibv_qp_attr sending{};
    sending.qp_state = IBV_QPS_RTS;
    sending.timeout = timeout_code(peer_timeout);
    sending.retry_cnt = retries;
    sending.rnr_retry = 6;  // not 7, which is for ever: by the windows' proof it never happens
    sending.sq_psn = first_packet_;
    sending.max_rd_atomic = 1;
    error = library().ibv_modify_qp(pair_.get(), &sending,
                                    IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
                                        IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
  }
  if (error != 0) {
    throw Error(
        Code::io,
        fmt::format("verbs: {} cannot connect to rank {} (GID {}): {}", device_.choice().device,
                    knock.rank, to_string(knock.from.gid), std::strerror(error)),
        knock.rank);
  }
  mailbox_there_ = knock.mailbox;
  mailbox_key_ = knock.mailbox_key;
  is_connected_ = true;
}

void Channel::add(const Request& request) {
  if (request.users != nullptr) ++*request.users;
  queue_.push(request);
}

void Channel::finish(Buffer* buffer, int* users) {
  if (buffer != nullptr) buffers_.give_back(buffer);
  if (users != nullptr) --*users;
}

void Channel::complete(std::uint64_t id) {
  for (const std::uint64_t last = std::min(id, posted_); completed_ < last; ++completed_) {
    const InFlight& entry = in_flight_[completed_ % in_flight_.size()];
    finish(entry.buffer, entry.users);
  }
}

bool Channel::may_land() const {
  return lands_ && is_open_ && queue_.empty() && completed_ == posted_ &&
         window_.has_credit_for(cells_sent_);
}

int Channel::pump() {
  if (!is_open_) return 0;
  for (;;) {
    Buffer* inlined[batch];
    int count = 0;
    const int most = std::min<int>(batch, static_cast<int>(room()));
    for (; count < most; ++count) {
      ibv_send_wr& work = works_[count];
      work = {};
      inlined[count] = nullptr;
      if (received_.credit_is_due()) {
        post_credit(work);
      } else if (!queue_.empty() &&
                 (queue_.front().kind == Request::Kind::plain || window_.is_open())) {
        post(work, parts_[count], queue_.front(), &inlined[count]);
        queue_.pop();
      } else {
        break;
      }
      if (count > 0) works_[count - 1].next = &work;
    }
    if (count == 0) return 0;
    ibv_send_wr* bad = nullptr;
    const int error = ibv_post_send(pair_.get(), works_, &bad);
    for (int i = 0; i < count; ++i) finish(inlined[i], nullptr);
    if (error != 0) return error;
  }
}

/// Ahead of all that waits: it waits for nothing.
void Channel::post_credit(ibv_send_wr& work) {
  in_flight_[posted_++ % in_flight_.size()] = {};
  work.wr_id = posted_;
  work.opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
  work.imm_data = htonl(immediate(Notice::credit, 0, received_.credit()));
  sign(work, false);
}

void Channel::post(ibv_send_wr& work, ibv_sge* parts, const Request& request, Buffer** inlined) {
  std::uint64_t to = request.to;
  std::uint32_t rkey = request.rkey;
  work.opcode = IBV_WR_RDMA_WRITE;
  if (request.kind != Request::Kind::plain) {
    const std::uint64_t number = window_.send();
    Notice notice = request.bell == Bell::worker ? Notice::landed_worker : Notice::landed_progress;
    if (request.kind == Request::Kind::cell) {
      notice = Notice::cell;
      to = mailbox_there_ + (number & (cells_ - 1)) * cell_bytes;
      rkey = mailbox_key_;
      cells_sent_ = number + 1;
    }
    work.opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
    work.imm_data = htonl(immediate(notice, number, received_.credit()));
    work.send_flags = IBV_SEND_SOLICITED;
  }
  parts[0] = {reinterpret_cast<std::uint64_t>(request.from), request.bytes, request.lkey};
  std::uint32_t bytes = request.bytes;
  work.num_sge = 1;
  if (request.word_is_apart) {
    parts[1] = {reinterpret_cast<std::uint64_t>(request.buffer->data), sizeof(Word),
                request.buffer->lkey};
    work.num_sge = 2;
    bytes += sizeof(Word);
  }
  work.sg_list = parts;
  work.wr.rdma.remote_addr = to;
  work.wr.rdma.rkey = rkey;
  InFlight& entry = in_flight_[posted_++ % in_flight_.size()];
  work.wr_id = posted_;
  const bool is_inline = bytes <= most_inline_ && request.users == nullptr;
  if (is_inline) {
    work.send_flags |= IBV_SEND_INLINE;
    *inlined = request.buffer;
    entry = {};
  } else {
    entry = {request.buffer, request.users};
  }
  if (request.is_signalled) marked_ = posted_;
  sign(work, !is_inline || request.is_signalled);
}

/// What is sent out of memory has to be known to be done. So has everything, before a word may
/// land.
void Channel::sign(ibv_send_wr& work, bool must) {
  if (must || lands_ || ++unsignalled_ >= in_flight_.size() / 4) {
    work.send_flags |= IBV_SEND_SIGNALED;
    unsignalled_ = 0;
  }
}

}  // namespace slip::verbs
