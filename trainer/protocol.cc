#include "slipstream/trainer/protocol.h"

#include <algorithm>
#include <string>

#include "slipstream/trainer/profiler_range_internal.h"

/// A protocol is registered by its line here.
#define SLIP_PROTOCOLS(LINE) \
  LINE(AllReduceSgd)         \
  LINE(ParameterServer)      \
  LINE(DPsgd)                \
  LINE(AdPsgd)               \
  LINE(Hop)                  \
  LINE(Prague)               \
  LINE(RelaySgd)             \
  LINE(Dybw)                 \
  LINE(Sgp)                  \
  LINE(D2)                   \
  LINE(GradientTracking)     \
  LINE(QuasiGlobal)          \
  LINE(DivShare)             \
  LINE(Swift)

namespace slip {

#define SLIP_DECLARE(P) \
  __attribute__((visibility("hidden"))) std::unique_ptr<ProtocolConfig> make_config_of_##P();
SLIP_PROTOCOLS(SLIP_DECLARE)
#undef SLIP_DECLARE

namespace {

using Maker = std::unique_ptr<ProtocolConfig> (*)();

#define SLIP_ENTRY(P) make_config_of_##P,
constexpr Maker registry[] = {SLIP_PROTOCOLS(SLIP_ENTRY)};
#undef SLIP_ENTRY

}  // namespace

std::vector<std::string_view> protocol_names() {
  std::vector<std::string_view> names;
  for (const Maker make : registry) names.push_back(make()->name());  // of static life
  return names;
}

std::unique_ptr<ProtocolConfig> make_protocol_config(std::string_view name) {
  std::vector<std::string> names;
  for (const Maker make : registry) {
    auto config = make();
    if (config->name() == name) return config;
    names.emplace_back(config->name());
  }
  throw Error(Code::invalid_argument, unknown_name("protocol", name, names));
}

Status Run::wait(FunctionRef<bool()> condition, std::string_view what, Time alarm) const {
  if (condition()) return {};
  const ProfilerRange range(SpanKind::wait);
  const Time begin = world.now();
  Status status;
  do {
    const Time deadline = world.deadline();
    status = world.wait_until([&] { return condition() || stop.pending(); },
                              std::min(alarm, deadline), what);
    if (status.code() == Code::timeout && alarm <= deadline) {
      status = {};
      break;
    }
    if (status && stop.pending()) status = stop.poll(entered);
  } while (status && !condition());
  const Time end = world.now();
  if (end > begin) timeline.record(SpanKind::wait, entered, begin, end);
  return status;
}

void Run::timed(SpanKind kind, FunctionRef<void()> work) const {
  const ProfilerRange range(kind);
  const Time begin = world.now();
  work();
  timeline.record(kind, entered, begin, world.now());
}

}  // namespace slip
