#include "slipstream/trainer/sgp.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "slipstream/trainer/gossip.h"

namespace slip {
namespace {

constexpr std::string_view graph_name = "exponential";

std::size_t place_of(const std::vector<Neighbour>& neighbours, int peer) {
  const auto at = std::find_if(neighbours.begin(), neighbours.end(),
                               [peer](const Neighbour& n) { return n.peer == peer; });
  return static_cast<std::size_t>(at - neighbours.begin());
}

class SgpProtocol final : public GossipProtocol {
 public:
  SgpProtocol(const Run& run, const Sgp& options, const Neighbourhood& neighbourhood)
      : GossipProtocol(run, neighbourhood, run.x.count, static_cast<Iteration>(options.averages)),
        options_(options) {
    const int n = run.world.size(), rank = run.world.rank();
    for (long hop = 1; hop < n; hop *= 2) {
      const int offset = static_cast<int>(hop);
      out_.push_back(place_of(neighbourhood.out, (rank + offset) % n));
      in_.push_back(place_of(neighbourhood.in, (rank - offset + n) % n));
    }
  }

 private:
  Status step(Iteration k, const GradientStep& gradient) override {
    run_.timed(SpanKind::apply, [&] { gradient.apply(); });
    if (out_.empty()) return {};
    const auto averages = static_cast<Iteration>(options_.averages);
    for (Iteration j = 0; j < averages; ++j) {
      const bool regular = options_.order == Sgp::Order::regular;
      const std::size_t e = (regular ? k * averages + j : k * (averages + j)) % out_.size();
      if (Status s = gossip_.average(run_.x, out_[e], in_[e]); !s) return s;
    }
    return {};
  }

  const Sgp options_;
  std::vector<std::size_t> out_, in_;  // by e
};

}  // namespace

Options Sgp::describe() {
  return Options()
      .add("averages", averages, "averages with a peer in each iteration", Range::between(1, 64))
      .add("order", order, {"regular", "relaysum"},
           "of the distances: in turn, or as in the code of RelaySum's experiments");
}

void Sgp::validate(const RunShape&) const {
  if (averages >= 1 && averages <= 64) return;
  throw Error(Code::invalid_argument, "sgp: averages is from 1 to 64");
}

std::size_t Sgp::memory(const RunShape& shape) const {
  const auto workers = static_cast<unsigned>(shape.graph.size());
  return Gossip::memory(static_cast<std::size_t>(std::bit_width(workers - 1)), shape.parameters,
                        shape.dtype);
}

std::unique_ptr<Protocol> Sgp::make(const Run& run) const {
  const Graph graph = Graph::named(graph_name, run.world.size());
  return std::make_unique<SgpProtocol>(run, *this, graph.neighbourhood(run.world.rank()));
}

SLIP_PROTOCOL(Sgp)

}  // namespace slip
