#include "slipstream/trainer/parameter_server.h"

#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include "slipstream/base/align_internal.h"
#include "slipstream/gpu/side_stream.h"
#include "slipstream/kernels/kernels.h"
#include "slipstream/trainer/vector_internal.h"

namespace slip {
namespace {

/// How a vector is spread over the servers, which are the first ranks. What goes between a worker
/// and a server takes a lane: a line with a word, then the server's shard.
struct Shards {
  Shards(ParameterServer::Servers kind, int workers, std::size_t elements, Dtype dtype)
      : count(elements) {
    const std::size_t per_line = line / size_of(dtype);
    const std::size_t most =
        kind == ParameterServer::Servers::single ? 1 : static_cast<std::size_t>(workers);
    shard = std::max<std::size_t>(1, (count + most * per_line - 1) / (most * per_line)) * per_line;
    servers = std::max<std::size_t>(1, (count + shard - 1) / shard);
    lane = line + round_up(std::min(shard, count) * size_of(dtype));
  }

  std::size_t first(std::size_t server) const { return server * shard; }
  std::size_t size(std::size_t server) const { return std::min(shard, count - first(server)); }

  std::size_t count;
  std::size_t shard = 0;    // elements, at most
  std::size_t servers = 0;  // none without elements, unless there are none at all
  std::size_t lane = 0;     // bytes
};

/// A worker, and a server on its progress thread.
class ParameterServerProtocol : public Protocol {
 public:
  ParameterServerProtocol(const Run& run, const ParameterServer& options)
      : run_(run),
        shards_(options.servers, run.world.size(), run.x.count, run.x.dtype),
        answers_(run.world.allocate(run.name + "/answers", shards_.servers * shards_.lane,
                                    Bell::worker, run.x.device)),
        side_(run.x.device) {
    if (server() < shards_.servers) {
      const auto workers = static_cast<std::size_t>(run.world.size());
      pushes_ = run.world.allocate(run.name + "/pushes", workers * shards_.lane, Bell::progress,
                                   run.x.device);
      for (int worker = 0; worker < run.world.size(); ++worker) {
        workers_.push_back(run.world.attach(worker, run.name + "/answers"));
      }
    }
    for (std::size_t s = 0; s < shards_.servers; ++s) {
      servers_.push_back(run.world.attach(static_cast<int>(s), run.name + "/pushes"));
    }
  }

  Status enter(Iteration) override {
    if (serving_ || workers_.empty()) return {};
    // The start is known now; who was faster may have pushed already.
    open();
    if (Status s = side_.follow(); !s) return s;
    serving_ = run_.world.progress().serve(run_.world.transport(), [this] {
      const gpu::CurrentStream enqueuing(side_.stream());
      return serve();
    });
    return {};
  }

 protected:
  // ---- As a worker.

  /// Sends `vector` to the servers, and replaces `result` by what they answer.
  Status exchange(Iteration k, VectorView vector, VectorView result) {
    Counters& counters = run_.world.counters();
    counters.bytes_sent.add(vector.bytes() + sent_.exchange(0, std::memory_order_relaxed));
    counters.updates_sent.add(1);
    const Iteration number = k + 1;
    const Word word = make_word(run_.world.incarnation(), number);
    const std::size_t lane = static_cast<std::size_t>(run_.world.rank()) * shards_.lane;
    Status status;
    run_.timed(SpanKind::send, [&] {
      for (std::size_t s = 0; status && s < shards_.servers; ++s) {
        const VectorView part = part_of(vector, s);
        status = run_.world.transport().put_signal(servers_[s], lane + line, part.data,
                                                   part.bytes(), lane, word);
      }
    });
    if (!status) return status;
    const auto answered = [&] {
      for (std::size_t s = 0; s < shards_.servers; ++s) {
        if (iteration_of(answers_.word(s * shards_.lane)) != number) return false;
      }
      return true;
    };
    if (Status s = run_.wait(answered, "the servers"); !s) return s;
    run_.timed(SpanKind::apply, [&] {
      for (std::size_t s = 0; s < shards_.servers; ++s) {
        const std::byte* answer = answers_.data() + s * shards_.lane + line;
        kernels::copy(part_of(result, s), {answer, shards_.size(s), result.dtype, result.device});
      }
    });
    counters.updates_used.add(1);
    return {};
  }

  VectorView part_of(VectorView vector, std::size_t s) const {
    return vector.slice(shards_.first(s), shards_.size(s));
  }

  // ---- As a server, on the progress thread.

  virtual void open() {}
  /// Looks at what the workers have pushed, and answers. True if there was anything new.
  virtual bool serve() = 0;

  std::size_t server() const { return static_cast<std::size_t>(run_.world.rank()); }
  std::size_t workers() const { return workers_.size(); }
  Iteration pushed(std::size_t worker) const {
    return iteration_of(pushes_.word(worker * shards_.lane));
  }
  VectorView push_of(std::size_t worker) const {
    return {pushes_.data() + worker * shards_.lane + line, shards_.size(server()), run_.x.dtype,
            run_.x.device};
  }
  void answer(std::size_t worker, Iteration number, ConstVectorView shard) {
    sent_.fetch_add(shard.bytes(), std::memory_order_relaxed);
    const Status status = run_.world.transport().put_signal(
        workers_[worker], server() * shards_.lane + line, shard.data, shard.bytes(),
        server() * shards_.lane, make_word(run_.world.incarnation(), number));
    if (!status) run_.world.abort(status);
  }

