#include "slipstream/runtime/world.h"

#include <new>
#include <string>
#include <utility>

#include "slipstream/c_api/handles_internal.h"
#include "slipstream/runtime/launch.h"

using slip::guarded;
using slip::c_api::given;

namespace slip {

slip_world* to_c(World&& world) {
  auto* handle = new slip_world{std::move(world), nullptr};
  handle->world = &*handle->own;
  return handle;
}

World& from_c(slip_world* world) { return *world->world; }

WorldOptions from_c(const slip_world_options* options) {
  const slip_world_options o = c_api::read(options, slip_world_options_init, "slip_world_options");
  WorldOptions result;
  result.join_timeout = from_seconds(o.join_timeout);
  result.wait_timeout = from_seconds(o.wait_timeout);
  result.peer_timeout = from_seconds(o.peer_timeout);
  result.max_spin = from_seconds(o.max_spin);
  result.transport = c_api::text_or(o.transport, "auto");
  result.device = c_api::device_of(o.device, "slip_world_options");
  return result;
}

namespace {

/// Why this worker gives up.
Status reason_of(const char* reason) {
  if (reason != nullptr) return {Code::stopped, reason};
  const Status last = c_api::last_failure();
  return last ? Status(Code::stopped, "it gave up and did not say why") : last;
}

}  // namespace
}  // namespace slip

void slip_world_options_init(slip_world_options* options, size_t size) {
  const slip::WorldOptions defaults;
  slip::c_api::write({.size = size,
                      .join_timeout = slip::to_seconds(defaults.join_timeout),
                      .wait_timeout = slip::to_seconds(defaults.wait_timeout),
                      .peer_timeout = slip::to_seconds(defaults.peer_timeout),
                      .max_spin = slip::to_seconds(defaults.max_spin),
                      .transport = "auto",
                      .device = SLIP_HOST},
                     options, size);
}

slip_status slip_world_connect(const slip_world_options* options, slip_world** world) {
  return guarded([&] {
    given(world, "world") = nullptr;
    *world = slip::to_c(slip::World::connect(slip::from_c(options)));
  });
}

void slip_world_free(slip_world* world) {
  if (world != nullptr && world->own) delete world;
}

slip_status slip_launch(int workers, slip_status (*work)(slip_world*, void*), void* context) {
  return guarded([&] {
    given(work, "work");
    slip::launch(workers, [&](slip::World& world) {
      slip_world handle{std::nullopt, &world};
      const slip_status status = work(&handle, context);
      if (status == SLIP_OK) return;
      const slip::Status last = slip::c_api::last_failure();
      if (static_cast<slip_status>(last.code()) == status) throw slip::Error(last);
      throw slip::Error(
          static_cast<slip::Code>(status),
          "rank " + std::to_string(world.rank()) + " returned status " + std::to_string(status));
    });
  });
}

int slip_world_rank(const slip_world* world) { return world ? world->world->rank() : -1; }
int slip_world_size(const slip_world* world) { return world ? world->world->size() : 0; }

slip_status slip_world_bind(slip_world* world) {
  return guarded([&] { return given(world, "world").world->bind(); });
}

slip_status slip_world_wait_until(slip_world* world, int (*condition)(void*), void* context,
                                  double seconds, const char* what) {
  return guarded([&] {
    given(condition, "condition");
    slip::World& w = *given(world, "world").world;
    const slip::Time deadline =
        seconds < 0 ? w.deadline() : slip::add(w.now(), slip::from_seconds(seconds));
    return w.wait_until([&] { return condition(context) != 0; }, deadline,
                        what != nullptr ? what : "a condition");
  });
}

slip_status slip_world_fence(slip_world* world) {
  return guarded([&] {
    const slip::World& w = *given(world, "world").world;
    w.bootstrap().fence(w.options().wait_timeout);
  });
}

slip_status slip_world_compute(slip_world* world, void (*work)(void*), void* context) {
  return guarded([&] {
    given(work, "work");
    given(world, "world").world->compute([&] { work(context); });
  });
}

slip_status slip_world_fail(slip_world* world, const char* reason) {
  return guarded([&] {
    const slip::World& w = *given(world, "world").world;
    // An aborted world has its reason, which the others know, and what failed since follows of it.
    w.fail(w.aborted() ? w.status() : slip::reason_of(reason));
  });
}

slip_status slip_world_abort(slip_world* world, const char* reason) {
  return guarded([&] { given(world, "world").world->abort(slip::reason_of(reason)); });
}

slip_status slip_world_status(const slip_world* world) {
  return guarded([&] { return given(world, "world").world->status(); });
}

slip_status slip_world_counters(const slip_world* world, slip_counters* counters) {
  return guarded([&] {
    const slip::Counters& c = given(world, "world").world->counters();
    const size_t size = given(counters, "counters").size;
    if (size < sizeof size || size > 4096) {
      throw slip::Error(
          slip::Code::invalid_argument,
          "slip_counters.size is " + std::to_string(size) + "; set it to sizeof(slip_counters)");
    }
    slip::c_api::write({.size = size,
                        .iteration = c.iteration.get(),
                        .iterations_skipped = c.iterations_skipped.get(),
                        .compute_ns = c.compute_ns.get(),
                        .wait_ns = c.wait_ns.get(),
                        .bytes_sent = c.bytes_sent.get(),
                        .updates_sent = c.updates_sent.get(),
                        .updates_used = c.updates_used.get(),
                        .updates_late = c.updates_late.get(),
                        .max_gap_seen = c.max_gap_seen.get()},
                       counters, size);
  });
}
