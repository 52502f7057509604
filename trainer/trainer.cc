#include "slipstream/trainer/trainer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <span>
#include <sstream>
#include <utility>

#include "slipstream/collectives/tree.h"
#include "slipstream/gpu/stream.h"
#include "slipstream/runtime/agreed_stop.h"
#include "slipstream/trainer/evaluator.h"
#include "slipstream/trainer/profiler_range_internal.h"
#include "slipstream/trainer/vector_internal.h"

namespace slip {
namespace {

/// It is in the memory where it is said to be.
Status check_memory(const void* data, int device, std::string_view what) {
  if (data == nullptr) return {};
  if (device == gpu::host ? gpu::host_reaches(data) : gpu::reaches(device, data)) return {};
  return {Code::invalid_argument,
          fmt::format("{} is said to be in {}, and is in {}; give its address there", what,
                      gpu::describe(device), gpu::describe(gpu::device_of(data)))};
}

/// Room for all parts of a model.
Vector vector_of(const std::vector<Parameter>& parts) {
  if (parts.empty()) return Vector(0, Dtype::float32);
  const Parameter& first = parts.front();
  std::size_t count = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].dtype != first.dtype) {
      throw Error(Code::invalid_argument, "all parameters of a model have one type");
    }
    if (parts[i].device != first.device) {
      throw Error(Code::invalid_argument,
                  fmt::format("all parameters of a model are in one memory; parameter 0 is in {}, "
                              "and {} in {}",
                              gpu::describe(first.device), i, gpu::describe(parts[i].device)));
    }
    count += parts[i].count;
  }
  Vector vector(count, first.dtype, first.device);  // first: no such GPU is another error
  for (std::size_t i = 0; i < parts.size(); ++i) {
    check_memory(parts[i].data, first.device, fmt::format("parameter {}", i)).throw_if_failed();
  }
  return vector;
}

/// Of the parts of a model, where they are on a GPU.
std::optional<gpu::Stream> stream_of(const std::vector<Parameter>& parts, void* handle) {
  if (parts.empty() || parts.front().device == gpu::host) return std::nullopt;
  return gpu::Stream(parts.front().device, handle);
}

void require_gpu(const ProtocolConfig& config) {
  if (config.runs_on_gpu()) return;
  std::vector<std::string_view> names = protocol_names();
  std::erase_if(names, [](auto name) { return !make_protocol_config(name)->runs_on_gpu(); });
  throw Error(Code::not_supported,
              fmt::format("{} works on parameters in memory of the host only; on GPUs there are {}",
                          config.name(), fmt::join(names, ", ")));
}

VectorView view_of(const Parameter& part) {
  return {part.data, part.count, part.dtype, part.device};
}

/// Of a vector in any memory.
std::vector<std::byte> bytes_of(const World& world, ConstVectorView x) {
  std::vector<std::byte> bytes(x.bytes());
  transfer(world, {bytes.data(), x.count, x.dtype}, x).throw_if_failed();
  return bytes;
}

std::vector<std::size_t> counts_of(const std::vector<Parameter>& parts) {
  std::vector<std::size_t> counts;
  for (const Parameter& part : parts) counts.push_back(part.count);
  return counts;
}

using Entries = std::vector<std::pair<std::string, std::string>>;

/// Options that must match are compared with rank 0's; a difference is named with both values.
void agree_on(const World& world, const std::string& what, const Entries& mine) {
  std::string text;
  for (const auto& [name, value] : mine) text += name + "=" + value + "\n";
  if (world.rank() == 0) {
    world.bootstrap().put(what, text);
    return;
  }
  std::istringstream theirs(world.bootstrap().get(what, world.options().join_timeout));
  std::string line;
  for (const auto& [name, value] : mine) {
    if (std::getline(theirs, line) && line == name + "=" + value) continue;
    throw Error(
        Code::peer_mismatch,
        fmt::format("the workers disagree: rank {} has {}={}, rank 0 has {}; start all with "
                    "the same options",
                    world.rank(), name, value, line.empty() ? "nothing" : line),
        0);
  }
}

}  // namespace

