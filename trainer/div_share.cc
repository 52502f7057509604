#include "slipstream/trainer/div_share.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "slipstream/base/random.h"
#include "slipstream/collectives/mailbox.h"
#include "slipstream/trainer/random_peers_internal.h"

namespace slip {
namespace {

/// The paper's F: as many whole fragments as the fraction leaves room for; none is empty.
std::size_t fragments(double fraction, std::size_t parameters) {
  const auto wanted = static_cast<std::size_t>(1 / fraction + 1e-9);
  return std::clamp<std::size_t>(wanted, 1, std::max<std::size_t>(1, parameters));
}

class DivShareProtocol final : public Protocol {
 public:
  DivShareProtocol(const Run& run, const DivShare& options)
      : run_(run),
        options_(options),
        map_(run.tensors, fragments(options.fraction, run.x.count), options.map, run.seed,
             run.x.device),
        neighbourhood_(everybody(run.world.rank(), run.world.size())),
        mailbox_(run.world, run.name + "/fragments", neighbourhood_,
                 {.bytes = map_.largest() * size_of(run.x.dtype),
                  .kinds = static_cast<int>(map_.fragments()),
                  .device = run.x.device,
                  .lost = [this](const Mailbox::Message& m) {
                    return run_.heterogeneity.drops(run_.world.rank(), neighbourhood_.in[m.in].peer,
                                                    m.round, static_cast<std::uint64_t>(m.kind));
                  }}) {}

  Status enter(Iteration) override { return {}; }

  Status step(Iteration k, const GradientStep& gradient, Iteration* next) override {
    *next = k + 1;
    run_.timed(SpanKind::apply, [&] { gradient.apply(); });
    const auto steps = static_cast<Iteration>(options_.local_steps);
    if ((k + 1) % steps != 0) return {};
    if (Status s = send(k / steps); !s) return s;
    return average();
  }

  void settle() override { mailbox_.count_sent(); }

 private:
  /// The model as it is now: each fragment to workers of its own, all in random order.
  Status send(Iteration round) {
    Status status;
    run_.timed(SpanKind::send, [&] {
      own_ = mailbox_.buffer(run_.x.bytes());
      map_.gather(own(), run_.x);
      Random random(key({run_.seed, static_cast<std::uint64_t>(run_.world.rank()), round}));
      const std::size_t element = size_of(run_.x.dtype);
      for (std::size_t f = 0; f < map_.fragments(); ++f) {
        for (const std::size_t out :
             random_peers(neighbourhood_.out.size(), options_.fanout, random)) {
          letters_.push_back({out, static_cast<int>(f), round, own_, map_.first(f) * element,
                              map_.count(f) * element});
        }
      }
      shuffle(letters_, random);
      status = mailbox_.post(letters_, options_.flush);
      letters_.clear();
    });
    return status;
  }

  /// Of every fragment the mean of the worker's own and those that have come.
  Status average() {
    Status status;
    run_.timed(SpanKind::apply, [&] {
      const auto messages = mailbox_.take();
      run_.world.counters().updates_used.add(messages.size());
      for (auto begin = messages.begin(); begin != messages.end();) {
        const auto end = std::find_if(begin, messages.end(), [&](const Mailbox::Message& m) {
          return m.kind != begin->kind;
        });
        average_fragment(static_cast<std::size_t>(begin->kind), {begin, end});
        begin = end;
      }
      status = mailbox_.give_back();
    });
    return status;
  }

  VectorView own() const { return {own_.get(), run_.x.count, run_.x.dtype, run_.x.device}; }

  void average_fragment(std::size_t f, std::span<const Mailbox::Message> messages) {
    const std::size_t count = map_.count(f);
    inputs_.assign(1, own().slice(map_.first(f), count));
    for (const Mailbox::Message& m : messages) {
      inputs_.push_back({m.data, count, run_.x.dtype, run_.x.device});
    }
    weights_.assign(inputs_.size(), 1 / static_cast<double>(inputs_.size()));
    map_.average(run_.x, f, inputs_, weights_);
  }

  const Run& run_;
  const DivShare options_;
  const FragmentMap map_;
  const Neighbourhood neighbourhood_;
  Mailbox mailbox_;
  std::shared_ptr<std::byte> own_;  // the model that was sent last, in fragment order
  // Of the round at hand; they keep their capacity.
  std::vector<Mailbox::Letter> letters_;
  std::vector<ConstVectorView> inputs_;
  std::vector<double> weights_;
};

}  // namespace

Options DivShare::describe() {
  return Options()
      .add("fraction", fraction, "share of the model in a fragment; 1: the whole model",
           Range::between(1.0 / FragmentMap::most, 1))
      .add("fanout", fanout, "workers that a fragment is sent to", Range::at_least(1))
      .add("flush", flush, "drop what is unsent at the end of a round")
      .add("local_steps", local_steps, "iterations of a round", Range::at_least(1))
      .add("map", map, {"blocks", "shuffled"},
           "a fragment is blocks of consecutive parameters, or random ones (the paper's)");
}

void DivShare::validate(const RunShape&) const {
  const auto refuse = [](const std::string& reason) {
    throw Error(Code::invalid_argument, "div_share: " + reason);
  };
  if (!(fraction >= 1.0 / FragmentMap::most && fraction <= 1)) {
    refuse(fmt::format("fraction is from 1/{} to 1", FragmentMap::most));
  }
  if (fanout < 1) refuse("fanout is at least 1");
  if (local_steps < 1) refuse("local_steps is at least 1");
}

std::size_t DivShare::memory(const RunShape& shape) const {
  const auto others = static_cast<std::size_t>(shape.graph.size() - 1);
  const FragmentMap sizes(std::span(&shape.parameters, 1), fragments(fraction, shape.parameters),
                          FragmentMap::Order::blocks, 0);
  return Mailbox::memory(others, others, sizes.largest() * size_of(shape.dtype),
                         static_cast<int>(sizes.fragments()));
}

std::unique_ptr<Protocol> DivShare::make(const Run& run) const {
  return std::make_unique<DivShareProtocol>(run, *this);
}

SLIP_PROTOCOL(DivShare)

}  // namespace slip
