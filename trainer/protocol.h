#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "slipstream/base/error.h"
#include "slipstream/base/function_ref.h"
#include "slipstream/base/word.h"
#include "slipstream/runtime/agreed_stop.h"
#include "slipstream/runtime/config.h"
#include "slipstream/runtime/neighbourhood.h"
#include "slipstream/runtime/world.h"
#include "slipstream/trainer/gradient_step.h"
#include "slipstream/trainer/graph.h"
#include "slipstream/trainer/heterogeneity.h"
#include "slipstream/trainer/trace.h"

namespace slip {

/// What a protocol works with: one worker's view of the run.
struct Run {
  const World& world;
  std::string name;    // goes before the names of what the protocol allocates
  std::uint64_t seed;  // of the run; the same at all workers
  AgreedStop& stop;
  Timeline& timeline;
  const Graph& graph;
  Neighbourhood neighbourhood;  // this worker's in it
  const Heterogeneity& heterogeneity;
  MixingRow weights;
  VectorView x;                      // parameters(); the address never changes
  std::vector<std::size_t> tensors;  // the elements of each of the model's parts, in their order
  Iteration entered;                 // the iteration that this worker is in

  /// Waits for peers: answers a request to stop meanwhile, and keeps the timeline. Ends at `alarm`
  /// at the latest, which is no error.
  Status wait(FunctionRef<bool()> condition, std::string_view what, Time alarm = never) const;
  /// Times `work` as `kind` on the timeline.
  void timed(SpanKind kind, FunctionRef<void()> work) const;
};

/// One way to train. The trainer calls enter(0), step(0), enter(next), step(next), ... from one
/// thread, finish() after the last step, and settle() once all workers have finished.
class Protocol {
 public:
  virtual ~Protocol() = default;

  /// Enters iteration k: waits until it may, and sends what is sent before the gradient is known.
  virtual Status enter(Iteration k) = 0;

  /// Iteration k with its gradient: averages, applies, and names the iteration to enter next: k +
  /// 1, or later where the protocol skips, but not past run.stop.bound().
  virtual Status step(Iteration k, const GradientStep& gradient, Iteration* next) = 0;

  /// The gradient of the iteration at hand is of no use any more, so its modelled time may be cut
  /// short: a condition as of World::wait_until. Empty: each is of use.
  virtual std::function<bool()> superseded() { return {}; }

  /// This worker has done its last iteration; nobody shall wait for it.
  virtual Status finish() { return {}; }

  /// All workers have done their last iteration: counters may be completed now.
  virtual void settle() {}

  /// Where a gradient is best written (registered memory); else empty and the trainer has its own.
  virtual VectorView gradient_buffer() { return {}; }
};

/// The shape of a run, for checks and sizes before anything is allocated.
struct RunShape {
  const Graph& graph;
  int rank = 0;
  std::size_t parameters = 0;  // elements
  Dtype dtype = Dtype::float32;
  Iteration iterations = max_iteration;  // max_iteration: nothing bounds them
  bool simulated = false;                // in virtual time
  bool lossy = false;                    // messages are dropped where they are received
  int device = gpu::host;                // whose memory parameters are in
};

/// A protocol's options, whatever protocol it is: what the command line, the C++ fields and the
/// reports share.
class ProtocolConfig {
 public:
  virtual ~ProtocolConfig() = default;
  virtual std::string_view name() const = 0;
  virtual std::string_view summary() const = 0;
  /// Bound to this object.
  virtual Options options() = 0;
  /// Throws Error(invalid_argument) with the reason for an illegal combination.
  virtual void validate(const RunShape& shape) const = 0;
  /// Bytes of shared memory at one worker: what --dry-run prints.
  virtual std::size_t memory(const RunShape& shape) const = 0;
  virtual std::unique_ptr<Protocol> make(const Run& run) const = 0;
  /// It goes on without messages that were lost, as `--drop` makes them.
  virtual bool tolerates_loss() const { return false; }
  /// Nothing holds the workers within a few iterations of each other. So each ends where it is when
  /// the end is asked for, and an evaluation takes all models at one time, not at one iteration.
  virtual bool free_running() const { return false; }
  /// It works on parameters in the memory of GPUs.
  virtual bool runs_on_gpu() const { return false; }
};

/// `P` is the struct that users fill in: `name`, `summary`, describe(), validate(), memory(),
/// make(), and tolerates_loss(), free_running() or runs_on_gpu() where it may be true.
template <class P>
class ProtocolConfigOf final : public ProtocolConfig {
 public:
  explicit ProtocolConfigOf(P options = {}) : options_(std::move(options)) {}
  std::string_view name() const override { return P::name; }
  std::string_view summary() const override { return P::summary; }
  Options options() override { return options_.describe(); }
  void validate(const RunShape& shape) const override {
    if (shape.lossy && !tolerates_loss()) {
      throw Error(Code::invalid_argument,
                  std::string(name()) + ": --drop needs a protocol that tolerates loss");
    }
    options_.validate(shape);
  }
  std::size_t memory(const RunShape& shape) const override { return options_.memory(shape); }
  std::unique_ptr<Protocol> make(const Run& run) const override { return options_.make(run); }
  bool tolerates_loss() const override {
    if constexpr (requires { options_.tolerates_loss(); }) return options_.tolerates_loss();
    return false;
  }
  bool free_running() const override {
    if constexpr (requires { options_.free_running(); }) return options_.free_running();
    return false;
  }
  bool runs_on_gpu() const override {
    if constexpr (requires { options_.runs_on_gpu(); }) return options_.runs_on_gpu();
    return false;
  }

 private:
  P options_;
};

/// What the file of a protocol ends with, within namespace slip: it makes the struct known to the
/// list in protocol.cc, which has a line for each.
#define SLIP_PROTOCOL(P)                                                                       \
  __attribute__((visibility("hidden"))) std::unique_ptr<ProtocolConfig> make_config_of_##P() { \
    return std::make_unique<ProtocolConfigOf<P>>();                                            \
  }

/// All protocols, in the order in which help lists them.
std::vector<std::string_view> protocol_names();
/// With its default options. Throws Error(invalid_argument), which lists the names.
std::unique_ptr<ProtocolConfig> make_protocol_config(std::string_view name);

}  // namespace slip
