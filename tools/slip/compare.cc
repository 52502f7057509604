#include "slipstream/tools/slip/compare.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "slipstream/tools/slip/findings.h"
#include "slipstream/tools/slip/grid.h"
#include "slipstream/tools/slip/plan.h"
#include "slipstream/tools/slip/result_page.h"
#include "slipstream/tools/slip/scenario.h"
#include "slipstream/tools/slip/stop_on_signal.h"
#include "slipstream/tools/slip/train_config.h"
#include "slipstream/tools/slip/training.h"
#include "slipstream/tools/slip/verdict.h"
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

// "a,b", "a b" or "all" as names; empty: none.
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
  return names;
}

// For a shell.
std::string quoted(const std::string& word) {
  constexpr std::string_view plain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-";
  const bool is_plain = !word.empty() && word.find_first_not_of(plain) == word.npos;
  return is_plain ? word : "'" + word + "'";
}

class Compare final : public Command {
 public:
  Compare()
      : Command("compare", "runs one scenario under several protocols and compares them",
                "slip compare --protocols all_reduce,hop --task targets --transport sim "
                "--compute 10ms --slow rank=1,x=4 --iterations 100 --html compare.html") {
    options_.section("Compare")
        .add("protocols", protocols_, "which, as a,b,c, or all; the first is the baseline")
        .add("short", short_, "the short form of the scenario that --config names")
        .add("page", page_, "FILE.md for a page of results, with its plots beside it");
    Options scenario = describe(config_);
    scenario.remove({"protocol", "rendezvous", "rank", "report", "trace", "save", "resume",
                     "record-parameters"});
    options_.append(scenario);
    add_common_options();
  }

  void configure(const Sources& sources) override {
    for (const auto* source : {&sources.environment, &sources.command_line}) {
      overrides_.insert(overrides_.end(), source->begin(), source->end());
    }
    // What decides how the file is read.
    for (const Setting& setting : overrides_) {
      if (setting.name == "short") options_.set(setting.name, setting.text, setting.shown_as);
    }
    if (!sources.file.empty()) scenario_ = read_scenario(sources.file, options_, short_);
    if (sources.file.empty() && short_) fail("--short needs --config, a file with a short form");
    std::vector<Setting> settings = scenario_.settings;
    std::erase_if(settings, [](const Setting& setting) { return setting.name == "protocol"; });
    set_all(settings, options_);
    set_all(overrides_, options_);
    command_ = command_line(sources);
  }

  int run() override {
    const std::vector<std::string> protocols = protocols_of(protocols_);
    if (protocols.empty() && scenario_.runs.empty()) {
      fail(fmt::format("--protocols is empty; allowed are all, {}, or a --config file with [[run]]",
                       fmt::join(protocol_names(), ", ")));
    }
    const Grid grid = make_grid(scenario_, protocols, overrides_);
    check_writable(config_.html, "--html");
    check_writable(page_, "--page");
    // All are checked before the first begins.
    std::vector<Plan> plans;
    for (const Grid::Case& one : grid.cases) {
      plans.push_back(in_case(one.name, [&] { return make_plan(one.config); }));
    }
    if (config_.dry_run) {
      for (const Plan& plan : plans) fmt::print("{}\n", describe(plan));
      return done;
    }

    Findings findings(grid);
    try {
      const ExitCode code = run_cases(findings);
      const bool all_met = publish(findings);
      return code == done && !all_met && !stopped_by_signal() ? failed : code;
    } catch (...) {
      publish(findings);  // what has finished is not lost
      throw;
    }
  }

  std::string more_help() const override {
    return fmt::format("\nProtocols: {}\n", fmt::join(protocol_names(), ", "));
  }

