// A report back from JSON, every field checked.
#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "slipstream/base/error.h"
#include "slipstream/trainer/report.h"

namespace slip {
namespace {

using Json = nlohmann::ordered_json;

/// A value and the way to it, for complaints.
class Node {
 public:
  Node(const Json& json, std::string_view source, std::string path)
      : json_(&json), source_(source), path_(std::move(path)) {}

  Node operator[](const char* name) const {
    if (!json_->is_object()) fail("an object");
    const auto found = json_->find(name);
    if (found == json_->end()) fail_at(below(name), "is missing");
    return Node(*found, source_, below(name));
  }

  /// Fields that a report may lack.
  bool has(const char* name) const { return json_->is_object() && json_->contains(name); }
  bool is_null() const { return json_->is_null(); }

  std::string text() const {
    if (!json_->is_string()) fail("a string");
    return json_->get<std::string>();
  }

  double number() const {
    if (!json_->is_number()) fail("a number");
    return json_->get<double>();
  }

  /// JSON has no word for what is not a number.
  double number_or_nan() const {
    return is_null() ? std::numeric_limits<double>::quiet_NaN() : number();
  }

  std::optional<double> optional_number() const {
    return is_null() ? std::nullopt : std::optional(number());
  }

  std::uint64_t count() const {
    if (!json_->is_number_unsigned()) fail("a whole number of at least 0");
    return json_->get<std::uint64_t>();
  }

  int small_count() const {
    if (count() > static_cast<std::uint64_t>(std::numeric_limits<int>::max())) {
      fail("a whole number below 2^31");
    }
    return static_cast<int>(count());
  }

  template <class F>
  auto list(F&& read) const {
    if (!json_->is_array()) fail("a list");
    std::vector<decltype(read(*this))> items;
    items.reserve(json_->size());
    for (std::size_t i = 0; i < json_->size(); ++i) {
      items.push_back(read(Node((*json_)[i], source_, fmt::format("{}[{}]", path_, i))));
    }
    return items;
  }

  std::vector<std::pair<std::string, std::string>> texts() const {
    if (!json_->is_object()) fail("an object");
    std::vector<std::pair<std::string, std::string>> result;
    for (const auto& [name, value] : json_->items()) {
      result.emplace_back(name, value.is_string() ? value.get<std::string>() : value.dump());
    }
    return result;
  }

 private:
  std::string below(const char* name) const {
    return path_.empty() ? name : fmt::format("{}.{}", path_, name);
  }

  [[noreturn]] void fail(std::string_view expected) const {
    fail_at(path_.empty() ? "the file" : path_, fmt::format("is not {}", expected));
  }

  [[noreturn]] void fail_at(const std::string& path, std::string_view what) const {
    throw Error(Code::bad_data, fmt::format("{} is no report: {} {}", source_, path, what));
  }

  const Json* json_;
  std::string_view source_;
  std::string path_;
};

Report::Worker read_worker(const Node& node) {
  return {.rank = node["rank"].small_count(),
          .iterations = node["iterations"].count(),
          .skipped = node["skipped"].count(),
          .compute_seconds = node["compute_seconds"].number(),
          .wait_seconds = node["wait_seconds"].number(),
          .cpu_seconds = node["cpu_seconds"].optional_number(),
          .bytes_sent = node["bytes_sent"].count()};
}

Report::CurvePoint read_point(const Node& node) {
  const auto if_there = [&](const char* name) {
    return node.has(name) ? node[name].optional_number() : std::nullopt;
  };
  return {.seconds = node["seconds"].number(),
          .iteration = node["iteration"].count(),
          .loss = node["loss"].optional_number(),
          .accuracy = node["accuracy"].optional_number(),
          .spread = if_there("spread"),
          .worst_accuracy = if_there("worst_accuracy")};
}

Report read(const Node& node) {
  Report report;
  report.slipstream = node["slipstream"].text();
  report.protocol = node["protocol"].text();
  report.transport = node["transport"].text();
  report.workers = node["workers"].small_count();
  report.seed = node["seed"].count();
  report.options = node["options"].texts();
  report.seconds = node["seconds"].number();
  report.iterations = node["iterations"].list([](const Node& n) { return n.count(); });
  if (node.has("resumed_at")) report.resumed_at = node["resumed_at"].count();
  report.final = {node["final"]["loss"].optional_number(),
                  node["final"]["accuracy"].optional_number()};
  if (const Node target = node["target"]; !target.is_null()) {
    report.target = {target["metric"].text(), target["value"].number(),
                     target["reached_at_seconds"].optional_number()};
  }
  if (const Node gap = node["max_gap_seen"]; !gap.is_null()) report.max_gap_seen = gap.count();
  report.updates = {node["updates"]["sent"].count(), node["updates"]["used"].count(),
                    node["updates"]["late"].count()};
  report.bytes_sent = node["bytes_sent"].count();
  report.per_worker = node["per_worker"].list(read_worker);
  report.curve = node["curve"].list(read_point);
  if (node.has("parameters")) {
    report.parameters = node["parameters"].list([](const Node& iteration) {
      return iteration.list([](const Node& worker) {
        return worker.list([](const Node& value) { return value.number_or_nan(); });
      });
    });
  }
  return report;
}

}  // namespace

Report report_from_json(std::string_view json, std::string_view source) {
  Json parsed;
  try {
    parsed = Json::parse(json);
  } catch (const Json::exception& error) {
    throw Error(Code::bad_data, fmt::format("{} is no report: {}", source, error.what()));
  }
  return read(Node(parsed, source, ""));
}

}  // namespace slip
