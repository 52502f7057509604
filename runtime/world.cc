#include "slipstream/runtime/world.h"

#include <fmt/format.h>

#include <exception>
#include <new>
#include <optional>
#include <utility>

#include "slipstream/gpu/stream.h"
#include "slipstream/kernels/cuda/launch_internal.h"
#include "slipstream/runtime/world_internal.h"
#include "slipstream/transport/shm/segment.h"

namespace slip {

std::shared_ptr<Counters> make_counters(int rank) {
  const shm::Segment segment = shm::create_segment(sizeof(Counters));
  auto* counters = new (segment.memory.get()) Counters;
  counters->rank = rank;
  return {segment.memory, counters};
}

namespace {

/// What is lost on a GPU is never announced, so somebody has to look: by a stream of its own, since
/// the default stream may not be asked while the program captures another one.
std::unique_ptr<Progress::Handle> watch_gpu(World::Parts& parts, int device) {
  if (!parts.progress) parts.progress = progress_thread();
  return parts.progress->serve(
      *parts.transport, [stream = gpu::Stream(device), rank = parts.bootstrap->rank(),
                         abort = parts.abort, waiter = parts.waiter] {
        const Status status = stream.status();
        if (status || abort->aborted()) return false;
        abort->abort({status.code(), fmt::format("rank {}: {}", rank, status.message())});
        waiter->wake();
        return false;
      });
}

}  // namespace

World::World(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
World::World(World&&) noexcept = default;
World& World::operator=(World&& other) noexcept {
  World before(std::move(other));
  std::swap(parts_, before.parts_);  // the one that this was says goodbye
  return *this;
}

World::~World() {
  if (!parts_ || aborted() || std::uncaught_exceptions() > 0) return;
  try {
    goodbye();
  } catch (const Error&) {
    // A peer was lost on the way out; its loss is reported where it matters.
  }
}

int World::rank() const { return parts_->bootstrap->rank(); }
int World::size() const { return parts_->bootstrap->size(); }
std::uint16_t World::incarnation() const { return parts_->bootstrap->incarnation(); }
Transport& World::transport() const { return *parts_->transport; }
Transport& World::observer() const {
  return parts_->observer != nullptr ? *parts_->observer : transport();
}
Bootstrap& World::bootstrap() const { return *parts_->bootstrap; }
const Clock& World::clock() const { return *parts_->clock; }
Counters& World::counters() const { return *parts_->counters; }
int World::next_number() const { return parts_->next_number++; }
const WorldOptions& World::options() const { return parts_->options; }
const Topology& World::topology() const { return parts_->topology->get(); }
int World::host_of(int rank) const { return parts_->topology->host_of(rank); }

World::Path World::path(int from, int to) const {
  if (parts_->near.transport.empty()) {
    return {std::string(transport().name()), "workers of one process"};
  }
  const auto host = [this](int rank) { return parts_->real_topology->host_of(rank); };
  return host(from) == host(to) ? parts_->near : parts_->far;
}

Status World::bind() const {
  if (!parts_->real_topology) {
    return {Code::not_supported, fmt::format("rank {}: simulated workers have no cores", rank())};
  }
  const std::vector<int>& cpus = parts_->real_topology->get().core(rank()).cpus;
  if (cpus.empty()) {
    return {Code::not_supported,
            fmt::format("rank {}: hwloc knows no core that this worker may use; do without binding",
                        rank())};
  }
  return bind_thread(cpus);
}

Progress& World::progress() const {
  if (!parts_->progress) parts_->progress = progress_thread();
  return *parts_->progress;
}

Region World::allocate(std::string_view name, std::size_t bytes, Bell bell, int device) const {
  Region region = transport().allocate(bytes, bell, device);
  if (device != gpu::host && !parts_->gpu_watch) {
    parts_->gpu_watch = watch_gpu(*parts_, device);
    kernels::cuda::load(device);
  }
  bootstrap().put(fmt::format("region/{}/{}", rank(), name), region.key());
  return region;
}

RemoteRegion World::attach(int peer, std::string_view name) const {
  return attach(transport(), peer, name);
}

RemoteRegion World::attach(Transport& by, int peer, std::string_view name) const {
  const std::string key =
      bootstrap().get(fmt::format("region/{}/{}", peer, name), options().join_timeout);
  return by.attach(peer, key);
}

Time World::deadline() const {
  const Time start = now();
  return options().wait_timeout < never - start ? start + options().wait_timeout : never;
}

Status World::wait_until(FunctionRef<bool()> condition, Time deadline,
                         std::string_view what) const {
  if (condition() || parts_->waiter->glance(condition)) return {};
  const Time start = now();
  Status status = parts_->waiter->wait(condition, deadline);
  const Time end = now();
  counters().wait_ns.add(static_cast<std::uint64_t>((end - start).count()));
  if (status.code() != Code::timeout) return status;
  return {Code::timeout,
          fmt::format("rank {}: waited {:.3g} s for {}", rank(), to_seconds(end - start), what)};
}

Status World::wait_for_gpu(const gpu::Event& event, std::string_view what) const {
  if (event.done()) return {};
  std::optional<gpu::SideStream>& waking = parts_->waking;
  try {
    if (!waking) waking.emplace(event.device());
  } catch (const Error& error) {
    return error.status();
  }
  // On a stream of its own, so that it follows the mark and nothing later.
  const gpu::Stream& stream = *waking->stream();
  if (Status s = stream.wait_for(event); !s) return s;
  const auto wake = [](void* waiter) { static_cast<Waiter*>(waiter)->wake(); };
  if (Status s = stream.then(wake, parts_->waiter.get()); !s) return s;
  const Status status = wait_until([&] { return event.done(); }, deadline(), what);
  if (status.code() == Code::timeout) fail(status);
  return status;
}

void World::wake() const { parts_->waiter->wake(); }

Status World::wait_on_stream(const Region& region, std::size_t offset, Word word) const {
  std::shared_ptr<StreamWaits>& waits = parts_->stream_waits;
  try {
    if (!waits) {
      waits = std::make_shared<StreamWaits>(region.device());
      parts_->abort->on_abort([weak = std::weak_ptr(waits)] {
        if (const auto awaited = weak.lock()) awaited->release();
      });
    }
  } catch (const Error& error) {
    return error.status();
  }
  return waits->wait(region, offset, word, gpu::current_stream(region.device()));
}

void World::set_compute_time(Duration duration) const { parts_->compute_time = duration; }

void World::cut_compute_short(std::function<bool()> until) const {
  parts_->compute_until = std::move(until);
}

void World::compute(FunctionRef<void()> work) const {
  const Time start = now();
  if (parts_->compute_until) {
    FunctionRef<bool()> until = parts_->compute_until;
    parts_->waiter->compute(work, parts_->compute_time, &until);
  } else {
    parts_->waiter->compute(work, parts_->compute_time);
  }
  counters().compute_ns.add(static_cast<std::uint64_t>((now() - start).count()));
}

void World::abort(const Status& reason) const {
  parts_->abort->abort(reason);
  parts_->waiter->wake();
}

void World::fail(const Status& reason) const {
  abort(reason);
  const bool is_consequence = reason.code() == Code::peer_lost || reason.code() == Code::aborted;
  if (!is_consequence) bootstrap().fail(reason.message());
}

bool World::aborted() const { return parts_->abort->aborted(); }
Status World::status() const { return aborted() ? parts_->abort->reason() : Status(); }

void World::goodbye() const {
  if (std::exchange(parts_->said_goodbye, true)) return;
  // From here on a peer that ends has left, and is not lost.
  parts_->watches.clear();
  // Others may still compute for as long as they like; only a loss ends this wait early.
  bootstrap().fence(never);
}

}  // namespace slip
