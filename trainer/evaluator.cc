#include "slipstream/trainer/evaluator.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "slipstream/base/align_internal.h"
#include "slipstream/kernels/kernels.h"
#include "slipstream/trainer/vector_internal.h"

namespace slip {
namespace {

// In a worker's room: how many snapshots rank 0 is done with, and for how many it has called.
constexpr std::size_t closed_offset = 0;
constexpr std::size_t called_offset = 8;

// A worker's part of rank 0's region: a line with the index that it has considered, then slots of
// a line with the snapshot's index and time, and the parameters.
constexpr std::size_t index_offset = 0;
constexpr std::size_t time_offset = 8;

template <class T>
double distance(ConstVectorView a, ConstVectorView b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.count; ++i) {
    const double d = static_cast<double>(a.as<T>()[i]) - static_cast<double>(b.as<T>()[i]);
    sum += d * d;
  }
  return std::sqrt(sum);
}

/// The means over the workers' own models, and the worst accuracy among them.
void evaluate_each(const std::function<Evaluation(ConstVectorView)>& evaluate,
                   std::span<const ConstVectorView> models, CurvePoint& point) {
  const auto n = static_cast<double>(models.size());
  Evaluation& mean = point.evaluation;
  mean = {0, 0};
  point.worst_accuracy = 1;
  for (const ConstVectorView& model : models) {
    const Evaluation one = evaluate(model);
    mean.loss += one.loss / n;
    if (one.accuracy && mean.accuracy) {
      *mean.accuracy += *one.accuracy / n;
      point.worst_accuracy = std::min(*point.worst_accuracy, *one.accuracy);
    } else {
      mean.accuracy = point.worst_accuracy = std::nullopt;
    }
  }
}

}  // namespace

std::size_t Evaluator::memory(int workers, std::size_t count, Dtype dtype) {
  const std::size_t slot = line + round_up(count * size_of(dtype));
  return static_cast<std::size_t>(workers) * (line + depth * slot);
}

std::size_t Evaluator::worker_bytes() const { return memory(1, options_.count, options_.dtype); }

std::size_t Evaluator::slot(int rank, Iteration index) const {
  return static_cast<std::size_t>(rank) * worker_bytes() + line +
         index % depth * ((worker_bytes() - line) / depth);
}

Evaluator::Evaluator(const World& world, EvaluatorOptions options)
    : world_(&world),
      options_(std::move(options)),
      room_(world.allocate(options_.name + "/evaluated", line)) {
  if (world.rank() == 0) {
    collected_ =
        world.allocate(options_.name + "/snapshots",
                       memory(world.size(), options_.count, options_.dtype), Bell::progress);
    for (int rank = 0; rank < world.size(); ++rank) {
      rooms_.push_back(world.attach(world.observer(), rank, options_.name + "/evaluated"));
    }
    mean_.resize(options_.count * size_of(options_.dtype));
  }
  snapshots_ = world.attach(world.observer(), 0, options_.name + "/snapshots");
  if (world.rank() == 0) {
    if (world.clock().is_virtual()) {
      service_ = world.progress().serve(world.transport(), [this] {
        evaluate_ready();
        return false;
      });
    } else {
      service_ = world.progress().serve(world.transport(), [this] {
        {
          const std::lock_guard lock(mutex_);
          wake_ = true;
        }
        changed_.notify_one();
        return false;
      });
      thread_ = std::thread([this] { run(); });  // last: nothing may throw once it runs
    }
  }
}

