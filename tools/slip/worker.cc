#include "slipstream/tools/slip/worker.h"

#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <string>
#include <utility>

#include "slipstream/collectives/tree.h"
#include "slipstream/tools/slip/progress_view.h"
#include "slipstream/tools/slip/saved_run.h"
#include "slipstream/tools/slip/stop_on_signal.h"
#include "slipstream/trainer/learning_rate.h"
#include "slipstream/trainer/trainer.h"

namespace slip::cli {
namespace {

// Enough for the first thousands of iterations, little enough for thousands of workers.
std::size_t timeline_capacity(const TrainConfig& config) {
  if (config.trace.empty() && config.html.empty()) return 0;
  constexpr std::size_t of_a_worker = 50'000, of_all = 2'000'000;
  return std::min(of_a_worker, of_all / static_cast<std::size_t>(*config.workers));
}

TrainerOptions trainer_options(const Plan& plan, Task& evaluator) {
  const TrainConfig& config = plan.config;
  TrainerOptions options;
  options.graph = config.graph;
  options.shared_graph = plan.graph;
  options.weights = parse_weights(config.weights);
  options.learning_rate = *config.lr;
  options.momentum = config.momentum;
  options.weight_decay = config.weight_decay;
  options.schedule = parse_lr_schedule(config.lr_schedule);
  options.iterations = plan.iterations;
  if (config.seconds) options.time_limit = from_seconds(*config.seconds);
  options.target = parse_target(config.target);
  options.heterogeneity = heterogeneity_of(config);
  options.evaluate_every = static_cast<Iteration>(config.evaluate_every);
  options.evaluate = [&evaluator](ConstVectorView x) { return evaluator.evaluate(x); };
  options.evaluate_each = config.evaluate == "each";
  options.own_start = true;  // the task says where it starts
  options.record_parameters = config.record_parameters;
  options.timeline_spans = timeline_capacity(config);
  options.seed = config.seed;
  options.agreed = {{"task", config.task},
                    {"model", config.model},
                    {"partition", config.partition},
                    {"batch", std::to_string(config.batch)},
                    {"lr-schedule", config.lr_schedule},
                    // What is collected at the end is collected from all.
                    {"record-parameters", config.record_parameters ? "true" : "false"},
                    {"trace or html", options.timeline_spans > 0 ? "true" : "false"}};
  return options;
}

// So far; the processor's time is that of all threads where the worker is a process.
Spent spent(const World& world, bool is_process) {
  timespec time{};
  clock_gettime(is_process ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_THREAD_CPUTIME_ID, &time);
  return {.cpu = std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec),
          .waited = Duration(world.counters().wait_ns.get())};
}

void start(const World& world, const Plan& plan, Task& task, Trainer& trainer) {
  task.initialise(trainer.parameters());
  if (!task.own_start()) broadcast(world, "slip/start", trainer.parameters());
  if (plan.start) resume(world, *plan.start, plan.config, trainer);
}

void run_loop(const World& world, Task& task, Trainer& trainer, Board& board, ProgressView* view) {
  const Time begin = world.now();
  while (trainer.running()) {
    double loss = 0;
    world.compute([&] {
      loss = task.gradient(trainer.parameters(), trainer.iteration(), trainer.gradient());
    });
    if (Status status = trainer.step(trainer.gradient()); !status) break;
    board.post(trainer.iterations_done());
    if (view) view->update(trainer.iterations_done(), world.now() - begin, loss, board);
  }
  trainer.status().throw_if_failed();
}

}  // namespace

std::optional<Results> train(World& world, const Plan& plan, std::unique_ptr<Board> board,
                             const WorkerSettings& settings) {
  const TrainConfig& config = plan.config;
  const bool leads = world.rank() == 0;
  if (settings.binds) world.bind().throw_if_failed();
  const auto task = task_of(config, world.rank());
  // Evaluation runs beside the training, on a thread of its own; a task belongs to one thread.
  const auto evaluator = leads ? task_of(config, 0) : nullptr;
  Trainer trainer(world, {{nullptr, plan.parameters, plan.dtype}}, protocol_of(config),
                  trainer_options(plan, leads ? *evaluator : *task));
  start(world, plan, *task, trainer);

  // Up to the end of all: whoever is told to stop while it is done already finishes that.
  std::optional<StopOnSignal> stop;
  if (settings.stops_on_signal) stop.emplace(trainer);
  const bool is_process = is_of_processes(config);
  const Spent before = spent(world, is_process);
  {
    std::optional<ProgressView> view;
    if (leads && settings.show_progress) {
      view.emplace(
          world.size(), plan.start ? plan.start->iteration : 0,
          plan.iterations == max_iteration ? std::nullopt : std::optional(plan.iterations));
    }
    run_loop(world, *task, trainer, *board, view ? &*view : nullptr);
  }
  const Spent after = spent(world, is_process);

  trainer.average();
  Results results =
      collect_results(world, trainer, plan, {after.cpu - before.cpu, after.waited - before.waited});
  if (!config.save.empty()) save(world, trainer, config.save);
  world.goodbye();
  if (!leads) return std::nullopt;
  const Evaluation evaluation = evaluator->evaluate(trainer.parameters());
  results.report.final = {evaluation.loss, evaluation.accuracy};
  return results;
}

}  // namespace slip::cli
