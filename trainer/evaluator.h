#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "slipstream/base/word.h"
#include "slipstream/kernels/vector.h"
#include "slipstream/runtime/world.h"
#include "slipstream/trainer/evaluation.h"

namespace slip {

/// What is evaluated, and how often.
struct EvaluatorOptions {
  std::string name;      // goes before the names of its regions
  Iteration every = 1;   // rank 0's iterations, if on_call
  bool on_call = false;  // workers leave snapshots when rank 0 does, in whatever iteration they are
  std::size_t count = 0;  // of the parameter vector
  Dtype dtype = Dtype::float32;
  std::function<Evaluation(ConstVectorView)> evaluate;  // rank 0's is used
  bool each = false;  // evaluate each worker's model, and not their mean; the curve has the means
  std::optional<Target> target;
  /// Rank 0, from another thread: the target is reached, or `evaluate` has failed.
  std::function<void()> request_stop;
};

/// Evaluation beside the run: every `every` iterations each worker writes a snapshot into rank 0's
/// memory, and rank 0 evaluates their mean, or each, on a thread of its own, or in virtual time at
/// once and in no time. Nobody waits: where rank 0 is not done with earlier snapshots, one is left
/// out. Workers that run freely, each at its own speed, leave theirs when rank 0 calls for them.
/// Snapshots pass by modelled links, as they are no part of what is measured.
class Evaluator {
 public:
  /// Made by all workers with the same options.
  Evaluator(const World& world, EvaluatorOptions options);
  ~Evaluator();

  /// Bytes of registered memory that it takes at rank 0 for the snapshots of all workers.
  static std::size_t memory(int workers, std::size_t count, Dtype dtype);

  /// Before the first `offer`: the iteration in which all begin.
  void begin(Iteration first);

  /// This worker has entered `iteration` with parameters `x`, `since_start` after the common start.
  Status offer(Iteration iteration, ConstVectorView x, Duration since_start);

  /// Rank 0, after all workers have finished: evaluates what is left. Throws what `evaluate` threw.
  void finish();

  /// Rank 0, after `finish`.
  const std::vector<CurvePoint>& curve() const { return curve_; }
  std::optional<Duration> target_reached() const { return target_reached_; }

 private:
  static constexpr std::size_t depth = 4;  // snapshots per worker under way

  bool due(Iteration iteration) const;
  Status to_host(ConstVectorView* x);
  Status tell_rooms(std::size_t offset, Iteration value);
  std::size_t worker_bytes() const;
  std::size_t slot(int rank, Iteration index) const;
  bool ready();
  void evaluate_next();
  void evaluate_ready();
  void run();

  const World* world_;
  EvaluatorOptions options_;
  Iteration first_ = 0;     // snapshot i is of iteration (first_ + i) * every
  Iteration next_ = 0;      // index of the next snapshot
  Region room_;             // here: how many evaluations rank 0 is done with, and has called for
  RemoteRegion snapshots_;  // at rank 0
  std::vector<std::byte> copied_;  // the last snapshot, of parameters on a GPU

  // Rank 0 only.
  Region collected_;
  std::vector<RemoteRegion> rooms_;
  int seen_ = 0;                      // ranks below have considered snapshot closed_
  std::atomic<Iteration> closed_{0};  // done with; release by the evaluating thread, acquire by
                                      // the worker, which gives the slots back
  Iteration published_ = 0;           // what the workers were told
  std::vector<std::byte> mean_;
  std::vector<CurvePoint> curve_;
  std::optional<Duration> target_reached_;
  std::mutex mutex_;  // guards wake_ and stop_
  std::condition_variable changed_;
  std::exception_ptr failure_;  // of `evaluate`; ends the evaluations, thrown by `finish`
  bool wake_ = false;
  bool stop_ = false;
  std::unique_ptr<Progress::Handle> service_;
  std::thread thread_;
};

}  // namespace slip