 private:
  // Until the first that fails.
  ExitCode run_cases(Findings& findings) {
    const std::vector<Grid::Case>& cases = findings.grid().cases;
    timelines_.resize(cases.size());
    for (std::size_t i = 0; i < cases.size() && !stopped_by_signal(); ++i) {
      if (!quiet()) {
        fmt::print("# {} of {}: {}\n", i + 1, cases.size(), cases[i].name);
        std::fflush(stdout);
      }
      TrainConfig config = cases[i].config;
      const MemoryFile report;
      const MemoryFile trace;
      config.report = report.path();
      if (!config_.html.empty()) config.trace = trace.path();
      if (const ExitCode code = run_training(config, quiet(), log_level()); code != done) {
        return code;
      }
      findings.add(i, read_report(config.report));
      if (!config.trace.empty()) {
        timelines_[i] = spans_from_chrome_trace(read_file(config.trace), config.trace);
      }
    }
    return done;
  }

  // False if an expectation is missed.
  bool publish(const Findings& findings) const {
    const std::vector<Verdict> verdicts = judge(scenario_.expectations, findings);
    for (const TitledTable& table : tables(findings)) {
      if (!table.title.empty()) fmt::print("\n{}\n", table.title);
      fmt::print("{}", to_text(table.table));
    }
    if (!verdicts.empty()) fmt::print("\n{}", to_text(to_table(verdicts)));
    if (!config_.html.empty()) {
      write_html(findings);
      fmt::print("{}\n", std::filesystem::absolute(config_.html).string());
    }
    if (!page_.empty()) {
      write_page(findings, verdicts);
      fmt::print("{}\n", std::filesystem::absolute(page_).string());
    }
    std::fflush(stdout);
    const auto missed = std::count_if(verdicts.begin(), verdicts.end(), [](const Verdict& v) {
      return v.outcome == Verdict::Outcome::missed;
    });
    if (missed > 0) {
      fmt::print(stderr, "slip compare: {} of {} expectations are missed\n", missed,
                 verdicts.size());
    }
    return missed == 0;
  }

  std::string title() const {
    return scenario_.title.empty() ? "slip compare " + config_.task : scenario_.title;
  }

  void write_html(const Findings& findings) const {
    std::vector<PageRun> runs;
    for (std::size_t i = 0; i < timelines_.size(); ++i) {
      const std::optional<Report>& report = findings.reports()[i];
      if (report) runs.push_back({findings.grid().cases[i].name, &*report, timelines_[i]});
    }
    write_file(config_.html, html_page(title(), runs));
  }

  void write_page(const Findings& findings, const std::vector<Verdict>& verdicts) const {
    const std::filesystem::path page = page_;
    const PageText text{title(), scenario_.text, command_};
    for (const PageFile& file : result_page(page.stem(), text, findings, verdicts)) {
      const bool is_page = file.name.ends_with(".md");
      write_file(is_page ? page : page.parent_path() / file.name, file.content);
    }
  }

  // What a page says that it was made by: all that has an influence on the figures.
  std::string command_line(const Sources& sources) const {
    std::string command;
    const auto has_no_influence = [](const std::string& name) {
      constexpr std::array<std::string_view, 4> names = {"html", "page", "quiet", "log-level"};
      return std::find(names.begin(), names.end(), name) != names.end();
    };
    for (const Setting& setting : sources.environment) {
      if (has_no_influence(setting.name)) continue;
      command += fmt::format("{}={} ", setting.shown_as, quoted(setting.text));
    }
    command += "slip compare";
    for (const Setting& setting : sources.command_line) {
      if (has_no_influence(setting.name)) continue;
      command += " " + setting.shown_as;
      const bool flag = options_.find(setting.name)->kind() == OptionKind::flag;
      if (!flag) command += " " + quoted(setting.text);
      if (flag && setting.text != "true") command += "=" + setting.text;
    }
    return command;
  }

  std::vector<std::string> protocols_;
  bool short_ = false;
  std::string page_;
  TrainConfig config_;  // of the command as a whole; cases have their own
  Scenario scenario_;
  std::vector<Setting> overrides_;  // environment and command line
  std::string command_;
  std::vector<std::vector<Span>> timelines_;  // by case
};

}  // namespace

std::unique_ptr<Command> make_compare_command() { return std::make_unique<Compare>(); }

}  // namespace slip::cli
