#include "slipstream/tools/slip/compare.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <utility>
#include <vector>

#include "slipstream/tools/slip/plan.h"
#include "slipstream/tools/slip/stop_on_signal.h"
#include "slipstream/tools/slip/train_config.h"
#include "slipstream/tools/slip/training.h"
#include "slipstream/trainer/files.h"
#include "slipstream/trainer/html.h"
#include "slipstream/trainer/report.h"
#include "slipstream/trainer/table.h"
#include "slipstream/trainer/trace.h"

namespace slip::cli {
namespace {

[[noreturn]] void fail(const std::string& line) { throw Error(Code::invalid_argument, line); }

/// A file in memory for what a run reports: other processes can write it while we live, and nothing
/// is left behind however we end.
class MemoryFile {
 public:
  MemoryFile() : fd_(memfd_create("slip-compare", MFD_CLOEXEC)) {
    if (fd_ < 0) throw_errno("cannot make a file in memory");
  }
  ~MemoryFile() { close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  std::string path() const { return fmt::format("/proc/{}/fd/{}", getpid(), fd_); }

 private:
  int fd_;
};

// "a,b", "a b" or "all" as names.
std::vector<std::string> protocols_of(const std::vector<std::string>& items) {
  const auto known = protocol_names();
  std::vector<std::string> names;
  for (const std::string& item : items) {
    for (std::size_t at = 0; at <= item.size();) {
      const std::size_t comma = std::min(item.find(',', at), item.size());
      names.push_back(item.substr(at, comma - at));
      at = comma + 1;
    }
  }
  if (names == std::vector<std::string>{"all"}) names.assign(known.begin(), known.end());
  for (const std::string& name : names) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    fail("--protocols: " + unknown_name("protocol", name, {known.begin(), known.end()}));
  }
  if (names.empty()) {
    fail(fmt::format("--protocols is empty; allowed are all, {}", fmt::join(known, ", ")));
  }
  return names;
}

// Of `--set`, what is meant for this protocol: keys without a name go to all that have them.
std::vector<std::string> set_for(const std::string& protocol, const std::vector<std::string>& set) {
  const auto config = make_protocol_config(protocol);
  const std::vector<std::string> known = config->options().names();
  std::vector<std::string> mine;
  for (const std::string& item : set) {
    const std::string key = item.substr(0, item.find('='));
    const bool named = key.find('.') != key.npos;
    if (named || std::find(known.begin(), known.end(), key) != known.end()) mine.push_back(item);
  }
  return mine;
}

class Compare final : public Command {
 public:
  Compare()
      : Command("compare", "runs one scenario under several protocols and compares them",
                "slip compare --protocols all_reduce,hop --task targets --transport sim "
                "--compute 10ms --slow rank=1,x=4 --iterations 100 --html compare.html") {
    options_.section("Compare").add("protocols", protocols_,
                                    "which, as a,b,c, or all; the first is the baseline");
    Options scenario = describe(config_);
    scenario.remove({"protocol", "rendezvous", "rank", "report", "trace", "save", "resume",
                     "record-parameters"});
    options_.append(scenario);
    add_common_options();
  }

  int run() override {
    const std::vector<TrainConfig> runs = scenarios();
    // All are checked before the first begins.
    std::vector<Plan> plans;
    for (const TrainConfig& config : runs) plans.push_back(make_plan(config));
    if (config_.dry_run) {
      for (const Plan& plan : plans) fmt::print("{}\n", describe(plan));
      return done;
    }
    std::vector<Report> reports;
    std::vector<std::vector<Span>> timelines;
    for (const TrainConfig& config : runs) {
      if (!quiet()) {
        fmt::print("# {} of {}: {}\n", reports.size() + 1, runs.size(), config.protocol);
        std::fflush(stdout);
      }
      TrainConfig one = config;
      const MemoryFile report;
      const MemoryFile trace;
      one.report = report.path();
      if (!config_.html.empty()) one.trace = trace.path();
      if (const ExitCode code = run_training(one, quiet(), log_level()); code != done) return code;
      reports.push_back(read_report(one.report));
      timelines.push_back(one.trace.empty()
                              ? std::vector<Span>()
                              : spans_from_chrome_trace(read_file(one.trace), one.trace));
      if (stopped_by_signal()) break;
    }
    publish(reports, timelines);
    return done;
  }

  std::string more_help() const override {
    return fmt::format("\nProtocols: {}\n", fmt::join(protocol_names(), ", "));
  }

 private:
  std::vector<TrainConfig> scenarios() const {
    const std::vector<std::string> protocols = protocols_of(protocols_);
    std::vector<TrainConfig> runs;
    std::vector<std::string> used;
    for (const std::string& protocol : protocols) {
      TrainConfig config = config_;
      config.protocol = protocol;
      config.set = set_for(protocol, config_.set);
      config.html.clear();
      used.insert(used.end(), config.set.begin(), config.set.end());
      runs.push_back(std::move(config));
    }
    for (const std::string& item : config_.set) {
      if (std::find(used.begin(), used.end(), item) != used.end()) continue;
      fail(fmt::format("--set {}: none of {} has this option", item, fmt::join(protocols, ", ")));
    }
    return runs;
  }

  void publish(const std::vector<Report>& reports,
               const std::vector<std::vector<Span>>& timelines) const {
    std::vector<NamedReport> named;
    std::vector<PageRun> pages;
    for (std::size_t i = 0; i < reports.size(); ++i) {
      named.push_back({reports[i].protocol, &reports[i]});
      pages.push_back({reports[i].protocol, &reports[i], timelines[i]});
    }
    fmt::print("{}", to_text(comparison(named)));
    if (!config_.html.empty()) {
      write_file(config_.html, html_page("slip compare " + config_.task, pages));
      fmt::print("{}\n", std::filesystem::absolute(config_.html).string());
    }
  }

  std::vector<std::string> protocols_;
  TrainConfig config_;
};

}  // namespace

std::unique_ptr<Command> make_compare_command() { return std::make_unique<Compare>(); }

}  // namespace slip::cli
