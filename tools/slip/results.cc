#include "slipstream/tools/slip/results.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "slipstream/trainer/files.h"
#include "slipstream/trainer/html.h"
#include "slipstream/version.h"

namespace slip::cli {
namespace {

constexpr Duration patience = std::chrono::minutes(1);

std::string report_name(int rank) { return fmt::format("slip/report/{}", rank); }
std::string spans_name(int rank) { return fmt::format("slip/spans/{}", rank); }

// This worker's part, in the form of a report about it alone.
Report own_part(const World& world, const Trainer& trainer, bool record, Duration cpu) {
  const Counters& counters = world.counters();
  Report part;
  part.workers = 1;
  part.seconds = to_seconds(trainer.elapsed());
  part.iterations = {trainer.iterations_done()};
  part.max_gap_seen = counters.max_gap_seen.get();
  part.updates = {counters.updates_sent.get(), counters.updates_used.get(), 0};
  part.bytes_sent = counters.bytes_sent.get();
  part.per_worker = {{.rank = world.rank(),
                      .iterations = trainer.iterations_done(),
                      .skipped = counters.iterations_skipped.get(),
                      .compute_seconds = static_cast<double>(counters.compute_ns.get()) * 1e-9,
                      .wait_seconds = static_cast<double>(counters.wait_ns.get()) * 1e-9,
                      .cpu_seconds = {},
                      .bytes_sent = counters.bytes_sent.get()}};
  if (!world.clock().is_virtual()) part.per_worker.front().cpu_seconds = to_seconds(cpu);
  if (record) {
    part.parameters.emplace();
    for (const auto& vector : trainer.recorded_parameters()) part.parameters->push_back({vector});
  }
  return part;
}

std::string bytes_of(std::span<const Span> spans) {
  return {reinterpret_cast<const char*>(spans.data()), spans.size_bytes()};
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
  whole.bytes_sent += part.bytes_sent;
  if (!part.parameters) return;
  if (!whole.parameters) whole.parameters.emplace(part.parameters->size());
  // Workers that stop early have recorded fewer iterations; what all have is kept.
  whole.parameters->resize(std::min(whole.parameters->size(), part.parameters->size()));
  for (std::size_t k = 0; k < whole.parameters->size(); ++k) {
    for (const Report::Vector& vector : (*part.parameters)[k]) {
      (*whole.parameters)[k].push_back(vector);
    }
  }
}

void add_evaluations(const Trainer& trainer, const TrainConfig& config, Report& report) {
  for (const CurvePoint& point : trainer.curve()) {
    report.curve.push_back({.seconds = to_seconds(point.at),
                            .iteration = point.iteration,
                            .loss = point.evaluation.loss,
                            .accuracy = point.evaluation.accuracy,
                            .spread = point.spread});
  }
  if (const auto target = parse_target(config.target)) {
    report.target = {target->metric, target->value, {}};
    if (const auto reached = trainer.target_reached()) {
      report.target->reached_at_seconds = to_seconds(*reached);
    }
  }
}

}  // namespace

Results collect_results(const World& world, const Trainer& trainer, const Plan& plan,
                        Duration cpu) {
  const TrainConfig& config = plan.config;
  const bool timelines = !config.trace.empty() || !config.html.empty();
  Bootstrap& bootstrap = world.bootstrap();
  Results results;
  results.report = own_part(world, trainer, config.record_parameters, cpu);
  bootstrap.put(report_name(world.rank()), to_json(results.report));
  if (timelines) {
    bootstrap.put(spans_name(world.rank()), bytes_of(trainer.timeline().spans()));
  }
  if (world.rank() != 0) return results;

  Report& report = results.report = {};
  report.slipstream = slip::version;
  report.protocol = config.protocol;
  report.transport = config.transport;
  report.workers = world.size();
  report.seed = config.seed;
  report.options = plan.options;
  for (int rank = 0; rank < world.size(); ++rank) {
    const std::string json = bootstrap.get(report_name(rank), patience);
    merge(report_from_json(json, fmt::format("the report of rank {}", rank)), report);
    if (timelines) append_spans(bootstrap.get(spans_name(rank), patience), results.spans);
  }
  // Every update has arrived by now; what was not used came too late for it.
  report.updates.late = report.updates.sent - report.updates.used;
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
    write_file(config.html, html_page("slip train " + config.task, {&run, 1}));
  }
}

std::string summary(const Report& report) {
  const auto [least, most] =
      std::minmax_element(report.iterations.begin(), report.iterations.end());
  std::string line = *least == *most ? fmt::format("{} iterations", *most)
                                     : fmt::format("{} to {} iterations", *least, *most);
  line += fmt::format(" of {} workers in {:.4g} s", report.workers, report.seconds);
  if (const auto each = report.seconds_per_iteration()) {
    line += fmt::format(" ({:.4g} ms each)", *each * 1e3);
  }
  if (report.final.loss) line += fmt::format(", loss {:.4g}", *report.final.loss);
  if (report.final.accuracy) line += fmt::format(", accuracy {:.4f}", *report.final.accuracy);
  if (report.max_gap_seen) line += fmt::format(", max gap {}", *report.max_gap_seen);
  if (report.target) {
    const auto& reached = report.target->reached_at_seconds;
    line += fmt::format(", {} {} {}", report.target->metric, report.target->value,
                        reached ? fmt::format("reached at {:.4g} s", *reached) : "not reached");
  }
  return line;
}

}  // namespace slip::cli