struct __attribute__((visibility("hidden"))) Trainer::Impl {
  Impl(const World& world, std::vector<Parameter> parameters,
       std::unique_ptr<ProtocolConfig> config, TrainerOptions options);

  Iteration agree(ProtocolConfig& config) const;
  void copy_in();
  void copy_out();
  void begin();
  std::vector<double> values() const;
  Status advance(Iteration next);
  Status ended(Status status);
  Status step(GradientStep& gradient);
  void linger();
  Duration since_start() const { return world.now() - start; }
  Status enqueued() const;
  Status keep_pace();

  const World& world;
  const std::string name;  // of this trainer among those of its world
  const TrainerOptions options;
  const std::vector<Parameter> parts;
  const std::optional<gpu::Stream> stream;  // with parameters on a GPU
  std::optional<gpu::Event> stepped;        // the end of a step, where nothing else holds the host
  const std::shared_ptr<const Graph> graph;
  Vector parameters;
  Vector own_gradient;
  const void* known_gradient = nullptr;  // to be in the parameters' memory
  Vector velocity;
  Timeline timeline;
  AgreedStop stop;
  Run run;
  std::unique_ptr<Protocol> protocol;
  const std::function<bool()> superseded;
  std::unique_ptr<Evaluator> evaluator;

  bool begun = false;
  bool done = false;     // with the last iteration
  bool settled = false;  // all are
  int averages = 0;
  Iteration first = 0;  // not 0 in a resumed run
  Iteration iterations_done = 0;
  Time start{0};
  Time end{0};
  Time compute_begin{0};
  std::optional<ProfilerRange> computing;
  Status failure;
  std::vector<std::vector<double>> recorded;
};

Trainer::Impl::Impl(const World& w, std::vector<Parameter> p,
                    std::unique_ptr<ProtocolConfig> config, TrainerOptions o)
    : world(w),
      name(fmt::format("trainer{}", w.next_number())),
      options(std::move(o)),
      parts(std::move(p)),
      stream(stream_of(parts, options.stream)),
      stepped(stream && config->free_running() ? std::optional<gpu::Event>(stream->device())
                                               : std::nullopt),
      graph(options.shared_graph
                ? options.shared_graph
                : std::make_shared<const Graph>(Graph::make(options.graph, w.size()))),
      parameters(vector_of(parts)),
      velocity(options.momentum != 0 ? parameters.view().count : 0, parameters.view().dtype,
               parameters.view().device),
      timeline(w.rank(), options.timeline_spans),
      stop(w, name, agree(*config) - 1, 2,
           config->free_running() ? AgreedStop::End::where_it_is : AgreedStop::End::together),
      run{w,
          name,
          options.seed,
          stop,
          timeline,
          *graph,
          graph->neighbourhood(w.rank()),
          options.heterogeneity,
          graph->mixing_row(w.rank(), graph->resolve(options.weights)),
          parameters.view(),
          counts_of(parts),
          0},
      protocol(config->make(run)),
      superseded(protocol->superseded()) {
  if (protocol->gradient_buffer().data == nullptr) {
    const VectorView x = parameters.view();
    own_gradient = Vector(x.count, x.dtype, x.device);
  }
  const gpu::CurrentStream enqueuing(stream);
  copy_in();
  if (!options.own_start) {
    on_host(world, parameters.view(), [&](VectorView x) { broadcast(world, name + "/start", x); });
  }
  copy_out();
  if (options.evaluate_every > 0) {
    evaluator = std::make_unique<Evaluator>(
        world, EvaluatorOptions{name, options.evaluate_every, config->free_running(),
                                parameters.view().count, parameters.view().dtype, options.evaluate,
                                options.evaluate_each, options.target, [this] { stop.request(); }});
  }
}

