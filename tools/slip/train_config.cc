#include "slipstream/tools/slip/train_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "slipstream/gpu/device.h"
#include "slipstream/trainer/learning_rate.h"
#include "slipstream/trainer/quantity.h"
#include "slipstream/trainer/tasks/task.h"
#include "slipstream/transport/ucx/ucx_transport.h"
#include "slipstream/transport/verbs/verbs_transport.h"

namespace slip::cli {
namespace {

// Where a run finds its peers and leaves its results, and how much it says.
constexpr std::array<std::string_view, 12> not_in_reports = {
    "set",  "rendezvous", "rank",   "bind",    "report", "trace",
    "html", "save",       "config", "dry-run", "quiet",  "log-level"};

[[noreturn]] void fail(const std::string& line) { throw Error(Code::invalid_argument, line); }

bool has_links(const TrainConfig& config) {
  return !config.link.empty() || !config.inner_link.empty() || !config.links.empty();
}

void check_transport(const TrainConfig& config) {
  const std::string& name = config.transport;
  std::string why;
  if (name == "cuda_ipc") {
    why = gpu::usable().message();
  } else if (name == "ucx") {
    why = ucx_unavailable();
  } else if (name == "verbs") {
    why = verbs_status(verbs_settings_from_environment()).unusable;
  } else {
    return;
  }
  if (!why.empty()) fail(fmt::format("--transport is {}, which is not available: {}", name, why));
  if (has_links(config)) {
    fail(
        fmt::format("--transport is {}; modelled links (--link, --inner-link, --links) are for "
                    "shm, threads and sim",
                    name));
  }
}

int workers_of(const TrainConfig& config) { return config.workers.value_or(default_workers); }

sim::Link link_of(const std::string& text, const char* option) {
  return text.empty() ? sim::Link{} : parse_link(text, option);
}

int workers_per_host(const TrainConfig& config) {
  const int workers = workers_of(config);
  const int hosts = config.hosts.value_or(workers);
  return (workers + hosts - 1) / hosts;
}

void check_hosts(const TrainConfig& config) {
  if (!config.hosts) return;
  const int workers = workers_of(config);
  if (*config.hosts > workers) {
    fail(fmt::format("--hosts is {}; allowed are integers from 1 to {}, the workers", *config.hosts,
                     workers));
  }
  const int block = workers_per_host(config);
  if (const int filled = (workers + block - 1) / block; filled < *config.hosts) {
    fail(
        fmt::format("--hosts is {}: {} workers in blocks of {} are on {} hosts; allowed are "
                    "numbers that leave no host empty, such as {}",
                    *config.hosts, workers, block, filled, filled));
  }
}

void check_links(const TrainConfig& config) {
  network_of(config);
  if (!config.slow_link.empty() && !has_links(config)) {
    fail("--slow-link needs --link, --inner-link or --links, the links that it makes slower");
  }
}

// Without a compute time or a link, virtual time stands still.
void check_time_passes(const TrainConfig& config) {
  const bool passes = !config.compute.empty() || has_links(config);
  const bool bounded = config.iterations || config.epochs;
  if (config.transport == "sim" && config.seconds && !bounded && !passes) {
    fail("--seconds in sim needs --compute or --link, else no virtual time passes");
  }
}

}  // namespace

bool is_of_processes(const TrainConfig& config) {
  return config.transport != "threads" && config.transport != "sim";
}

Options describe(TrainConfig& c) {
  Options options;
  options.section("What")
      .add("task", c.task, fmt::format("what is learned: {}", fmt::join(task_forms(), ", ")))
      .add("model", c.model,
           "of images softmax, mlp (the default), lenet, gn_lenet (cifar10's default) or vgg11; of "
           "movielens mf; of libsvm svm (the default) or logistic; toy tasks have none")
      .add("partition", c.partition,
           "who has which data: iid, dirichlet=ALPHA or shards=N; of movielens iid or user")
      .add("batch", c.batch, "samples of a mini-batch", Range::at_least(1))
      .add("lr", c.lr, "learning rate; by default the task's", Range::at_least(0))
      .add("lr-schedule", c.lr_schedule,
           "constant, step:every=N,x=F or cosine:over=N, each also with warmup=N")
      .add("momentum", c.momentum, "of the local optimizer", Range::between(0, 1))
      .add("weight-decay", c.weight_decay, "pull towards zero, per step", Range::at_least(0))
      .add("evaluate-every", c.evaluate_every, "iterations between evaluations, 0: at the end only",
           Range::at_least(0))
      .add("evaluate", c.evaluate, {"mean", "each"},
           "the mean model (the default), or each worker's, of which the curve has the mean")
      .add("evaluate-samples", c.evaluate_samples,
           "held-out images that an evaluation looks at; by default all", Range::at_least(1))
      .add("seed", c.seed, "the same seed, the same draws");
  options.section("How")
      .add("protocol", c.protocol, "how workers average; --protocol NAME --help lists its options")
      .add("set", c.set, "KEY=VALUE, an option of the protocol (repeatable)")
      .add("graph", c.graph, "who sends to whom: a name, or a FILE of lines 'from to [weight]'")
      .add("weights", c.weights, {"uniform", "metropolis"},
           "mixing weights; by default metropolis, on directed graphs uniform");
  options.section("Where")
      .add("workers", c.workers,
           fmt::format("how many; by default the launcher's, else {}", default_workers),
           Range::between(1, 65536))
      .add("hosts", c.hosts,
           "over how many modelled hosts workers are spread in blocks; by default each has its own "
           "in sim and with links",
           Range::at_least(1))
      .add("transport", c.transport, {"auto", "threads", "shm", "sim", "ucx", "verbs", "cuda_ipc"},
           "threads and sim run in one process; auto is shm within a host, and between hosts verbs "
           "or "
           "ucx")
      .add("rendezvous", c.rendezvous, "HOST:PORT where the workers of several launches meet")
      .add("rank", c.rank, "this worker's number, for --rendezvous", Range::at_least(0))
      .add("bind", c.bind, {"core", "none"}, "pin each worker to a core, or not");
  options.section("How long")
      .add("iterations", c.iterations,
           fmt::format("steps of each worker; {} if nothing bounds the run", default_iterations),
           Range::between(1, 1e14))
      .add("epochs", c.epochs, "passes over the data", Range::above(0))
      .add("seconds", c.seconds, "of the run's clock, virtual in sim", Range{0, 1e9, true})
      .add("target", c.target,
           "stop at accuracy=X or loss=X of the mean model; with stop=false note the time and go "
           "on");
  options.section("Heterogeneity")
      .add("compute", c.compute, "an iteration's compute takes at least 10ms[,jitter=0.05]")
      .add("slow", c.slow, "rank=3,x=4 or random,x=6,p=1/n (repeatable)")
      .add("drop", c.drop, "p=0.01, where a protocol that tolerates loss receives")
      .add("link", c.link,
           "rate=60mbit,latency=1ms between hosts: modelled in sim, by pacing on threads and shm")
      .add("inner-link", c.inner_link, "the same within a host")
      .add("slow-link", c.slow_link, "rank=3,x=5, or count=7,x=5 for so many (repeatable)")
      .add("links", c.links,
           "FILE of lines 'from to rate=60mbit,latency=1ms': pairs of hosts; else --link");
  options.section("Out")
      .add("report", c.report, "FILE.json for the run's figures")
      .add("trace", c.trace, "FILE.json for chrome://tracing and ui.perfetto.dev")
      .add("html", c.html, "FILE for a page with plots")
      .add("save", c.save,
           "FILE for the state at the end: the mean model and each worker's momentum")
      .add("resume", c.resume, "FILE that --save wrote, to go on from")
      .add("record-parameters", c.record_parameters,
           "put every iteration's vectors into the report (toy tasks)")
      .add("dry-run", c.dry_run, "print the resolved plan and end");
  return options;
}

std::optional<Target> parse_target(const std::string& text) {
  if (text.empty()) return {};
  const Fields fields = parse_fields(text);
  Target target{fields[0].first, 0};
  const bool known = target.metric == "accuracy" || target.metric == "loss";
  const std::string stop = fields.size() == 2 && fields[1].first == "stop" ? fields[1].second : "";
  if (!known || fields.size() > 2 || (fields.size() == 2 && stop != "true" && stop != "false")) {
    fail(fmt::format(
        "--target is '{}'; allowed are accuracy=X and loss=X, each also with stop=false", text));
  }
  target.value = parse_number(fields[0].second, "--target " + target.metric);
  if (target.metric == "accuracy" && (target.value < 0 || target.value > 1)) {
    fail(fmt::format("--target is '{}'; allowed are accuracies from 0 to 1", text));
  }
  target.stop = stop != "false";
  return target;
}

Heterogeneity heterogeneity_of(const TrainConfig& config) {
  return Heterogeneity({.compute = config.compute,
                        .slow = config.slow,
                        .drop = config.drop,
                        .workers = workers_of(config),
                        .seed = config.seed});
}

sim::NetworkOptions network_of(const TrainConfig& config) {
  const int workers = workers_of(config);
  sim::NetworkOptions network;
  if (config.hosts) network.workers_per_host = workers_per_host(config);
  network.link = link_of(config.link, "--link");
  network.inner_link = link_of(config.inner_link, "--inner-link");
  if (!config.links.empty()) {
    network.links = read_links(config.links, config.hosts.value_or(workers));
  }
  for (const std::string& item : config.slow_link) {
    for (const SlowLink& slow : parse_slow_link(item, workers)) {
      network.slow.emplace_back(slow.rank, slow.factor);
    }
  }
  return network;
}

void validate(const TrainConfig& config) {
  check_transport(config);
  heterogeneity_of(config);
  check_hosts(config);
  check_links(config);
  check_time_passes(config);
  parse_lr_schedule(config.lr_schedule);
  if (parse_target(config.target) && config.evaluate_every == 0) {
    fail("--target is judged from evaluations, so --evaluate-every is at least 1");
  }
}

std::vector<std::pair<std::string, std::string>> options_for_report(const Options& options) {
  std::vector<std::pair<std::string, std::string>> entries;
  for (const Option& option : options.items()) {
    std::string text = option.text();
    // Of a text "none" is a value, of a number that there is none.
    const bool given = !text.empty() && (text != "none" || option.kind() == OptionKind::text);
    if (!given || std::find(not_in_reports.begin(), not_in_reports.end(), option.name) !=
                      not_in_reports.end()) {
      continue;
    }
    entries.emplace_back(option.name, std::move(text));
  }
  return entries;
}

}  // namespace slip::cli