  const Run& run_;
  const Shards shards_;

 private:
  Region answers_;                      // here, by server
  Region pushes_;                       // at a server, by worker
  std::vector<RemoteRegion> servers_;   // their pushes
  std::vector<RemoteRegion> workers_;   // at a server: their answers
  std::atomic<std::uint64_t> sent_{0};  // by the server and not counted yet; relaxed
  gpu::SideStream side_;                // the server's

 protected:
  std::unique_ptr<Progress::Handle> serving_;
};

class Synchronous final : public ParameterServerProtocol {
 public:
  Synchronous(const Run& run, const ParameterServer& options)
      : ParameterServerProtocol(run, options),
        weights_(static_cast<std::size_t>(run.world.size()), 1.0 / run.world.size()) {}
  ~Synchronous() override { serving_.reset(); }

  Status step(Iteration k, const GradientStep& gradient, Iteration* next) override {
    *next = k + 1;
    if (gradient.gradient) {
      if (Status s = exchange(k, *gradient.gradient, *gradient.gradient); !s) return s;
      run_.timed(SpanKind::apply, [&] { gradient.apply(); });
      return {};
    }
    run_.timed(SpanKind::apply, [&] { gradient.apply(); });
    return exchange(k, run_.x, run_.x);
  }

 private:
  void open() override { mean_ = Vector(push_of(0)); }

  bool serve() override {
    const Iteration number = pushed(0);
    if (number == answered_) return false;
    inputs_.clear();
    for (std::size_t worker = 0; worker < workers(); ++worker) {
      if (pushed(worker) != number) return false;
      inputs_.push_back(push_of(worker));
    }
    answered_ = number;
    // Nobody pushes again before it has this answer, so the last one is not under way any more.
    const VectorView mean = mean_.view();
    kernels::weighted_average(mean, inputs_, weights_);
    for (std::size_t worker = 0; worker < workers(); ++worker) answer(worker, number, mean);
    return true;
  }

  const std::vector<double> weights_;
  std::vector<ConstVectorView> inputs_;
  Vector mean_;
  Iteration answered_ = 0;
};

class Asynchronous final : public ParameterServerProtocol {
 public:
  Asynchronous(const Run& run, const ParameterServer& options)
      : ParameterServerProtocol(run, options),
        change_(run.x),
        answered_(static_cast<std::size_t>(run.world.size())) {}
  ~Asynchronous() override { serving_.reset(); }

  Status step(Iteration k, const GradientStep& gradient, Iteration* next) override {
    *next = k + 1;
    const VectorView change = change_.view();
    run_.timed(SpanKind::apply, [&] {
      kernels::copy(change, run_.x);
      gradient.apply();
      const ConstVectorView inputs[] = {run_.x, change};
      const double weights[] = {1, -1};
      kernels::weighted_average(change, inputs, weights);
    });
    return exchange(k, change, run_.x);
  }

 private:
  void open() override {
    model_ = Vector(push_of(0));
    kernels::copy(model_.view(), part_of(run_.x, server()));
  }

  bool serve() override {
    bool any = false;
    for (std::size_t worker = 0; worker < workers(); ++worker) {
      const Iteration number = pushed(worker);
      if (number == answered_[worker]) continue;
      answered_[worker] = number;
      any = true;
      const VectorView push = push_of(worker);
      kernels::axpy(model_.view(), 1.0 / static_cast<double>(workers()), push);
      // The answer goes out of the push's lane, which nobody writes until it has come.
      kernels::copy(push, model_.view());
      answer(worker, number, push);
    }
    return any;
  }

  Vector change_;
  Vector model_;                     // this server's shard
  std::vector<Iteration> answered_;  // by worker
};

}  // namespace

Options ParameterServer::describe() {
  return Options()
      .add("mode", mode, {"synchronous", "asynchronous"},
           "all take the mean gradient's step, or each goes on from the servers' model")
      .add("servers", servers, {"sharded", "single"},
           "every worker serves a part, or rank 0 serves all");
}

std::size_t ParameterServer::memory(const RunShape& shape) const {
  const int workers = shape.graph.size();
  const Shards shards(servers, workers, shape.parameters, shape.dtype);
  const bool serves = static_cast<std::size_t>(shape.rank) < shards.servers;
  return (shards.servers + (serves ? static_cast<std::size_t>(workers) : 0)) * shards.lane;
}

std::unique_ptr<Protocol> ParameterServer::make(const Run& run) const {
  if (mode == Mode::synchronous) return std::make_unique<Synchronous>(run, *this);
  return std::make_unique<Asynchronous>(run, *this);
}

SLIP_PROTOCOL(ParameterServer)

}  // namespace slip
