#include "slipstream/tools/slip/results.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <string>
#include <utility>

#include "slipstream/collectives/gather.h"
#include "slipstream/trainer/files.h"
#include "slipstream/trainer/html.h"
#include "slipstream/version.h"

namespace slip::cli {
namespace {

// This worker's part, in the form of a report about it alone.
Report own_part(const World& world, const Trainer& trainer, Spent spent) {
  const Counters& counters = world.counters();
  Report part;
  part.workers = 1;
  part.seconds = to_seconds(trainer.elapsed());
  part.iterations = {trainer.iterations_done()};
  part.max_gap_seen = counters.max_gap_seen.get();
  part.updates = {counters.updates_sent.get(), counters.updates_used.get(),
                  counters.updates_late.get()};
  part.bytes_sent = counters.bytes_sent.get();
  part.per_worker = {{.rank = world.rank(),
                      .iterations = trainer.iterations_done(),
                      .skipped = counters.iterations_skipped.get(),
                      .compute_seconds = static_cast<double>(counters.compute_ns.get()) * 1e-9,
                      .wait_seconds = to_seconds(spent.waited),
                      .cpu_seconds = {},
                      .bytes_sent = counters.bytes_sent.get()}};
  if (!world.clock().is_virtual()) part.per_worker.front().cpu_seconds = to_seconds(spent.cpu);
  return part;
}

// A peer's bytes: what is no span is left out.
void append_spans(const std::string& bytes, std::vector<Span>& spans) {
  for (std::size_t at = 0; at + sizeof(Span) <= bytes.size(); at += sizeof(Span)) {
    Span span;
    std::memcpy(&span, bytes.data() + at, sizeof span);
    if (is_valid(span)) spans.push_back(span);
  }
}

void merge(const Report& part, Report& whole) {
  if (part.per_worker.size() != 1 || part.iterations.size() != 1) {
    throw Error(Code::bad_data, "a worker's report is about more or less than one worker");
  }
  whole.seconds = std::max(whole.seconds, part.seconds);
  whole.iterations.push_back(part.iterations.front());
  whole.per_worker.push_back(part.per_worker.front());
  whole.max_gap_seen = std::max(whole.max_gap_seen, part.max_gap_seen);
  whole.updates.sent += part.updates.sent;
  whole.updates.used += part.updates.used;
  whole.updates.late += part.updates.late;
  whole.bytes_sent += part.bytes_sent;
}

// How many vectors a worker has recorded, and then all their elements.
std::vector<double> recorded(const Trainer& trainer) {
  const auto& vectors = trainer.recorded_parameters();
  std::vector<double> values{static_cast<double>(vectors.size())};
  for (const auto& vector : vectors) values.insert(values.end(), vector.begin(), vector.end());
  return values;
}

// Adds those of `rank`, the next worker, of `count` elements each.
void append_recorded(int rank, const std::string& bytes, std::size_t count, Report& report) {
  std::vector<double> values(bytes.size() / sizeof(double));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(double));
  const double claimed = values.empty() ? 0 : values.front();
  const auto most = static_cast<double>(report.iterations[static_cast<std::size_t>(rank)]);
  const auto vectors = static_cast<std::size_t>(std::clamp(claimed, 0.0, most));
  if (values.size() != 1 + vectors * count) {
    throw Error(Code::bad_data, fmt::format("the recorded parameters of rank {} are damaged", rank),
                rank);
  }
  if (!report.parameters) report.parameters.emplace(vectors);
  // Workers that stop early have recorded fewer iterations; what all have is kept.
  report.parameters->resize(std::min(report.parameters->size(), vectors));
  auto next = values.begin() + 1;
  for (std::vector<Report::Vector>& iteration : *report.parameters) {
    iteration.emplace_back(next, next + static_cast<std::ptrdiff_t>(count));
    next += static_cast<std::ptrdiff_t>(count);
  }
}

void add_evaluations(const Trainer& trainer, const TrainConfig& config, Report& report) {
  for (const CurvePoint& point : trainer.curve()) {
    report.curve.push_back({.seconds = to_seconds(point.at),
                            .iteration = point.iteration,
                            .loss = point.evaluation.loss,
                            .accuracy = point.evaluation.accuracy,
                            .spread = point.spread,
                            .worst_accuracy = point.worst_accuracy});
  }
  if (const auto target = parse_target(config.target)) {
    report.target = {target->metric, target->value, {}};
    if (const auto reached = trainer.target_reached()) {
      report.target->reached_at_seconds = to_seconds(*reached);
    }
  }
}

}  // namespace

Results collect_results(const World& world, const Trainer& trainer, const Plan& plan, Spent spent) {
  const TrainConfig& config = plan.config;
  Results results;
  Report& report = results.report;
  const std::string part = to_json(own_part(world, trainer, spent));
  gather(world, "slip/report", std::as_bytes(std::span(part)),
         [&](int rank, const std::string& json) {
           merge(report_from_json(json, fmt::format("the report of rank {}", rank)), report);
         });
  if (!config.trace.empty() || !config.html.empty()) {
    gather(world, "slip/spans", std::as_bytes(trainer.timeline().spans()),
           [&](int, const std::string& bytes) { append_spans(bytes, results.spans); });
  }
  if (config.record_parameters) {
    const std::vector<double> values = recorded(trainer);
    gather(world, "slip/parameters", std::as_bytes(std::span(values)),
           [&](int rank, const std::string& bytes) {
             append_recorded(rank, bytes, plan.parameters, report);
           });
  }
  if (world.rank() != 0) return {};

  report.slipstream = slip::version;
  report.protocol = config.protocol;
  report.transport = world.transport().name();
  report.workers = world.size();
  report.seed = config.seed;
  report.options = plan.options;
  if (plan.start) report.resumed_at = plan.start->iteration;
  add_evaluations(trainer, config, report);
  return results;
}

void write_results(const Results& results, const TrainConfig& config) {
  if (!config.report.empty()) write_report(results.report, config.report);
  if (!config.trace.empty()) {
    write_file(config.trace, chrome_trace(results.spans, "slip train " + config.protocol));
  }
  if (!config.html.empty()) {
    const PageRun run{config.protocol, &results.report, results.spans};
    write_file(config.html,
               html_page(fmt::format("{} on {}", config.protocol, config.task), {&run, 1}));
  }
}

std::string summary(const Report& report) {
  const auto [least, most] =
      std::minmax_element(report.iterations.begin(), report.iterations.end());
  std::string line = *least == *most ? fmt::format("{} iterations", *most)
                                     : fmt::format("{} to {} iterations", *least, *most);
  if (report.resumed_at > 0) line += fmt::format(", {} of them before,", report.resumed_at);
  line += fmt::format(" of {} workers in {:.4g} s", report.workers, report.seconds);
  if (const auto each = report.seconds_per_iteration()) {
    line += fmt::format(" ({:.4g} ms each)", *each * 1e3);
  }
  if (report.final.loss) line += fmt::format(", loss {:.4g}", *report.final.loss);
  if (report.final.accuracy) line += fmt::format(", accuracy {:.4f}", *report.final.accuracy);
  if (report.max_gap_seen.value_or(0) > 0)
    line += fmt::format(", max gap {}", *report.max_gap_seen);
  if (report.target) {
    const auto& reached = report.target->reached_at_seconds;
    line += fmt::format(", {} {} {}", report.target->metric, report.target->value,
                        reached ? fmt::format("reached at {:.4g} s", *reached) : "not reached");
  }
  return line;
}

}  // namespace slip::cli