/// Checks the options, and that all workers have the same. How many iterations they make at most.
Iteration Trainer::Impl::agree(ProtocolConfig& config) const {
  if (options.iterations == 0) {
    throw Error(Code::invalid_argument, "a run has at least one iteration");
  }
  const VectorView x = parameters.view();
  config.validate({.graph = *graph,
                   .rank = world.rank(),
                   .parameters = x.count,
                   .dtype = x.dtype,
                   .iterations = options.iterations,
                   .simulated = world.clock().is_virtual(),
                   .lossy = options.heterogeneity.drops_any(),
                   .device = x.device});
  if (x.on_gpu()) require_gpu(config);

  Entries entries = {{"protocol", std::string(config.name())}, {"graph", options.graph}};
  const auto append = [&](const Entries& more) {
    entries.insert(entries.end(), more.begin(), more.end());
  };
  append({{"the graph's fingerprint", fmt::format("{:016x}", graph->fingerprint())},
          {"parameters", std::to_string(x.count)},
          {"type", x.dtype == Dtype::float32 ? "float32" : "float64"},
          {"memory", x.on_gpu() ? "a GPU's" : "the host's"},
          {"iterations", std::to_string(options.iterations)},
          {"evaluate_every", std::to_string(options.evaluate_every)}});
  append(config.options().entries());
  append({{"weights", std::string(to_string(graph->resolve(options.weights)))},
          {"own_start", options.own_start ? "true" : "false"},
          {"learning_rate", fmt::format("{}", options.learning_rate)},
          {"momentum", fmt::format("{}", options.momentum)},
          {"weight_decay", fmt::format("{}", options.weight_decay)},
          {"seed", std::to_string(options.seed)}});
  append(options.agreed);
  agree_on(world, name + "/options", entries);
  return std::min(options.iterations, max_iteration);
}

void Trainer::Impl::copy_in() {
  std::size_t first = 0;
  for (const Parameter& part : parts) {
    const VectorView to = parameters.view().slice(first, part.count);
    if (part.data != nullptr) kernels::copy(to, view_of(part));
    first += part.count;
  }
}

void Trainer::Impl::copy_out() {
  std::size_t first = 0;
  for (const Parameter& part : parts) {
    const VectorView from = parameters.view().slice(first, part.count);
    if (part.data != nullptr) kernels::copy(view_of(part), from);
    first += part.count;
  }
}

void Trainer::Impl::begin() {
  begun = true;
  first = run.entered;
  agree_on(world, name + "/begin", {{"the first iteration", std::to_string(first)}});
  world.bootstrap().fence(world.options().join_timeout);
  if (superseded) world.cut_compute_short(superseded);
  start = world.now();
  timeline.start_at(start);
  if (evaluator) evaluator->begin(run.entered);
  (void)ended(advance(run.entered));
}

/// Of the GPU's work, as far as it is known.
Status Trainer::Impl::enqueued() const {
  if (!stream) return {};
  const Status status = stream->status();
  if (status) return {};
  return {status.code(), fmt::format("rank {}: {}", world.rank(), status.message())};
}

/// A worker that waits for nobody may be ahead of its GPU by an iteration, and not by more: what it
/// sends and takes is to be of now.
Status Trainer::Impl::keep_pace() {
  if (!stepped) return {};
  if (Status s = world.wait_for_gpu(*stepped, "the GPU to end the iteration before"); !s) return s;
  return stepped->record(*stream);
}

Status Trainer::Impl::ended(Status status) {
  if (status) return {};
  failure = status;
  end = world.now();
  if (const Status gpu = enqueued(); !gpu) {
    failure = gpu;
    world.fail(gpu);  // what fails there is never announced to peers
  }
  return failure;
}

/// Of the parameters.
std::vector<double> Trainer::Impl::values() const {
  std::vector<double> result;
  on_host(world, parameters.view(), [&](VectorView x) {
    for (std::size_t i = 0; i < x.count; ++i) {
      result.push_back(x.dtype == Dtype::float32 ? static_cast<double>(x.as<float>()[i])
                                                 : x.as<double>()[i]);
    }
  });
  return result;
}

