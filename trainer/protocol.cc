#include "slipstream/trainer/protocol.h"

#include <algorithm>
#include <string>

#include "slipstream/trainer/ad_psgd.h"
#include "slipstream/trainer/all_reduce_sgd.h"
#include "slipstream/trainer/d2.h"
#include "slipstream/trainer/d_psgd.h"
#include "slipstream/trainer/div_share.h"
#include "slipstream/trainer/dybw.h"
#include "slipstream/trainer/gradient_tracking.h"
#include "slipstream/trainer/hop.h"
#include "slipstream/trainer/parameter_server.h"
#include "slipstream/trainer/prague.h"
#include "slipstream/trainer/quasi_global.h"
#include "slipstream/trainer/relay_sgd.h"
#include "slipstream/trainer/sgp.h"
#include "slipstream/trainer/swift.h"

namespace slip {
namespace {

using Maker = std::unique_ptr<ProtocolConfig> (*)();

template <class P>
std::unique_ptr<ProtocolConfig> make() {
  return std::make_unique<ProtocolConfigOf<P>>();
}

/// A protocol is registered by its line here.
constexpr std::pair<std::string_view, Maker> registry[] = {
    {AllReduceSgd::name, make<AllReduceSgd>},
    {ParameterServer::name, make<ParameterServer>},
    {DPsgd::name, make<DPsgd>},
    {AdPsgd::name, make<AdPsgd>},
    {Hop::name, make<Hop>},
    {Prague::name, make<Prague>},
    {RelaySgd::name, make<RelaySgd>},
    {Dybw::name, make<Dybw>},
    {Sgp::name, make<Sgp>},
    {D2::name, make<D2>},
    {GradientTracking::name, make<GradientTracking>},
    {QuasiGlobal::name, make<QuasiGlobal>},
    {DivShare::name, make<DivShare>},
    {Swift::name, make<Swift>},
};

}  // namespace

std::vector<std::string_view> protocol_names() {
  std::vector<std::string_view> names;
  for (const auto& [name, maker] : registry) names.push_back(name);
  return names;
}

std::unique_ptr<ProtocolConfig> make_protocol_config(std::string_view name) {
  for (const auto& [known, maker] : registry) {
    if (known == name) return maker();
  }
  std::vector<std::string> names;
  for (const std::string_view known : protocol_names()) names.emplace_back(known);
  throw Error(Code::invalid_argument, unknown_name("protocol", name, names));
}

Status Run::wait(FunctionRef<bool()> condition, std::string_view what, Time alarm) const {
  if (condition()) return {};
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
  const Time begin = world.now();
  work();
  timeline.record(kind, entered, begin, world.now());
}

}  // namespace slip