Evaluator::~Evaluator() {
  service_.reset();
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void Evaluator::begin(Iteration first) { first_ = (first + options_.every - 1) / options_.every; }

/// True if this worker should leave its next snapshot. The first is of the common start.
bool Evaluator::due(Iteration iteration) const {
  const bool called_for = options_.on_call && world_->rank() != 0 && next_ > 0;
  return called_for ? next_ < iteration_of(room_.word(called_offset))
                    : (first_ + next_) * options_.every <= iteration;
}

Status Evaluator::tell_rooms(std::size_t offset, Iteration value) {
  const Word word = make_word(world_->incarnation(), value);
  for (const RemoteRegion& room : rooms_) {
    if (Status s = world_->observer().put_signal(room, 0, nullptr, 0, offset, word); !s) return s;
  }
  return {};
}

Status Evaluator::offer(Iteration iteration, ConstVectorView x, Duration since_start) {
  Transport& transport = world_->observer();
  if (const Iteration closed = closed_.load(std::memory_order_acquire); closed > published_) {
    published_ = closed;
    if (Status s = tell_rooms(closed_offset, closed); !s) return s;
  }
  const std::int64_t time = since_start.count();
  for (; due(iteration); ++next_) {
    if (options_.on_call) {  // only rank 0 knows the rooms
      if (Status s = tell_rooms(called_offset, next_ + 1); !s) return s;
    }
    const Word tag = make_word(world_->incarnation(), next_);
    if (next_ < iteration_of(room_.word(closed_offset)) + depth) {
      const std::size_t at = slot(world_->rank(), next_);
      if (Status s = to_host(&x); !s) return s;
      if (Status s = transport.put(snapshots_, at + time_offset, &time, sizeof time); !s) return s;
      if (Status s = transport.put_signal(snapshots_, at + line, x.data, x.bytes(),
                                          at + index_offset, tag);
          !s) {
        return s;
      }
    }
    const std::size_t considered = static_cast<std::size_t>(world_->rank()) * worker_bytes();
    if (Status s = transport.put_signal(snapshots_, 0, nullptr, 0, considered, tag); !s) return s;
  }
  return {};
}

/// Of a vector on a GPU a copy is taken in its place.
Status Evaluator::to_host(ConstVectorView* x) {
  if (!x->on_gpu()) return {};
  copied_.resize(x->bytes());
  const VectorView copy{copied_.data(), x->count, x->dtype};
  const Status status = transfer(*world_, copy, *x);
  *x = copy;
  return status;
}

bool Evaluator::ready() {
  const Iteration index = closed_.load(std::memory_order_relaxed);
  for (; seen_ < world_->size(); ++seen_) {
    const Word word = collected_.word(static_cast<std::size_t>(seen_) * worker_bytes());
    if (word == 0 || iteration_of(word) < index) return false;
  }
  return true;
}

void Evaluator::evaluate_next() {
  const Iteration index = closed_.load(std::memory_order_relaxed);
  const auto workers = static_cast<std::size_t>(world_->size());
  std::vector<ConstVectorView> snapshots;
  Duration last{0};
  for (int rank = 0; rank < world_->size(); ++rank) {
    const std::size_t at = slot(rank, index);
    const Word word = collected_.word(at + index_offset);
    if (word == 0 || iteration_of(word) != index) break;  // somebody left it out
    std::int64_t time = 0;
    std::memcpy(&time, collected_.data() + at + time_offset, sizeof time);
    last = std::max(last, Duration(time));
    snapshots.push_back({collected_.data() + at + line, options_.count, options_.dtype});
  }
  if (snapshots.size() == workers) {
    const VectorView mean{mean_.data(), options_.count, options_.dtype};
    const std::vector<double> weights(workers, 1.0 / static_cast<double>(workers));
    kernels::weighted_average(mean, snapshots, weights);
    CurvePoint point;
    point.at = last;
    point.iteration = (first_ + index) * options_.every;
    if (options_.each) {
      evaluate_each(options_.evaluate, snapshots, point);
    } else {
      point.evaluation = options_.evaluate(mean);
    }
    for (const ConstVectorView& snapshot : snapshots) {
      point.spread += (options_.dtype == Dtype::float32 ? distance<float>(snapshot, mean)
                                                        : distance<double>(snapshot, mean)) /
                      static_cast<double>(workers);
    }
    curve_.push_back(point);
    if (options_.target && !target_reached_ && options_.target->reached(point.evaluation)) {
      target_reached_ = point.at;
      if (options_.target->stop && options_.request_stop) options_.request_stop();
    }
  }
  seen_ = 0;
  closed_.store(index + 1, std::memory_order_release);
}

/// Not in the worker's own stack, so what `evaluate` throws is kept for it; the run is asked to
/// end.
void Evaluator::evaluate_ready() {
  if (failure_) return;
  try {
    while (ready()) evaluate_next();
  } catch (...) {
    failure_ = std::current_exception();
    if (options_.request_stop) options_.request_stop();
  }
}

void Evaluator::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return wake_ || stop_; });
    wake_ = false;
    const bool last_round = stop_;
    lock.unlock();
    evaluate_ready();
    if (last_round) return;
    lock.lock();
  }
}

void Evaluator::finish() {
  if (world_->rank() != 0) return;
  service_.reset();
  if (thread_.joinable()) {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_one();
    thread_.join();
  } else {
    evaluate_ready();
  }
  if (failure_) std::rethrow_exception(failure_);
}

}  // namespace slip