/// Enters `next`, or ends if the last iteration is behind.
Status Trainer::Impl::advance(Iteration next) {
  if (options.time_limit && since_start() >= *options.time_limit) stop.request();
  if (Status s = stop.poll(run.entered); !s) return s;
  const auto known = [&] { return next <= stop.bound() || next > stop.last(); };
  if (Status s = run.wait(known, "all workers to agree on the last iteration"); !s) return s;
  if (next > stop.last()) {
    done = true;
    end = world.now();
    if (superseded) world.cut_compute_short({});
    if (evaluator) {
      if (Status s = evaluator->offer(next, parameters.view(), since_start()); !s) return s;
    }
    if (Status s = protocol->finish(); !s) return s;
    copy_out();  // a protocol may average once more as it ends
    return stop.finish();
  }
  run.entered = next;
  world.counters().iteration.set(next);
  if (Status s = protocol->enter(next); !s) return s;
  if (evaluator) {
    if (Status s = evaluator->offer(next, parameters.view(), since_start()); !s) return s;
  }
  world.set_compute_time(options.heterogeneity.compute_time(world.rank(), next));
  computing.emplace(SpanKind::compute);
  compute_begin = world.now();
  return {};
}

Status Trainer::Impl::step(GradientStep& gradient) {
  if (!failure.ok()) return failure;
  if (!begun || done) {
    return {Code::invalid_argument, "step() belongs inside `while (trainer.running())`"};
  }
  // Not every protocol waits for others in every iteration, and so hears of an abort.
  if (world.aborted()) return ended(world.status());
  const Iteration k = run.entered;
  timeline.record(SpanKind::compute, k, compute_begin, world.now());
  computing.reset();
  gradient.x = parameters.view();
  Iteration next = k + 1;
  std::vector<double> before;
  if (options.record_parameters) before = values();
  if (Status s = protocol->step(k, gradient, &next); !s) return ended(s);
  if (Status s = enqueued(); !s) return ended(s);
  if (Status s = keep_pace(); !s) return ended(s);
  iterations_done = next;
  if (options.record_parameters) {
    // What was skipped has left the parameters as they were.
    recorded.resize(next - first - 1, before);
    recorded.push_back(values());
  }
  copy_out();
  return ended(advance(next));
}

/// Stays until all have finished: others may still need this worker's answer about the end.
void Trainer::Impl::linger() {
  if (!begun || !failure.ok()) return;
  ended(run.wait([&] { return stop.all_finished(); }, "the others to finish")).throw_if_failed();
  if (!std::exchange(settled, true)) protocol->settle();
}

Trainer::Trainer(const World& world, std::vector<Parameter> parameters,
                 std::unique_ptr<ProtocolConfig> protocol, TrainerOptions options)
    : impl_(std::make_unique<Impl>(world, std::move(parameters), std::move(protocol),
                                   std::move(options))) {}

Trainer::~Trainer() {
  if (impl_->superseded) impl_->world.cut_compute_short({});
  if (!impl_->done || std::uncaught_exceptions() > 0) return;
  try {
    impl_->linger();
  } catch (const Error&) {
    // A peer was lost after this worker's last iteration: nothing is left to do for it.
  }
}

bool Trainer::superseded() const { return impl_->superseded && impl_->superseded(); }

bool Trainer::running() {
  const gpu::CurrentStream enqueuing(impl_->stream);
  if (!impl_->begun) impl_->begin();
  return !impl_->done && impl_->failure.ok();
}

VectorView Trainer::parameters() const { return impl_->parameters.view(); }

VectorView Trainer::gradient() const {
  const VectorView registered = impl_->protocol->gradient_buffer();
  return registered.data != nullptr ? registered : impl_->own_gradient.view();
}

Status Trainer::step(VectorView gradient) {
  const VectorView x = parameters();
  if (gradient.count != x.count || gradient.dtype != x.dtype) {
    return {Code::invalid_argument,
            fmt::format("a gradient of {} elements for {} parameters, or of another type",
                        gradient.count, x.count)};
  }
  if (gradient.device != x.device) {
    return {Code::invalid_argument,
            fmt::format("a gradient in {} for parameters in {}", gpu::describe(gradient.device),
                        gpu::describe(x.device))};
  }
  if (gradient.data != impl_->known_gradient) {
    if (Status s = check_memory(gradient.data, x.device, "the gradient"); !s) return s;
    impl_->known_gradient = gradient.data;
  }
  const TrainerOptions& o = impl_->options;
  GradientStep step;
  step.gradient = gradient;
  step.sgd.learning_rate = o.learning_rate * (o.schedule ? o.schedule(impl_->run.entered) : 1.0);
  step.sgd.momentum = o.momentum;
  step.sgd.weight_decay = o.weight_decay;
  step.sgd.velocity = impl_->velocity.view();
  const gpu::CurrentStream enqueuing(impl_->stream);
  return impl_->step(step);
}

