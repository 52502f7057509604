#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "slipstream/base/error.h"
#include "slipstream/base/function_ref.h"
#include "slipstream/base/word.h"
#include "slipstream/kernels/vector.h"
#include "slipstream/runtime/world.h"
#include "slipstream/trainer/ad_psgd.h"
#include "slipstream/trainer/all_reduce_sgd.h"
#include "slipstream/trainer/checkpoint.h"
#include "slipstream/trainer/d2.h"
#include "slipstream/trainer/d_psgd.h"
#include "slipstream/trainer/div_share.h"
#include "slipstream/trainer/dybw.h"
#include "slipstream/trainer/evaluation.h"
#include "slipstream/trainer/gradient_tracking.h"
#include "slipstream/trainer/graph.h"
#include "slipstream/trainer/heterogeneity.h"
#include "slipstream/trainer/hop.h"
#include "slipstream/trainer/parameter_server.h"
#include "slipstream/trainer/prague.h"
#include "slipstream/trainer/protocol.h"
#include "slipstream/trainer/quasi_global.h"
#include "slipstream/trainer/relay_sgd.h"
#include "slipstream/trainer/sgp.h"
#include "slipstream/trainer/swift.h"
#include "slipstream/trainer/trace.h"

namespace slip {

/// A part of the model: `count` elements at `data`, copied in at the start and, after each step,
/// copied back. With null `data` it lives in Trainer::parameters() only, which saves the copies.
/// All parts of a model have one dtype, and are in one memory: the host's, or that of one GPU.
struct Parameter {
  void* data = nullptr;
  std::size_t count = 0;
  Dtype dtype = Dtype::float32;
  int device = gpu::host;  // or a GPU, by CUDA's number (gpu/device.h)
};

/// How a Trainer learns, and until when.
struct TrainerOptions {
  // The graph and its mixing weights; options of one name must be the same on all workers.
  std::string graph = "ring";                      // a name or a file (trainer/graph.h)
  std::shared_ptr<const Graph> shared_graph = {};  // goes before `graph`: many workers of one
                                                   // process share one object
  std::optional<Weights> weights =
      {};  // empty: metropolis where the graph is symmetric, else uniform

  // Momentum SGD, where step(gradient) is used.
  double learning_rate = 0.1;
  double momentum = 0;
  double weight_decay = 0;
  /// Multiplies the learning rate; empty: 1.
  std::function<double(Iteration)> schedule = {};

  // When the run ends: whatever comes first.
  Iteration iterations = max_iteration;     // how many, those of a resumed run included
  std::optional<Duration> time_limit = {};  // on this worker's clock
  std::optional<Target> target = {};        // judged from the evaluations

  /// With parameters on a GPU: the CUstream or cudaStream_t on which the trainer enqueues its work,
  /// and on which gradients are computed; null: the default stream. It outlives the trainer.
  void* stream = nullptr;

  /// Injected slowness: what `compute` lasts.
  Heterogeneity heterogeneity = {};

  // Evaluation: every so many iterations (0: never) each worker leaves a snapshot, and rank 0 hands
  // their mean to `evaluate`, on a thread of its own (in the simulator at once, in no time).
  Iteration evaluate_every = 0;
  std::function<Evaluation(ConstVectorView)> evaluate = {};  // rank 0's is used
  bool evaluate_each = false;  // each worker's model instead, and the mean of these evaluations

  bool own_start = false;          // keep each worker's own start instead of rank 0's
  bool record_parameters = false;  // keep parameters() after every iteration, for tests
  std::size_t timeline_spans = 0;  // capacity of the timeline; 0: none
  std::uint64_t seed = 1;          // kept in checkpoints
  /// What else must be the same at all workers, by name.
  std::vector<std::pair<std::string, std::string>> agreed = {};
};

/// Trains one model with its peers. The user owns the loop:
///
///     while (trainer.running()) {
///       world.compute([&] { compute_gradient(trainer.parameters(), trainer.gradient()); });
///       if (slip::Status status = trainer.step(trainer.gradient()); !status) ...
///     }
///     trainer.average();
///
/// All workers make theirs with the same options; what differs is named with both ranks and values.
/// Belongs to one thread, but for `stop`. The world outlives it.
///
/// With parameters on a GPU, parameters() and gradient() are there, too. What computes a gradient
/// is enqueued on the stream of the options; `step` enqueues what follows and waits for peers only,
/// so that the host may be ahead of the GPU. What is there is known once the stream is
/// synchronized. Not every protocol works on GPUs; the error names those that do.
class Trainer {
 public:
  /// Throws Error.
  template <class P>
  requires requires { P::name; }
  Trainer(const World& world, std::vector<Parameter> parameters, P protocol,
          TrainerOptions options = {})
      : Trainer(world, std::move(parameters),
                std::unique_ptr<ProtocolConfig>(
                    std::make_unique<ProtocolConfigOf<P>>(std::move(protocol))),
                std::move(options)) {}
  Trainer(const World& world, std::vector<Parameter> parameters,
          std::unique_ptr<ProtocolConfig> protocol, TrainerOptions options = {});
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;
  ~Trainer();

  /// False once the agreed last iteration is done, or after an error.
  bool running();

  /// All parameters as one flat vector; the address never changes. `step` writes it.
  VectorView parameters() const;
  /// Memory for a gradient of the same layout; what a protocol reads fastest.
  VectorView gradient() const;

  /// The gradient of this iteration will be dropped, so who computes it may break off and call
  /// `step` with any. Only where a protocol says so: dybw with policy=abort.
  bool superseded() const;

  /// Ends an iteration with this gradient: averages with the peers as the protocol says, applies
  /// momentum SGD, and enters the next iteration.
  Status step(VectorView gradient);
  /// The same with the user's own optimizer, which changes the parameters that it is given; on a
  /// GPU by work that it enqueues on the stream of the options.
  Status step(FunctionRef<void(VectorView)> apply);

  /// The mean model, on every rank. Collective; after the loop. Throws Error.
  void average();

  /// Asks for the end of the run: all workers end at the same iteration soon after. From any
  /// thread, also a signal's.
  void stop();

  Iteration iteration() const;
  /// Why it stopped running early; ok otherwise.
  Status status() const;

  /// This worker's parameters, momentum, iteration and seed. `load` before the first `running`. Out
  /// of what was saved for a whole world a worker takes its own momentum, or none where that world
  /// had another size. Throw Error, whose line begins with the path or `source`.
  void save(const std::string& path) const;
  void load(const std::string& path);
  Checkpoint checkpoint() const;
  void load(const Checkpoint& checkpoint, std::string_view source);

  // ---- What happened, for reports.

  /// Iterations done, skipped ones counted.
  Iteration iterations_done() const;
  /// From the common start to this worker's last iteration.
  Duration elapsed() const;
  const Timeline& timeline() const;
  /// Rank 0: the evaluations so far, in order. After the loop.
  const std::vector<CurvePoint>& curve() const;
  /// Rank 0: when the target was reached.
  std::optional<Duration> target_reached() const;
  /// With record_parameters: entry k is parameters() after the k-th iteration of this run.
  const std::vector<std::vector<double>>& recorded_parameters() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace slip
