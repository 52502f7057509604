#include "slipstream/perf/perf.h"

#include <fmt/format.h>

#include "slipstream/perf/workers.h"
#include "slipstream/tools/slip/perf.h"

namespace slip::cli {
namespace {

class Perf final : public Command {
 public:
  Perf()
      : Command("perf", "measures one building block: latency, bandwidth, rate",
                "slip perf put -b 8 -e 1M -n 1000") {
    options_ = slip::perf::describe(config_);
    add_common_options();
    short_names_ = slip::perf::short_names();
    arguments_name_ = "TEST";
  }

  int run() override {
    if (arguments_.size() != 1) {
      throw Error(Code::invalid_argument,
                  fmt::format("{} tests named; allowed is one", arguments_.size()));
    }
    config_.workers = slip::perf::resolve_workers(config_);
    slip::perf::run(arguments_.front(), config_);
    return done;
  }

  std::vector<std::string> known_arguments() const override { return slip::perf::test_names(); }

  std::string more_help() const override { return "\nTests:\n" + slip::perf::tests_help(); }

 private:
  slip::perf::PerfOptions config_;
};

}  // namespace

std::unique_ptr<Command> make_perf_command() { return std::make_unique<Perf>(); }

}  // namespace slip::cli
