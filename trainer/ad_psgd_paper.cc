#include <algorithm>
#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "slipstream/base/random.h"
#include "slipstream/collectives/mailbox.h"
#include "slipstream/kernels/kernels.h"
#include "slipstream/trainer/ad_psgd_paper_internal.h"
#include "slipstream/trainer/random_peers_internal.h"

namespace slip {
namespace {

constexpr int question = 0;
constexpr int answer = 1;
constexpr int kinds = 2;

class PaperAdPsgd final : public Protocol {
 public:
  PaperAdPsgd(const Run& run, const AdPsgd& options)
      : run_(run),
        options_(options),
        neighbourhood_(everybody(run.world.rank(), run.world.size())),
        mailbox_(run.world, run.name + "/models", neighbourhood_,
                 {.bytes = run.x.bytes(),
                  .kinds = kinds,
                  .device = run.x.device,
                  .answer = [this](const auto& m) { return reply(m); }}) {}

  Status enter(Iteration) override {
    return latest_ ? Status() : keep(mailbox_.buffer(run_.x.bytes()));
  }

  Status step(Iteration k, const GradientStep& gradient, Iteration* next) override {
    *next = k + 1;
    run_.timed(SpanKind::apply, [&] { gradient.apply(); });
    const auto steps = static_cast<Iteration>(options_.local_steps);
    if ((k + 1) % steps != 0) return {};
    if (Status s = ask(k / steps); !s) return s;
    return average();
  }

  void settle() override { mailbox_.count_sent(); }

 private:
  /// The model as it is now, to be sent out of `buffer`.
  Status keep(std::shared_ptr<std::byte> buffer) {
    kernels::copy({buffer.get(), run_.x.count, run_.x.dtype, run_.x.device}, run_.x);
    if (Status s = mailbox_.follow(); !s) return s;
    const std::lock_guard lock(mutex_);
    latest_ = std::move(buffer);
    return {};
  }

  /// Half as many questions as models are to be exchanged, which wait behind those of rounds
  /// before.
  Status ask(Iteration round) {
    Status status;
    run_.timed(SpanKind::send, [&] {
      status = keep(mailbox_.buffer(run_.x.bytes()));
      if (!status) return;
      Random random(key({run_.seed, static_cast<std::uint64_t>(run_.world.rank()), round}));
      const int questions = std::max(1, options_.fanout / 2);
      std::vector<Mailbox::Letter> letters;
      for (const std::size_t out : random_peers(neighbourhood_.out.size(), questions, random)) {
        letters.push_back({out, question, round, latest_, 0, run_.x.bytes()});
      }
      status = mailbox_.post(letters, false);
    });
    return status;
  }

  /// On the progress thread: the model of this worker's last round.
  std::optional<Mailbox::Letter> reply(const Mailbox::Message& message) {
    const std::lock_guard lock(mutex_);
    if (message.kind != question || !latest_) return std::nullopt;
    // Questions may be seen in another order than that of their rounds.
    return Mailbox::Letter{message.in, answer, answers_++, latest_, 0, run_.x.bytes()};
  }

  /// The mean of the worker's own and all that has come, questions and answers alike.
  Status average() {
    Status status;
    run_.timed(SpanKind::apply, [&] {
      const auto messages = mailbox_.take();
      run_.world.counters().updates_used.add(messages.size());
      inputs_.assign(1, run_.x);
      for (const auto& m : messages)
        inputs_.push_back({m.data, run_.x.count, run_.x.dtype, run_.x.device});
      weights_.assign(inputs_.size(), 1 / static_cast<double>(inputs_.size()));
      kernels::weighted_average(run_.x, inputs_, weights_);
      status = mailbox_.give_back();
    });
    return status;
  }

  const Run& run_;
  const AdPsgd options_;
  const Neighbourhood neighbourhood_;
  std::mutex mutex_;  // guards latest_ and answers_
  std::shared_ptr<std::byte> latest_;
  Iteration answers_ = 0;  // given so far
  std::vector<ConstVectorView> inputs_;
  std::vector<double> weights_;
  Mailbox mailbox_;  // last: its service uses the others
};

}  // namespace

std::size_t paper_ad_psgd_memory(const RunShape& shape) {
  const auto others = static_cast<std::size_t>(shape.graph.size() - 1);
  return Mailbox::memory(others, others, shape.parameters * size_of(shape.dtype), kinds);
}

std::unique_ptr<Protocol> make_paper_ad_psgd(const Run& run, const AdPsgd& options) {
  return std::make_unique<PaperAdPsgd>(run, options);
}

}  // namespace slip
