#include "slipstream/trainer/heterogeneity.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <map>
#include <sstream>
#include <utility>

#include "slipstream/base/error.h"
#include "slipstream/base/random.h"
#include "slipstream/trainer/files.h"
#include "slipstream/trainer/quantity.h"

namespace slip {
namespace {

/// What a draw is for, so that no two uses of one (seed, rank, iteration) see the same numbers; far
/// from any rank, which other draws have in this place of their key.
enum Purpose : std::uint64_t { jitter_draw = 0x736c6f7700000001, slow_draw, drop_draw };

/// The fields of one option, each to be taken once.
class Option {
 public:
  Option(std::string_view name, const std::string& text, std::string_view form)
      : name_(name), text_(text), form_(form), fields_(parse_fields(text)) {}

  std::optional<std::string> take(std::string_view field) {
    const auto found = std::find_if(fields_.begin(), fields_.end(),
                                    [&](const auto& f) { return f.first == field; });
    if (found == fields_.end()) return std::nullopt;
    std::string value = std::move(found->second);
    fields_.erase(found);
    return value;
  }

  std::string need(std::string_view field) {
    std::optional<std::string> value = take(field);
    if (!value) fail(fmt::format("'{}' is missing", field));
    return *value;
  }

  std::string take_first() {
    std::string first = std::move(fields_.front().first);
    if (!fields_.front().second.empty()) first += "=" + fields_.front().second;
    fields_.erase(fields_.begin());
    return first;
  }

  /// To be called last: nothing may be left over.
  void finish() const {
    if (!fields_.empty()) fail(fmt::format("'{}' has no place here", fields_.front().first));
  }

  int rank(int workers) {
    const std::string text = need("rank");
    const double value = parse_number(text, where("rank"));
    if (value != std::floor(value) || value < 0 || value >= workers) {
      fail(fmt::format("rank {} is not there; ranks are 0 to {}", text, workers - 1));
    }
    return static_cast<int>(value);
  }

  double factor() {
    const double value = parse_number(need("x"), where("x"));
    if (!(value > 0 && value <= 1e6)) fail("x must be above 0 and at most 1000000");
    return value;
  }

  std::string where(std::string_view field) const {
    return fmt::format("{} {}, {}", name_, text_, field);
  }

  [[noreturn]] void fail(std::string_view what) const {
    throw Error(Code::invalid_argument,
                fmt::format("{} '{}': {}; allowed is {}", name_, text_, what, form_));
  }

 private:
  std::string name_;
  std::string text_;
  std::string form_;
  Fields fields_;
};

[[noreturn]] void refuse(const std::string& line) { throw Error(Code::invalid_argument, line); }

int parse_host(const std::string& text, int hosts) {
  int host = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), host);
  if (error != std::errc() || end != text.data() + text.size() || host < 0 || host >= hosts) {
    refuse(fmt::format("'{}' is not a host; hosts are 0 to {}", text, hosts - 1));
  }
  return host;
}

/// Empty on a line that holds no link.
std::optional<sim::HostLink> parse_links_line(const std::string& line, int hosts) {
  std::istringstream stream(line.substr(0, line.find('#')));
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(std::move(word));
  if (words.empty()) return std::nullopt;
  if (words.size() != 3) {
    refuse(fmt::format("{} fields; a line is 'from to rate=RATE,latency=TIME'", words.size()));
  }
  return sim::HostLink{parse_host(words[0], hosts), parse_host(words[1], hosts),
                       parse_link(words[2], "link")};
}

}  // namespace

Heterogeneity::Slow Heterogeneity::parse_slow(const std::string& text, int workers) {
  Option option("--slow", text, "rank=R,x=FACTOR or random,x=FACTOR,p=PROBABILITY");
  Slow slow;
  if (option.take("random")) {
    slow.probability = parse_probability(option.need("p"), option.where("p"), workers);
  } else {
    slow.rank = option.rank(workers);
  }
  slow.factor = option.factor();
  option.finish();
  return slow;
}

