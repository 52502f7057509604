#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "slipstream/base/copy.h"
#include "slipstream/transport/shm/segment.h"
#include "slipstream/transport/ucx/engine_internal.h"

namespace slip::ucx {
namespace {

using namespace std::chrono_literals;

constexpr unsigned message_id = 1;

void check(ucs_status_t status, const std::string& what) {
  if (status == UCS_OK) return;
  const Code code = status == UCS_ERR_NO_MEMORY ? Code::out_of_memory : Code::io;
  throw Error(code, fmt::format("UCX: {}: {}", what, text(status)));
}

/// True if a network of the endpoint writes into memory by itself. UCX tells it in this text alone,
/// which has a row of thresholds for each that does.
bool has_puts(ucp_ep_h endpoint) {
  char* information = nullptr;
  std::size_t length = 0;
  std::FILE* const stream = open_memstream(&information, &length);
  if (stream == nullptr) return false;
  library().ucp_ep_print_info(endpoint, stream);
  std::fclose(stream);
  const bool found = std::strstr(information, " put[") != nullptr;
  std::free(information);
  return found;
}

/// UCX is told whose memory it is, lest it ask CUDA, which a call that follows a stream must not.
ucp_request_param_t from_host(ucp_send_nbx_callback_t done, void* user_data) {
  ucp_request_param_t param{};
  param.op_attr_mask =
      UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_MEMORY_TYPE;
  param.cb.send = done;
  param.user_data = user_data;
  param.memory_type = UCS_MEMORY_TYPE_HOST;
  return param;
}

}  // namespace

// ---- Set-up.

Engine::Engine(UcxOptions options)
    : NetworkEngine(options.doorbell, options.peer_timeout), options_(std::move(options)) {}

void Engine::start() {
  const Library& lib = library();
  if (!lib.missing.empty()) {
    throw Error(Code::not_supported, "UCX is not available: " + lib.missing);
  }
  ucp_config_t* config = nullptr;
  check(lib.ucp_config_read(nullptr, nullptr, &config), "cannot read its configuration (UCX_*)");
  ucp_params_t params{};
  params.field_mask = UCP_PARAM_FIELD_FEATURES;
  params.features = UCP_FEATURE_RMA | UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  ucp_context_h context = nullptr;
  const ucs_status_t status =
      lib.ucp_init_version(UCP_API_MAJOR, UCP_API_MINOR, &params, config, &context);
  lib.ucp_config_release(config);
  check(status, "cannot start; are UCX_TLS and UCX_NET_DEVICES right (ucx_info -d)?");
  context_ = {context, lib.ucp_cleanup};
  if (!options_.doorbell) make_doorbell();
  ucp_worker_params_t worker{};
  worker.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  worker.thread_mode = UCS_THREAD_MODE_SERIALIZED;
  check(lib.ucp_worker_create(context_.get(), &worker, &worker_), "cannot make a worker");
  ucp_address_t* address = nullptr;
  std::size_t length = 0;
  check(lib.ucp_worker_get_address(worker_, &address, &length), "has no address");
  address_.assign(reinterpret_cast<const char*>(address), length);
  lib.ucp_worker_release_address(worker_, address);
  ucp_am_handler_param_t handler{};
  handler.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                       UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
  handler.id = message_id;
  handler.flags = UCP_AM_FLAG_WHOLE_MSG;
  handler.cb = &on_message;
  handler.arg = this;
  check(lib.ucp_worker_set_am_recv_handler(worker_, &handler), "cannot receive messages");
  check(lib.ucp_worker_get_efd(worker_, &event_fd_),
        "no network of UCX_TLS can wake a sleeping thread");
  parking_.open();
  parking_.watch_once(event_fd_);
}

/// Where peers of this host can map it, and so ring it by themselves.
void Engine::make_doorbell() {
  const auto& lib = library();
  ucp_mem_map_params_t params{};
  params.field_mask = UCP_MEM_MAP_PARAM_FIELD_LENGTH | UCP_MEM_MAP_PARAM_FIELD_FLAGS;
  params.length = sizeof(Doorbell);
  params.flags = UCP_MEM_MAP_ALLOCATE;
  ucp_mem_h handle = nullptr;
  check(lib.ucp_mem_map(context_.get(), &params, &handle), "cannot reserve a doorbell");
  const std::shared_ptr<void> memory(handle, [context = context_](void* mapped) {
    library().ucp_mem_unmap(context.get(), static_cast<ucp_mem_h>(mapped));
  });
  ucp_mem_attr_t attributes{};
  attributes.field_mask = UCP_MEM_ATTR_FIELD_ADDRESS;
  check(lib.ucp_mem_query(handle, &attributes), "cannot find its doorbell");
  doorbell_ = {memory, new (attributes.address) Doorbell};
  doorbell_->writers_fence = !asymmetric_fences();
  doorbell_rkey_ = pack_key(handle);
}

std::string Engine::pack_key(ucp_mem_h handle) const {
  void* packed = nullptr;
  std::size_t length = 0;
  check(library().ucp_rkey_pack(context_.get(), handle, &packed, &length), "cannot pack a key");
  const std::string key(static_cast<const char*>(packed), length);
  library().ucp_rkey_buffer_release(packed);
  return key;
}

Engine::~Engine() {
  for (const auto& [id, region] : regions_) library().ucp_mem_unmap(context_.get(), region.handle);
  if (worker_ != nullptr) library().ucp_worker_destroy(worker_);
}

Region Engine::allocate(std::size_t bytes, Bell bell, int device) {
  require_host(device, "ucx");
  bytes = std::max<std::size_t>(bytes, 1);
  if (bytes > shm::available_memory()) {
    throw Error(Code::out_of_memory,
                fmt::format("cannot reserve {} bytes: {} are available; use fewer workers, a "
                            "smaller model or a smaller max_gap",
                            bytes, shm::available_memory()));
  }
  const auto& lib = library();
  ucp_mem_map_params_t params{};
  params.field_mask = UCP_MEM_MAP_PARAM_FIELD_LENGTH | UCP_MEM_MAP_PARAM_FIELD_FLAGS;
  params.length = bytes;
  params.flags = UCP_MEM_MAP_ALLOCATE;
  ucp_mem_h handle = nullptr;
  ucp_mem_attr_t attributes{};
  attributes.field_mask = UCP_MEM_ATTR_FIELD_ADDRESS;
  {
    const std::lock_guard lock(mutex_);
    check(lib.ucp_mem_map(context_.get(), &params, &handle),
          fmt::format("cannot reserve {} bytes", bytes));
    check(lib.ucp_mem_query(handle, &attributes), "cannot find its memory");
  }
  std::memset(attributes.address, 0, bytes);
  return publish(handle, {std::shared_ptr<void>(), static_cast<std::byte*>(attributes.address)},
                 bytes, bell, nullptr);
}

Region Engine::share(const std::shared_ptr<std::byte>& memory, std::size_t bytes, Bell bell,
                     std::shared_ptr<Landing> landing) {
  ucp_mem_map_params_t params{};
  params.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH |
                      UCP_MEM_MAP_PARAM_FIELD_MEMORY_TYPE;
  params.address = memory.get();
  params.length = bytes;
  params.memory_type = UCS_MEMORY_TYPE_HOST;
  ucp_mem_h handle = nullptr;
  {
    const std::lock_guard lock(mutex_);
    check(library().ucp_mem_map(context_.get(), &params, &handle),
          fmt::format("cannot register {} bytes; is enough memory lockable (ulimit -l)?", bytes));
  }
  return publish(handle, memory, bytes, bell, std::move(landing));
}

/// `memory` is kept for as long as the region.
Region Engine::publish(ucp_mem_h handle, std::shared_ptr<std::byte> memory, std::size_t bytes,
                       Bell bell, std::shared_ptr<Landing> landing) {
  RegionKey key;
  std::byte* const data = memory.get();
  {
    const std::lock_guard lock(mutex_);
    key.rkey = pack_key(handle);
    key.region = ++last_region_;
    LocalRegion& region = regions_[key.region];
    region.memory = memory;
    region.bytes = bytes;
    region.bell = bell;
    region.handle = handle;
    region.landing = landing;
    spans_[data] = bytes;
  }
  key.address = reinterpret_cast<std::uint64_t>(data);
  key.bytes = bytes;
  key.bell = bell;
  key.life = life_;
  key.doorbell = reinterpret_cast<std::uint64_t>(doorbell_.get());
  key.doorbell_rkey = doorbell_rkey_;
  key.has_landing = landing != nullptr;
  key.address_of_worker = address_;
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

/// No call on a stream will store a word there, which would come too late.
bool Engine::has_all_words(LocalRegion& region) {
  if (!region.has_all_words) after_words(region.has_all_words.emplace(0));
  return std::atomic_ref<Word>(*region.has_all_words).load(std::memory_order_acquire) != 0;
}

/// If nobody needs it any more: no peer, no put out of it, and no word that has come for it.
void Engine::release(std::uint64_t id) {
  const auto found = regions_.find(id);
  LocalRegion& region = found->second;
  if (!region.freed || region.attached > 0) return;
  if (free_sendings_.size() < sendings_.size() || !has_all_words(region)) {
    has_unused_regions_ = true;
    return;
  }
  library().ucp_mem_unmap(context_.get(), region.handle);
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

RemoteRegion Engine::attach(int peer, std::string_view packed) {
  const RegionKey key = unpack(packed, peer);
  const auto remote = std::make_shared<Remote>();
  remote->engine = shared_from_this();
  remote->address = key.address;
  remote->region = key.region;
  if (peer != options_.rank) {
    Peer& owner = ask_to_attach(*remote, peer, key);
    // Only now: UCX does not survive a key of memory that is gone.
    const std::lock_guard lock(mutex_);
    const ucs_status_t status =
        library().ucp_ep_rkey_unpack(owner.endpoint, key.rkey.data(), &remote->key);
    if (status != UCS_OK) {
      throw Error(Code::bad_data,
                  fmt::format("UCX: cannot read the key of rank {}: {}", peer, text(status)), peer);
    }
    if (!key.has_landing) {  // else its owner is to be told of all that comes
      remote->direct = has_puts(owner.endpoint);
      map(*remote, key);
    }
  }
  return {peer, key.bytes, key.bell, {remote, reinterpret_cast<std::byte*>(remote.get())}, nullptr};
}

/// Where UCX has mapped the region, and can map its owner's doorbell.
void Engine::map(Remote& remote, const RegionKey& key) {
  const auto& lib = library();
  Peer& owner = *remote.peer;
  void* memory = nullptr;
  if (key.doorbell_rkey.empty()) return;
  if (lib.ucp_rkey_ptr(remote.key, key.address, &memory) != UCS_OK) return;
  if (!owner.doorbell) {
    ucp_rkey_h mapping = nullptr;
    if (lib.ucp_ep_rkey_unpack(owner.endpoint, key.doorbell_rkey.data(), &mapping) != UCS_OK) {
      return;
    }
    void* doorbell = nullptr;
    const bool reached = lib.ucp_rkey_ptr(mapping, key.doorbell, &doorbell) == UCS_OK;
    const std::shared_ptr<void> kept(
        mapping, [](void* m) { library().ucp_rkey_destroy(static_cast<ucp_rkey_h>(m)); });
    if (!reached) return;
    owner.doorbell = {kept, static_cast<Doorbell*>(doorbell)};
  }
  remote.mapped = static_cast<std::byte*>(memory);
}

/// Returns when the owner keeps the region for this worker.
Engine::Peer& Engine::ask_to_attach(Remote& remote, int rank, const RegionKey& key) {
  std::unique_lock lock(mutex_);
  Peer& owner = connect(rank, key.life, key.address_of_worker);
  const std::uint64_t number = ++last_number_;
  attaching_[number];
  Message message{};
  message.kind = Kind::attach;
  message.region = key.region;
  message.number = number;
  (void)send(owner, message, nullptr, 0);  // a failure is found where it is waited for
  lock.unlock();
  await_attached(owner, number).throw_if_failed();
  remote.peer = &owner;
  return owner;
}

Status Engine::await_attached(const Peer& peer, std::uint64_t number) {
  const Time deadline = steady_now() + options_.connect_timeout;
  for (;; std::this_thread::sleep_for(20us)) {
    drive();
    const std::lock_guard lock(mutex_);
    const auto found = attaching_.find(number);
    const bool late = steady_now() >= deadline;
    if (!found->second && peer.failure && !late) continue;
    const auto answer = found->second;
    attaching_.erase(found);
    if (!peer.failure) return peer.failure;
    if (!answer) {
      return {Code::timeout,
              fmt::format("rank {}: waited {:g} s for rank {} to answer over UCX; do UCX_TLS and "
                          "UCX_NET_DEVICES name a network that both hosts share (ucx_info -d)?",
                          options_.rank, to_seconds(options_.connect_timeout), peer.rank),
              peer.rank};
    }
    if (*answer) return {};
    return {Code::peer_lost, fmt::format("rank {} has freed the region", peer.rank), peer.rank};
  }
}

/// Behind all that was put by it.
void Engine::detach(const Remote& remote) {
  if (remote.peer == nullptr) return;
  const std::lock_guard lock(mutex_);
  if (remote.key != nullptr) library().ucp_rkey_destroy(remote.key);
  if (!remote.peer->failure) return;
  Message message{};
  message.kind = Kind::detach;
  message.region = remote.region;
  if (library().ucp_worker_fence(worker_) == UCS_OK) (void)send(*remote.peer, message, nullptr, 0);
}

/// Says hello on the first connection, so that the peer connects back and each hears the other.
/// That a life is a new one is the end of an earlier one.
Engine::Peer& Engine::connect(int rank, std::uint64_t life, std::string_view address) {
  Peer& peer = peers_[life];
  if (peer.endpoint != nullptr) return peer;
  peer.engine = this;
  peer.rank = rank;
  peer.heard = steady_now();
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.address = reinterpret_cast<const ucp_address_t*>(address.data());
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler = {&on_broken, &peer};
  ucs_status_t status = library().ucp_ep_create(worker_, &params, &peer.endpoint);
  peer.notices_failure = status == UCS_OK;
  if (status == UCS_ERR_UNREACHABLE || status == UCS_ERR_UNSUPPORTED) {
    // UCX's shared memory cannot tell (1.13): process descriptors and heartbeats do.
    params.err_mode = UCP_ERR_HANDLING_MODE_NONE;
    status = library().ucp_ep_create(worker_, &params, &peer.endpoint);
  }
  if (status != UCS_OK) {
    peers_.erase(life);
    throw Error(Code::not_supported,
                fmt::format("UCX cannot reach rank {}: {}; UCX_TLS and UCX_NET_DEVICES must name a "
                            "network that both hosts share (ucx_info -d)",
                            rank, text(status)),
                rank);
  }
  if (Peer* const former = current(rank); former != nullptr && former->failure) {
    lose(*former, "it has been started again");
  }
  current_[rank] = &peer;
  Message hello{};
  hello.kind = Kind::hello;
  (void)send(peer, hello, address_.data(), address_.size());  // a failure is the next put's too
  return peer;
}

Engine::Peer* Engine::current(int rank) {
  const auto found = current_.find(rank);
  return found != current_.end() ? found->second : nullptr;
}

// ---- Puts.

Status Engine::put(const RemoteRegion& to, std::size_t offset, const void* from, std::size_t bytes,
                   const Signal* signal) {
  const auto& remote = *reinterpret_cast<const Remote*>(to.memory.get());
  const std::lock_guard lock(mutex_);
  Peer* const there = remote.peer;
  if (there != nullptr && !there->failure) return there->failure;
  if (bytes == 0 && signal == nullptr) return {};
  // Nothing that UCX carries may be overtaken. Who has memory of a GPU has words stored behind what
  // is on its way there.
  if (remote.mapped != nullptr && !announcer_ && there->drained == there->posted) {
    return put_mapped(*there, to, offset, from, bytes, signal);
  }
  Message message{};
  message.kind = Kind::write;
  message.region = remote.region;
  message.offset = offset;
  if (signal != nullptr) {
    message.kind = Kind::signal;
    message.word_offset = signal->offset;
    message.word = signal->word;
  }
  if (there == nullptr) {
    land(message, static_cast<const std::byte*>(from), bytes);
    return {};
  }
  Peer& peer = *there;
  ++peer.posted;
  if (bytes <= small_bytes) return send(peer, message, from, bytes);
  const auto* source = static_cast<const std::byte*>(from);
  const Status status = remote.direct ? put_direct(peer, remote, offset, source, bytes)
                                      : put_in_messages(peer, message, source, bytes);
  if (!status || signal == nullptr) return status;
  if (const ucs_status_t fenced = library().ucp_worker_fence(worker_); fenced != UCS_OK) {
    lose(peer, fmt::format("cannot order a word behind its payload: {}", text(fenced)));
    return peer.failure;
  }
  return send(peer, message, nullptr, 0);
}

/// By store, as through any shared memory. Services are woken by a message, as their thread sleeps
/// on the network.
Status Engine::put_mapped(Peer& peer, const RemoteRegion& to, std::size_t offset, const void* from,
                          std::size_t bytes, const Signal* signal) {
  std::byte* const memory = reinterpret_cast<const Remote*>(to.memory.get())->mapped;
  copy_bytes(memory + offset, from, bytes);
  if (signal == nullptr) return {};
  // Pairs with Region::word.
  std::atomic_ref<Word>(*reinterpret_cast<Word*>(memory + signal->offset))
      .store(signal->word, std::memory_order_release);
  if (to.bell == Bell::worker) {
    if (must_wake(*peer.doorbell, Bell::worker)) wake_worker(*peer.doorbell);
    return {};
  }
  Message nudge{};
  nudge.kind = Kind::nudge;
  return send(peer, nudge, nullptr, 0);
}

bool Engine::is_registered(const std::byte* begin, std::size_t bytes) const {
  const auto next = spans_.upper_bound(begin);
  if (next == spans_.begin()) return false;
  const auto& [data, size] = *std::prev(next);
  return begin + bytes <= data + size;
}

Engine::Sending* Engine::new_sending(const std::byte** from, std::size_t bytes) {
  if (free_sendings_.empty()) {
    sendings_.push_back(std::make_unique<Sending>(Sending{this, {}, {}}));
    free_sendings_.push_back(sendings_.back().get());
  }
  Sending* const sending = free_sendings_.back();
  free_sendings_.pop_back();
  if (!is_registered(*from, bytes)) {
    sending->copy.assign(*from, *from + bytes);
    *from = sending->copy.data();
  }
  return sending;
}

/// By UCX itself, where the network has puts.
Status Engine::put_direct(Peer& peer, const Remote& remote, std::uint64_t offset,
                          const std::byte* from, std::size_t bytes) {
  Sending* const sending = new_sending(&from, bytes);
  const ucp_request_param_t param = from_host(&on_put, sending);
  const ucs_status_ptr_t request = library().ucp_put_nbx(
      peer.endpoint, from, bytes, remote.address + offset, remote.key, &param);
  if (!UCS_PTR_IS_PTR(request)) free_sendings_.push_back(sending);
  return posted(peer, request);
}

/// In messages, where UCX would do no better: its own emulation of puts copies them once more,
/// writes unchecked, and aborts the process if its answer meets a peer that has just died (1.13).
Status Engine::put_in_messages(Peer& peer, const Message& put, const std::byte* from,
                               std::size_t bytes) {
  Status status;
  for (std::size_t done = 0; status && done < bytes; done += fragment_bytes) {
    const std::size_t count = std::min(fragment_bytes, bytes - done);
    const std::byte* part = from + done;
    Sending* const sending = new_sending(&part, count);
    sending->message = put;
    sending->message.kind = Kind::write;
    sending->message.rank = options_.rank;
    sending->message.life = life_;
    sending->message.offset = put.offset + done;
    ucp_request_param_t param = from_host(&on_put, sending);
    param.op_attr_mask |= UCP_OP_ATTR_FIELD_FLAGS;
    param.flags = UCP_AM_SEND_FLAG_EAGER;
    const ucs_status_ptr_t request = library().ucp_am_send_nbx(
        peer.endpoint, message_id, &sending->message, sizeof sending->message, part, count, &param);
    if (!UCS_PTR_IS_PTR(request)) free_sendings_.push_back(sending);
    status = posted(peer, request);
  }
  return status;
}

Status Engine::send(Peer& peer, Message message, const void* payload, std::size_t bytes) {
  if (bytes > small_bytes) {
    return {Code::not_supported, fmt::format("UCX: a message of {} bytes", bytes), peer.rank};
  }
  if (free_parcels_.empty()) {
    parcels_.push_back(std::make_unique<Parcel>());
    parcels_.back()->engine = this;
    free_parcels_.push_back(parcels_.back().get());
  }
  Parcel* const parcel = free_parcels_.back();
  free_parcels_.pop_back();
  message.rank = options_.rank;
  message.life = life_;
  std::memcpy(parcel->bytes.data(), &message, sizeof message);
  if (bytes > 0) std::memcpy(parcel->bytes.data() + sizeof message, payload, bytes);
  ucp_request_param_t param = from_host(&on_sent, parcel);
  param.op_attr_mask |= UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = UCP_AM_SEND_FLAG_EAGER;
  const ucs_status_ptr_t request = library().ucp_am_send_nbx(
      peer.endpoint, message_id, nullptr, 0, parcel->bytes.data(), sizeof message + bytes, &param);
  if (!UCS_PTR_IS_PTR(request)) free_parcels_.push_back(parcel);
  return posted(peer, request);
}

/// What UCX has not done at once it does when it is driven.
Status Engine::posted(Peer& peer, ucs_status_ptr_t request) {
  if (UCS_PTR_IS_ERR(request)) lose(peer, text(UCS_PTR_STATUS(request)));
  if (UCS_PTR_IS_PTR(request)) parking_.nudge();
  return peer.failure;
}

/// Whether it failed is told by on_broken; where UCX cannot tell, no put fails.
void Engine::on_put(void* request, ucs_status_t, void* sending) {
  library().ucp_request_free(request);
  auto* const sent = static_cast<Sending*>(sending);
  sent->engine->free_sendings_.push_back(sent);
}

void Engine::on_sent(void* request, ucs_status_t, void* parcel) {
  library().ucp_request_free(request);
  auto* const sent = static_cast<Parcel*>(parcel);
  sent->engine->free_parcels_.push_back(sent);
}

/// The answer to a question behind all that was put so far.
bool Engine::drained(int rank) {
  const std::lock_guard lock(mutex_);
  if (current(rank) == nullptr) return true;
  Peer& peer = *current(rank);
  if (peer.drained == peer.posted || !peer.failure) return true;
  if (peer.asked < peer.posted) {
    peer.asked = peer.posted;
    Message question{};
    question.kind = Kind::drain;
    question.number = peer.asked;
    if (library().ucp_worker_fence(worker_) == UCS_OK) (void)send(peer, question, nullptr, 0);
  }
  return false;
}

}  // namespace slip::ucx
