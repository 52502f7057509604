#include "slipstream/trainer/report.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "slipstream/trainer/files.h"

namespace slip {
namespace {

using Json = nlohmann::ordered_json;

template <class T>
Json nullable(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

/// `5`, `0.05` and `true` as such, if they read back to the same text; anything else is a string.
Json option_value(const std::string& text) {
  Json value = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  const bool plain = value.is_number() || value.is_boolean();
  return plain && value.dump() == text ? value : Json(text);
}

Json json_of(const Report::Worker& worker) {
  return {{"rank", worker.rank},
          {"iterations", worker.iterations},
          {"skipped", worker.skipped},
          {"compute_seconds", worker.compute_seconds},
          {"wait_seconds", worker.wait_seconds},
          {"cpu_seconds", nullable(worker.cpu_seconds)},
          {"bytes_sent", worker.bytes_sent}};
}

Json json_of(const Report::CurvePoint& point) {
  Json json = {{"seconds", point.seconds},
               {"iteration", point.iteration},
               {"loss", nullable(point.loss)},
               {"accuracy", nullable(point.accuracy)},
               {"spread", nullable(point.spread)}};
  if (point.worst_accuracy) json["worst_accuracy"] = *point.worst_accuracy;
  return json;
}

template <class T>
Json list_of(const std::vector<T>& items) {
  Json list = Json::array();
  for (const T& item : items) list.push_back(json_of(item));
  return list;
}

}  // namespace

std::optional<double> Report::seconds_per_iteration() const {
  const auto count = static_cast<double>(iterations.size());
  const double reached = std::accumulate(iterations.begin(), iterations.end(), 0.0) -
                         count * static_cast<double>(resumed_at);
  if (reached <= 0) return std::nullopt;
  return seconds * count / reached;
}

std::optional<double> Report::median_seconds_per_iteration() const {
  std::vector<Iteration> reached = iterations;
  std::sort(reached.begin(), reached.end());
  if (reached.empty()) return std::nullopt;
  const std::size_t half = reached.size() / 2;
  const Iteration twice = reached[half] + reached[reached.size() - 1 - half];
  if (twice <= 2 * resumed_at) return std::nullopt;
  return seconds * 2 / static_cast<double>(twice - 2 * resumed_at);
}

std::optional<double> Report::worst_accuracy() const {
  return curve.empty() ? std::nullopt : curve.back().worst_accuracy;
}

std::string to_json(const Report& report) {
  Json options = Json::object();
  for (const auto& [name, value] : report.options) options[name] = option_value(value);

  Json json;
  json["slipstream"] = report.slipstream;
  json["protocol"] = report.protocol;
  json["transport"] = report.transport;
  json["workers"] = report.workers;
  json["seed"] = report.seed;
  json["options"] = std::move(options);
  json["seconds"] = report.seconds;
  json["seconds_per_iteration"] = nullable(report.seconds_per_iteration());
  json["iterations"] = report.iterations;
  if (report.resumed_at > 0) json["resumed_at"] = report.resumed_at;
  json["final"] = {{"loss", nullable(report.final.loss)},
                   {"accuracy", nullable(report.final.accuracy)}};
  json["target"] = nullptr;
  if (report.target) {
    json["target"] = {{"metric", report.target->metric},
                      {"value", report.target->value},
                      {"reached_at_seconds", nullable(report.target->reached_at_seconds)}};
  }
  json["max_gap_seen"] = nullable(report.max_gap_seen);
  json["updates"] = {
      {"sent", report.updates.sent}, {"used", report.updates.used}, {"late", report.updates.late}};
  json["bytes_sent"] = report.bytes_sent;
  json["per_worker"] = list_of(report.per_worker);
  json["curve"] = list_of(report.curve);
  if (report.parameters) json["parameters"] = *report.parameters;
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

void write_report(const Report& report, const std::string& path) {
  write_file(path, to_json(report));
}

Report read_report(const std::string& path) { return report_from_json(read_file(path), path); }

}  // namespace slip