Heterogeneity::Heterogeneity(const HeterogeneityOptions& options) : seed_(options.seed) {
  if (!options.compute.empty()) {
    Option option("--compute", options.compute, "TIME[,jitter=SHARE], such as 10ms,jitter=0.05");
    compute_ = parse_duration(option.take_first(), "--compute");
    if (compute_ == Duration::zero()) option.fail("the time must be above 0");
    if (const auto jitter = option.take("jitter")) {
      jitter_ = parse_number(*jitter, option.where("jitter"));
      if (!(jitter_ >= 0 && jitter_ < 1)) option.fail("jitter must be at least 0 and below 1");
    }
    option.finish();
  }
  for (const std::string& text : options.slow) {
    slow_.push_back(parse_slow(text, options.workers));
  }
  if (!slow_.empty() && !has_compute()) {
    throw Error(Code::invalid_argument,
                "--slow needs --compute: say how long an iteration lasts, such as --compute 10ms");
  }
  if (!options.drop.empty()) {
    Option option("--drop", options.drop, "p=PROBABILITY");
    drop_ = parse_probability(option.need("p"), option.where("p"));
    option.finish();
  }
}

Duration Heterogeneity::compute_time(int rank, Iteration iteration) const {
  const auto who = static_cast<std::uint64_t>(rank);
  double factor = 1;
  if (jitter_ > 0) {
    factor += Random(key({seed_, jitter_draw, who, iteration})).uniform(-jitter_, jitter_);
  }
  for (std::size_t rule = 0; rule < slow_.size(); ++rule) {
    const Slow& slow = slow_[rule];
    const bool hit = slow.rank ? *slow.rank == rank
                               : Random(key({seed_, slow_draw, rule, who, iteration})).uniform() <
                                     slow.probability;
    if (hit) factor *= slow.factor;
  }
  // Far below what a Duration holds, however many factors meet.
  constexpr double longest = 4e18;
  return Duration(std::llround(std::min(static_cast<double>(compute_.count()) * factor, longest)));
}

bool Heterogeneity::drops(int receiver, int sender, Iteration iteration,
                          std::uint64_t message) const {
  if (drop_ <= 0) return false;
  return Random(key({seed_, drop_draw, static_cast<std::uint64_t>(receiver),
                     static_cast<std::uint64_t>(sender), iteration, message}))
             .uniform() < drop_;
}

sim::Link parse_link(const std::string& text, std::string_view option_name) {
  Option option(option_name, text, "rate=RATE,latency=TIME, such as rate=60mbit,latency=1ms");
  sim::Link link;
  const auto rate = option.take("rate");
  const auto latency = option.take("latency");
  if (rate) link.bytes_per_second = parse_rate(*rate, option.where("rate"));
  if (latency) link.latency = parse_duration(*latency, option.where("latency"));
  option.finish();
  return link;
}

std::vector<sim::HostLink> read_links(const std::string& path, int hosts) {
  if (!std::filesystem::is_regular_file(path)) {
    throw Error(Code::invalid_argument, fmt::format("--links {}: there is no such file", path));
  }
  std::istringstream file(read_file(path));
  std::vector<sim::HostLink> links;
  std::map<std::pair<int, int>, int> line_of;  // of a pair
  int number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    try {
      const std::optional<sim::HostLink> link = parse_links_line(line, hosts);
      if (!link) continue;
      const auto [other, first] = line_of.try_emplace({link->from, link->to}, number);
      if (!first) {
        refuse(fmt::format("the link {} -> {} stands on line {} already", link->from, link->to,
                           other->second));
      }
      links.push_back(*link);
    } catch (const Error& error) {
      refuse(fmt::format("--links {}, line {}: {}", path, number, error.what()));
    }
  }
  return links;
}

std::vector<SlowLink> parse_slow_link(const std::string& text, int workers) {
  Option option("--slow-link", text, "rank=R,x=FACTOR or count=N,x=FACTOR");
  std::vector<SlowLink> slow;
  if (const auto given = option.take("count")) {
    const double count = parse_number(*given, option.where("count"));
    if (count != std::floor(count) || count < 0 || count > workers) {
      option.fail(fmt::format("count {} is not from 0 to {}, the workers", *given, workers));
    }
    for (int i = 0; i < static_cast<int>(count); ++i) {
      slow.push_back({static_cast<int>(std::int64_t{i} * workers / static_cast<int>(count)), 1});
    }
  } else {
    slow.push_back({option.rank(workers), 1});
  }
  const double factor = option.factor();
  for (SlowLink& link : slow) link.factor = factor;
  option.finish();
  return slow;
}

}  // namespace slip
