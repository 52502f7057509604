#include "slipstream/perf/output.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <nlohmann/json.hpp>

namespace slip::perf {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array columns = {"size", "iterations", "min",   "p50", "p99",  "p99.9",
                                "max",  "avg",        "stdev", "bw",  "rate", "wrong"};

Json cells(const Row& row) {
  const Statistics& t = row.time;
  Json wrong;  // null
  if (row.wrong) wrong = *row.wrong;
  const std::array<Json, columns.size()> values = {row.size, row.iterations, t.min,    t.p50,
                                                   t.p99,    t.p999,         t.max,    t.avg,
                                                   t.stdev,  row.bw,         row.rate, wrong};
  Json object;
  for (std::size_t i = 0; i < columns.size(); ++i) object[columns[i]] = values[i];
  return object;
}

// Four digits tell a nanosecond apart from another one even where times are long.
std::string cell(const Json& value) {
  if (value.is_null()) return "-";
  if (!value.is_number_float()) return value.dump();
  const auto number = value.get<double>();
  return fmt::format("{:.{}f}", number, number < 10 ? 4 : number < 1000 ? 2 : 1);
}

}  // namespace

std::string comment_lines(const Environment& environment) {
  std::string text;
  for (const auto& [name, value] : environment) text += fmt::format("# {}: {}\n", name, value);
  return text;
}

std::string header_line() {
  std::string line = "#";
  for (const char* column : columns) line += fmt::format("{:>11}", column);
  return line + "\n";
}

std::string row_line(const Row& row) {
  std::string line = " ";
  for (const Json& value : cells(row)) line += fmt::format("{:>11}", cell(value));
  return line + "\n";
}

std::string to_csv(const std::vector<Row>& rows) {
  std::string text = fmt::format("{}\n", fmt::join(columns, ","));
  for (const Row& row : rows) {
    std::vector<std::string> values;
    for (const Json& value : cells(row)) values.push_back(value.is_null() ? "" : value.dump());
    text += fmt::format("{}\n", fmt::join(values, ","));
  }
  return text;
}

std::string to_json(const Environment& environment, const std::vector<Row>& rows) {
  Json json;
  json["environment"] = Json::object();
  for (const auto& [name, value] : environment) json["environment"][name] = value;
  json["rows"] = Json::array();
  for (const Row& row : rows) json["rows"].push_back(cells(row));
  return json.dump(2) + "\n";
}

}  // namespace slip::perf
