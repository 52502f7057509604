#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "slipstream/transport/shm/segment.h"
#include "slipstream/transport/verbs/engine_internal.h"
#include "slipstream/transport/verbs/gpu_memory_internal.h"

namespace slip::verbs {
namespace {

using namespace std::chrono_literals;

/// What is larger goes in pieces, so that copies and their sending overlap.
constexpr std::size_t chunk_bytes = Buffers::largest;

}  // namespace

// ---- Set-up.

Engine::Engine(VerbsOptions options)
    : NetworkEngine(options.doorbell, options.peer_timeout),
      options_(std::move(options)),
      life_(draw_life()),
      device_(options_.settings, options_.nearest),
      buffers_(device_) {
  options_.nearest = nullptr;  // what it refers to may go
  make_queues();
  connector_ = std::make_unique<Connector>(device_, completions_.get());
  address_.life = life_;
  address_.gid = device_.choice().gid.bytes;
  address_.knock_qp = connector_->number();
  address_.lid = device_.choice().lid;
  address_.mtu = static_cast<std::uint16_t>(device_.choice().mtu);
  address_.link = device_.choice().link;
  parking_.open();
  parking_.watch(events_->fd);
}

void Engine::make_queues() {
  const Choice& choice = device_.choice();
  const ibv_device_attr& limits = device_.limits();
  const int peers = std::max(options_.workers - 1, 1);
  window_ = window_for(peers, limits.max_cqe, limits.max_srq_wr);
  if (window_ == 0) {
    throw Error(Code::not_supported,
                fmt::format("verbs: {} cannot serve {} workers (it has {} completions and {} "
                            "receives in a queue); use fewer, or transport ucx",
                            choice.device, options_.workers, limits.max_cqe, limits.max_srq_wr));
  }
  events_.reset(library().ibv_create_comp_channel(device_.context()));
  if (!events_) throw_verbs(choice, "cannot make a channel of events", errno);
  fcntl(events_->fd, F_SETFL, fcntl(events_->fd, F_GETFL) | O_NONBLOCK);
  const auto count = static_cast<std::uint32_t>(peers);
  const std::uint32_t entries = count * completions_for(window_) + knock_completions;
  completions_.reset(library().ibv_create_cq(device_.context(), static_cast<int>(entries), nullptr,
                                             events_.get(), 0));
  if (!completions_) throw_verbs(choice, "cannot make a completion queue", errno);
  ibv_srq_init_attr wanted{};
  wanted.attr.max_wr = count * receives_for(window_);
  wanted.attr.max_sge = 1;
  receives_.reset(library().ibv_create_srq(device_.domain(), &wanted));
  if (!receives_) throw_verbs(choice, "cannot make a shared receive queue", errno);
  for (std::size_t i = 0; i < std::size(receive_works_); ++i) {
    receive_works_[i] = {};
    if (i > 0) receive_works_[i - 1].next = &receive_works_[i];
  }
  for (std::uint32_t i = 0; i < count * receives_for(window_); ++i) {
    ibv_recv_wr one{};
    ibv_recv_wr* bad = nullptr;
    if (const int error = ibv_post_srq_recv(receives_.get(), &one, &bad); error != 0) {
      throw_verbs(choice, "cannot fill its receive queue", error);
    }
  }
}

Engine::~Engine() {
  peers_.clear();  // before what their requests refer to
}

Region Engine::allocate(std::size_t bytes, Bell bell, int device) {
  require_host(device, "verbs");
  bytes = std::max<std::size_t>(bytes, 1);
  if (bytes > shm::available_memory()) {
    throw Error(Code::out_of_memory,
                fmt::format("cannot reserve {} bytes: {} are available; use fewer workers, a "
                            "smaller model or a smaller max_gap",
                            bytes, shm::available_memory()));
  }
  Memory memory = page_memory(bytes);
  if (!memory) throw Error(Code::out_of_memory, fmt::format("cannot reserve {} bytes", bytes));
  std::memset(memory.get(), 0, bytes);
  return share(std::shared_ptr<std::byte>(std::move(memory)), bytes, bell, nullptr);
}

Region Engine::share(const std::shared_ptr<std::byte>& memory, std::size_t bytes, Bell bell,
                     std::shared_ptr<Landing> landing) {
  return publish(memory, bytes, bell, device_.register_memory(memory.get(), bytes),
                 std::move(landing));
}

std::optional<Region> Engine::share_gpu(const Region& region, Bell bell,
                                        std::shared_ptr<Landing> landing, std::string* why) {
  GpuRegistration memory = register_gpu(device_, region.device(), region.data(), region.bytes());
  *why = memory.choice.why;
  if (!memory.registration) return std::nullopt;
  return publish({std::make_shared<Region>(region), region.data()}, region.bytes(), bell,
                 std::move(memory.registration), std::move(landing));
}

Region Engine::publish(const std::shared_ptr<std::byte>& memory, std::size_t bytes, Bell bell,
                       Registration registration, std::shared_ptr<Landing> landing) {
  RegionKey key;
  std::byte* const data = memory.get();
  key.rkey = registration->rkey;
  key.address = reinterpret_cast<std::uint64_t>(data);
  key.bytes = bytes;
  key.bell = bell;
  key.owner = address_;
  key.has_landing = landing ? 1 : 0;
  {
    const std::lock_guard lock(mutex_);
    key.region = ++last_region_;
    LocalRegion& region = regions_[key.region];
    region.memory = memory;
    region.bytes = bytes;
    region.bell = bell;
    region.registration = std::move(registration);
    region.landing = std::move(landing);
    spans_[data] = &region;
  }
  const auto free = [self = shared_from_this(), id = key.region](std::byte*) {
    {
      const std::lock_guard lock(self->mutex_);
      self->regions_.at(id).freed = true;
      self->release(id);
    }
    self->free_memory();
  };
  return {std::shared_ptr<std::byte>(data, free), bytes, pack(key)};
}

/// If nobody needs it any more: no peer, and no put out of it.
void Engine::release(std::uint64_t id) {
  const auto found = regions_.find(id);
  LocalRegion& region = found->second;
  if (!region.freed || region.attached > 0) return;
  if (region.users > 0) {
    has_unused_regions_ = true;
    return;
  }
  spans_.erase(region.memory.get());
  add_freed(std::move(region));
  regions_.erase(found);
}

void Engine::release_all() {
  has_unused_regions_ = false;
  std::vector<std::uint64_t> ids;
  for (const auto& [id, region] : regions_) ids.push_back(id);
  for (const std::uint64_t id : ids) release(id);
}

/// The life at `address`; that it is a new one is the end of an earlier one. Throws Error.
std::shared_ptr<Engine::Peer> Engine::peer_for(int rank, const Address& address) {
  const Choice& choice = device_.choice();
  if (address.link != choice.link) {
    throw Error(Code::peer_mismatch,
                fmt::format("verbs: rank {} has a device on {} and rank {} on {} ({}); choose "
                            "devices of one network (SLIP_VERBS_DEVICE)",
                            rank, to_string(address.link), options_.rank, to_string(choice.link),
                            choice.device),
                rank);
  }
  if (address.mtu != choice.mtu) {
    throw Error(Code::peer_mismatch,
                fmt::format("verbs: rank {} has MTU {} and rank {} has {} ({}); give their network "
                            "interfaces one MTU, or all workers SLIP_VERBS_MTU={}",
                            rank, address.mtu, options_.rank, choice.mtu, choice.device,
                            std::min<int>(address.mtu, choice.mtu)),
                rank);
  }
  const auto found = peers_.find(rank);
  const std::shared_ptr<Peer> known = found != peers_.end() ? found->second : nullptr;
  if (known && known->address.life == address.life) return known;
  if (gone_.contains(address.life)) {
    throw Error(Code::peer_lost, fmt::format("rank {} is lost", rank), rank);
  }
  auto peer = std::make_shared<Peer>();
  peer->rank = rank;
  peer->address = address;
  peer->heard = steady_now();
  peer->way = connector_->way_to(address, rank);
  // A queue pair's number may come again. Knocks are not answered here: one may be this peer's.
  while (poll() > 0) {
  }
  peer->channel =
      std::make_unique<Channel>(device_, buffers_, completions_.get(), receives_.get(), window_);
  if (known && known->failure) lose(*known, "it has been started again");
  by_pair_[peer->channel->number()] = peer.get();
  peers_[rank] = peer;
  return peer;
}

void Engine::knock(Peer& peer, Knock::Kind kind) {
  Knock knock;
  knock.kind = kind;
  knock.to = peer.address.life;
  knock.from = address_;
  knock.rank = options_.rank;
  peer.channel->introduce(knock);
  connector_->send(peer.way.get(), peer.address.knock_qp, knock);
}

/// Whoever has asked receives once it has the answer; until then nothing is sent to it but what it
/// asks for. What it sends first says the same.
void Engine::answer(const Knock& knock) {
  const bool is_link = knock.from.link == Link::infiniband || knock.from.link == Link::ethernet;
  if (knock.to != life_ || knock.rank < 0 || knock.rank >= options_.workers ||
      knock.rank == options_.rank || !is_link || knock.window != window_ ||
      gone_.contains(knock.from.life)) {
    return;
  }
  try {
    Peer& peer = *peer_for(knock.rank, knock.from);
    if (!peer.failure) return;
    Channel& channel = *peer.channel;
    if (!channel.is_connected()) {
      channel.connect(knock, options_.peer_timeout);
      peer.heard = steady_now();
      if (wants_landing(knock)) channel.let_land();
    }
    if (knock.kind == Knock::Kind::ask) {
      this->knock(peer, Knock::Kind::answer);
    } else if (!channel.is_open()) {
      channel.open();
      (void)pump(peer);
    }
  } catch (const Error&) {
    // It waits for an answer, and will name this worker.
  }
}

bool Engine::wants_landing(const Knock& knock) const {
  using Words = VerbsSettings::Words;
  const Words words = options_.settings.words;
  return words == Words::polled || (words == Words::automatic && knock.lands_in_order != 0);
}

RemoteRegion Engine::attach(int peer, std::string_view packed) {
  const RegionKey key = unpack(packed, peer);
  const auto remote = std::make_shared<Remote>();
  remote->engine = shared_from_this();
  remote->address = key.address;
  remote->region = key.region;
  remote->rkey = key.rkey;
  remote->has_landing = key.has_landing != 0;
  if (peer != options_.rank) {
    const Time deadline = steady_now() + options_.connect_timeout;
    std::unique_lock lock(mutex_);
    remote->peer = peer_for(peer, key.owner);
    await_channel(lock, *remote->peer, deadline);
    const std::uint64_t number = ++last_number_;
    attaching_[number];
    Message message{};
    message.kind = Kind::attach;
    message.region = key.region;
    message.number = number;
    (void)send(*remote->peer, message);  // a failure is found where it is waited for
    lock.unlock();
    await_attached(*remote->peer, number, deadline).throw_if_failed();
    remote->is_attached = true;
  }
  return {peer, key.bytes, key.bell, {remote, reinterpret_cast<std::byte*>(remote.get())}, nullptr};
}

/// Asks until there is an answer.
void Engine::await_channel(std::unique_lock<std::mutex>& lock, Peer& peer, Time deadline) {
  Time next{0};
  Duration interval = 10ms;
  while (peer.failure && !peer.channel->is_open()) {
    const Time now = steady_now();
    if (now >= deadline) no_answer(peer).throw_if_failed();
    if (now >= next) {
      knock(peer, Knock::Kind::ask);
      next = now + interval;
      interval = std::min<Duration>(2 * interval, 500ms);
    }
    lock.unlock();
    std::this_thread::sleep_for(20us);
    drive();
    lock.lock();
  }
  peer.failure.throw_if_failed();
}

Status Engine::await_attached(const Peer& peer, std::uint64_t number, Time deadline) {
  for (;; std::this_thread::sleep_for(20us)) {
    drive();
    const std::lock_guard lock(mutex_);
    const auto found = attaching_.find(number);
    const bool late = steady_now() >= deadline;
    if (!found->second && peer.failure && !late) continue;
    const auto answer = found->second;
    attaching_.erase(found);
    if (!peer.failure) return peer.failure;
    if (!answer) return no_answer(peer);
    if (*answer) return {};
    return {Code::peer_lost, fmt::format("rank {} has freed the region", peer.rank), peer.rank};
  }
}

Status Engine::no_answer(const Peer& peer) const {
  return {Code::timeout,
          fmt::format("rank {}: waited {:g} s for rank {} (GID {}) to answer over {}; choose a "
                      "device and a GID of a network that both hosts share (SLIP_VERBS_DEVICE, "
                      "SLIP_VERBS_GID)",
                      options_.rank, to_seconds(options_.connect_timeout), peer.rank,
                      to_string(peer.address.gid), description()),
          peer.rank};
}

/// Behind all that was put by it.
void Engine::detach(const Remote& remote) {
  if (!remote.is_attached) return;
  const std::lock_guard lock(mutex_);
  if (!remote.peer->failure) return;
  Message message{};
  message.kind = Kind::detach;
  message.region = remote.region;
  (void)send(*remote.peer, message);
}

// ---- Puts.

Status Engine::put(const RemoteRegion& to, std::size_t offset, const void* source,
                   std::size_t bytes, const Signal* signal) {
  const auto& remote = *reinterpret_cast<const Remote*>(to.memory.get());
  const auto* from = static_cast<const std::byte*>(source);
  const std::lock_guard lock(mutex_);
  Message message{};
  message.kind = Kind::signal;
  message.region = remote.region;
  message.offset = offset;
  if (signal != nullptr) {
    message.word_offset = signal->offset;
    message.word = signal->word;
  }
  if (!remote.peer) {
    put_here(message, from, bytes, signal != nullptr);
    return {};
  }
  Peer& peer = *remote.peer;
  if (!peer.failure) return peer.failure;
  if (bytes == 0 && signal == nullptr) return {};
  ++peer.posted;
  if (peer.channel->is_waiting() || (peer.channel->lands() && !peer.channel->may_land())) {
    poll();  // for room, or to know that nothing is under way
    if (!peer.failure) return peer.failure;
  }
  Status status;
  const bool is_one_write = signal != nullptr && (bytes == 0 || signal->offset == offset + bytes) &&
                            bytes + sizeof(Word) <= chunk_bytes;
  // Who has memory of a GPU has words stored behind what is on its way there.
  if (is_one_write && peer.channel->may_land() && !remote.has_landing && !announcer_) {
    status = add_landed(peer, remote, signal->offset - bytes, to.bell, from, bytes, signal->word);
  } else if (signal != nullptr && bytes <= small_bytes) {
    message.bytes = static_cast<std::uint32_t>(bytes);
    status = add_message(peer, message, from);
  } else {
    status = add_payload(peer, remote, offset, from, bytes);
    if (status && remote.has_landing) {
      Message written = message;
      written.kind = Kind::wrote;
      written.word = bytes;
      status = add_message(peer, written, nullptr);
    }
    if (status && signal != nullptr) status = add_message(peer, message, nullptr);
  }
  return status ? pump(peer) : status;
}

/// A source that is in no region is copied: whoever has put may write it again at once.
Engine::LocalRegion* Engine::region_of(const std::byte* begin, std::size_t bytes) {
  const auto next = spans_.upper_bound(begin);
  if (next == spans_.begin()) return nullptr;
  const auto& [data, region] = *std::prev(next);
  return begin + bytes <= data + region->bytes ? region : nullptr;
}

/// As `add_payload` will find it: neither this worker's own puts nor small ones leave by the
/// device.
std::shared_ptr<void> Engine::hold_source(const RemoteRegion& to, const std::byte* from,
                                          std::size_t bytes) {
  const auto& remote = *reinterpret_cast<const Remote*>(to.memory.get());
  if (!remote.peer || bytes <= small_bytes) return nullptr;
  LocalRegion* region = nullptr;
  {
    const std::lock_guard lock(mutex_);
    region = region_of(from, bytes);
    if (region == nullptr) return nullptr;
    ++region->users;
  }
  const auto let_go = [self = shared_from_this()](LocalRegion* held) {
    const std::lock_guard its(self->mutex_);
    --held->users;
  };
  return std::shared_ptr<LocalRegion>(region, let_go);
}

Buffer* Engine::copy(const std::byte* from, std::size_t bytes, std::size_t room) {
  Buffer* const buffer = buffers_.take(std::max(bytes, room));
  if (buffer != nullptr && bytes > 0) std::memcpy(buffer->data, from, bytes);
  return buffer;
}

Status Engine::no_buffer(const Peer& peer) const {
  return {Code::out_of_memory,
          fmt::format("rank {}: no more memory can be registered with {} to send from; raise what "
                      "may be locked (ulimit -l unlimited)",
                      options_.rank, device_.choice().device),
          peer.rank};
}

Status Engine::add_payload(Peer& peer, const Remote& remote, std::size_t offset,
                           const std::byte* from, std::size_t bytes) {
  LocalRegion* const region = bytes > small_bytes ? region_of(from, bytes) : nullptr;
  for (std::size_t done = 0; done < bytes; done += chunk_bytes) {
    const std::size_t count = std::min(chunk_bytes, bytes - done);
    Request request;
    request.from = from + done;
    request.bytes = static_cast<std::uint32_t>(count);
    request.to = remote.address + offset + done;
    request.rkey = remote.rkey;
    if (region != nullptr) {
      request.lkey = region->registration->lkey;
      request.users = &region->users;
    } else {
      request.buffer = copy(from + done, count, 0);
      if (request.buffer == nullptr) return no_buffer(peer);
      request.from = request.buffer->data;
      request.lkey = request.buffer->lkey;
    }
    peer.channel->add(request);
    if (done + count < bytes) {
      if (const Status status = pump(peer); !status) return status;
    }
  }
  return {};
}

/// Payload and word in one write, straight to where they belong.
Status Engine::add_landed(Peer& peer, const Remote& remote, std::size_t offset, Bell bell,
                          const std::byte* from, std::size_t bytes, Word word) {
  LocalRegion* const region = bytes > small_bytes ? region_of(from, bytes) : nullptr;
  const std::size_t copied = region != nullptr ? 0 : bytes;
  Request request;
  const bool is_polled = bell == Bell::worker && peer.is_awake;
  request.kind = is_polled ? Request::Kind::plain : Request::Kind::landed;
  request.bell = bell;
  request.to = remote.address + offset;
  request.rkey = remote.rkey;
  request.buffer = copy(from, copied, copied + sizeof word);
  if (request.buffer == nullptr) return no_buffer(peer);
  std::memcpy(request.buffer->data + copied, &word, sizeof word);
  if (region != nullptr) {
    request.from = from;
    request.bytes = static_cast<std::uint32_t>(bytes);
    request.lkey = region->registration->lkey;
    request.users = &region->users;
    request.word_is_apart = true;
  } else {
    request.from = request.buffer->data;
    request.bytes = static_cast<std::uint32_t>(bytes + sizeof word);
    request.lkey = request.buffer->lkey;
  }
  peer.channel->add(request);
  return {};
}

Status Engine::add_message(Peer& peer, const Message& message, const std::byte* payload) {
  Request request;
  request.kind = Request::Kind::cell;
  request.buffer = buffers_.take(cell_bytes);
  if (request.buffer == nullptr) return no_buffer(peer);
  std::memcpy(request.buffer->data, &message, sizeof message);
  if (payload != nullptr) {
    std::memcpy(request.buffer->data + sizeof message, payload, message.bytes);
  }
  request.from = request.buffer->data;
  request.bytes = static_cast<std::uint32_t>(sizeof message + message.bytes);
  request.lkey = request.buffer->lkey;
  request.is_signalled = message.kind == Kind::bye;
  peer.channel->add(request);
  return {};
}

Status Engine::send(Peer& peer, Kind kind) {
  Message message{};
  message.kind = kind;
  return send(peer, message);
}

Status Engine::send(Peer& peer, const Message& message) {
  const Status status = add_message(peer, message, nullptr);
  return status ? pump(peer) : status;
}

/// What cannot be posted now is, as soon as there is room for it.
Status Engine::pump(Peer& peer) {
  if (const int error = peer.channel->pump(); error != 0) {
    lose(peer, fmt::format("cannot send: {}", std::strerror(error)));
  } else if (peer.channel->is_waiting() && !std::exchange(peer.is_waiting, true)) {
    waiting_.push_back(&peer);
    parking_.nudge();
  }
  return peer.failure;
}

/// The answer to a question behind all that was put so far.
bool Engine::drained(int rank) {
  const std::lock_guard lock(mutex_);
  const auto found = peers_.find(rank);
  if (found == peers_.end()) return true;
  Peer& peer = *found->second;
  if (peer.drained == peer.posted || !peer.failure) return true;
  if (peer.asked < peer.posted) {
    peer.asked = peer.posted;
    Message question{};
    question.kind = Kind::drain;
    question.number = peer.asked;
    (void)send(peer, question);
  }
  return false;
}

}  // namespace slip::verbs