Status Trainer::step(FunctionRef<void(VectorView)> apply) {
  GradientStep step;
  step.function = apply;
  const gpu::CurrentStream enqueuing(impl_->stream);
  return impl_->step(step);
}

void Trainer::average() {
  Impl& impl = *impl_;
  impl.failure.throw_if_failed();
  if (!impl.done) {
    throw Error(Code::invalid_argument, "average() belongs after `while (trainer.running())`");
  }
  const gpu::CurrentStream enqueuing(impl.stream);
  impl.linger();
  if (impl.evaluator) impl.evaluator->finish();
  on_host(impl.world, parameters(), [&](VectorView x) {
    tree_mean(impl.world, fmt::format("{}/average/{}", impl.name, impl.averages++), x);
  });
  impl.copy_out();
}

void Trainer::stop() { impl_->stop.request(); }

Iteration Trainer::iteration() const { return impl_->run.entered; }
Status Trainer::status() const { return impl_->failure; }

Checkpoint Trainer::checkpoint() const {
  const gpu::CurrentStream enqueuing(impl_->stream);
  Checkpoint checkpoint{.dtype = parameters().dtype,
                        .count = parameters().count,
                        .iteration = impl_->iterations_done,
                        .seed = impl_->options.seed,
                        .parameters = bytes_of(impl_->world, parameters())};
  if (impl_->options.momentum != 0) {
    checkpoint.velocities.push_back(bytes_of(impl_->world, impl_->velocity.view()));
  }
  return checkpoint;
}

void Trainer::save(const std::string& path) const { write_checkpoint(checkpoint(), path); }

void Trainer::load(const std::string& path) { load(read_checkpoint(path), path); }

void Trainer::load(const Checkpoint& checkpoint, std::string_view source) {
  Impl& impl = *impl_;
  if (impl.begun) throw Error(Code::invalid_argument, "load() belongs before running()");
  const VectorView x = parameters();
  if (checkpoint.count != x.count || checkpoint.dtype != x.dtype) {
    throw Error(Code::bad_data,
                fmt::format("{}: holds a model of {} parameters, this one has {} (or their types "
                            "differ)",
                            source, checkpoint.count, x.count));
  }
  if (checkpoint.iteration >= impl.options.iterations) {
    throw Error(Code::invalid_argument,
                fmt::format("{}: has done {} iterations already; give more than that", source,
                            checkpoint.iteration));
  }
  const gpu::CurrentStream enqueuing(impl.stream);
  const auto take = [&](VectorView to, const Checkpoint::Vector& from) {
    transfer(impl.world, to, {from.data(), to.count, to.dtype}).throw_if_failed();
  };
  take(x, checkpoint.parameters);
  const bool mine = checkpoint.workers == 0 || checkpoint.workers == impl.world.size();
  if (mine && !checkpoint.velocities.empty() && impl.options.momentum != 0) {
    const int place = checkpoint.workers == 0 ? 0 : impl.world.rank();
    take(impl.velocity.view(), checkpoint.velocities[static_cast<std::size_t>(place)]);
  }
  impl.run.entered = checkpoint.iteration;
  impl.iterations_done = checkpoint.iteration;
  impl.copy_out();
}

Iteration Trainer::iterations_done() const { return impl_->iterations_done; }
Duration Trainer::elapsed() const { return impl_->end - impl_->start; }
const Timeline& Trainer::timeline() const { return impl_->timeline; }

const std::vector<CurvePoint>& Trainer::curve() const {
  static const std::vector<CurvePoint> none;
  return impl_->evaluator ? impl_->evaluator->curve() : none;
}

std::optional<Duration> Trainer::target_reached() const {
  return impl_->evaluator ? impl_->evaluator->target_reached() : std::nullopt;
}

const std::vector<std::vector<double>>& Trainer::recorded_parameters() const {
  return impl_->recorded;
}

}  // namespace slip
