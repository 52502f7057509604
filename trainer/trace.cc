#include "slipstream/trainer/trace.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "slipstream/base/error.h"

namespace slip {
namespace {

using Json = nlohmann::ordered_json;

double microseconds(Duration d) { return static_cast<double>(d.count()) / 1e3; }

Json name_event(std::string_view what, int rank, std::string_view name) {
  return {{"name", what}, {"ph", "M"}, {"pid", 0}, {"tid", rank}, {"args", {{"name", name}}}};
}

Json span_event(const Span& span) {
  return {{"name", to_string(span.kind)},
          {"ph", "X"},
          {"pid", 0},
          {"tid", span.rank},
          {"ts", microseconds(span.begin)},
          {"dur", microseconds(span.end - span.begin)},
          {"args", {{"iteration", span.iteration}}}};
}

}  // namespace

std::string_view to_string(SpanKind kind) {
  switch (kind) {
    case SpanKind::compute:
      return "compute";
    case SpanKind::wait:
      return "wait";
    case SpanKind::apply:
      return "apply";
    case SpanKind::send:
      return "send";
    case SpanKind::evaluate:
      return "evaluate";
  }
  return "unknown";
}

bool is_valid(const Span& span) {
  const auto kind = static_cast<std::int32_t>(span.kind);
  return span.rank >= 0 && kind >= 0 && kind < span_kinds && span.begin >= Time::zero() &&
         span.end >= span.begin;
}

Timeline::Timeline(int rank, std::size_t capacity) : rank_(rank) { spans_.reserve(capacity); }

std::string chrome_trace(std::span<const Span> spans, std::string_view process) {
  // An event at a time: a whole document of them would take many times the text's memory.
  std::string text = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
  const auto add = [&](const Json& event) {
    text += event.dump(-1, ' ', false, Json::error_handler_t::replace) + ",\n";
  };
  std::set<int> ranks;
  for (const Span& span : spans) {
    if (!is_valid(span)) continue;
    ranks.insert(span.rank);
    add(span_event(span));
  }
  for (const int rank : ranks)
    add(name_event("thread_name", rank, "worker " + std::to_string(rank)));
  text +=
      name_event("process_name", 0, process).dump(-1, ' ', false, Json::error_handler_t::replace);
  return text + "\n]}\n";
}

std::vector<Span> spans_from_chrome_trace(std::string_view json, std::string_view source) {
  const auto microseconds_of = [](const Json& event, const char* field) {
    return Duration(std::llround(event.at(field).get<double>() * 1e3));
  };
  std::vector<Span> spans;
  try {
    const Json trace = Json::parse(json);
    for (const Json& event : trace.at("traceEvents")) {
      if (event.at("ph") != "X") continue;
      Span span;
      for (std::int32_t kind = 0; kind < span_kinds; ++kind) {
        if (event.at("name") == to_string(static_cast<SpanKind>(kind))) {
          span.kind = static_cast<SpanKind>(kind);
        }
      }
      span.rank = event.at("tid").get<std::int32_t>();
      span.iteration = event.at("args").at("iteration").get<Iteration>();
      span.begin = microseconds_of(event, "ts");
      span.end = span.begin + microseconds_of(event, "dur");
      if (is_valid(span)) spans.push_back(span);
    }
  } catch (const Json::exception& error) {
    throw Error(Code::bad_data, std::string(source) + " is no trace: " + error.what());
  }
  return spans;
}

}  // namespace slip
