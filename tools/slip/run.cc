#include "slipstream/tools/slip/run.h"

#include <fmt/format.h>

#include <cstdio>

#include "slipstream/runtime/process_launcher.h"

namespace slip::cli {
namespace {

class Run final : public Command {
 public:
  Run()
      : Command("run", "starts a program as N local workers",
                "slip run -n 4 -- ./my_training --epochs 3") {
    options_.section("Options")
        .add("workers", workers_, "how many processes to start", Range::between(1, 65536))
        .add("prefix", prefix_, {"rank", "none"}, "what begins each line of the workers' output");
    add_common_options();
    short_names_["workers"] = "-n";
    arguments_name_ = "-- PROGRAM ARGS...";
    arguments_are_a_program_ = true;
  }

  int run() override {
    if (arguments_.empty()) {
      throw Error(Code::invalid_argument, "no program; allowed is slip run -n N -- PROGRAM ARGS");
    }
    ProcessOptions processes;
    processes.argv = arguments_;
    processes.workers = workers_;
    processes.prefix_output = prefix_ == "rank";
    const ProcessResult result = run_processes(processes);
    if (!result.message.empty()) fmt::print(stderr, "slip run: {}\n", result.message);
    return result.exit_code == 0 ? done : failed;
  }

 private:
  int workers_ = 2;
  std::string prefix_ = "rank";
};

}  // namespace

std::unique_ptr<Command> make_run_command() { return std::make_unique<Run>(); }

}  // namespace slip::cli
