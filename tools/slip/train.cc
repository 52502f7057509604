#include "slipstream/tools/slip/train.h"

#include <fmt/format.h>

#include "slipstream/tools/slip/plan.h"
#include "slipstream/tools/slip/train_config.h"
#include "slipstream/tools/slip/training.h"

namespace slip::cli {
namespace {

class Train final : public Command {
 public:
  Train()
      : Command("train", "trains one protocol on local or simulated workers",
                "slip train --task targets --workers 4 --iterations 100 --set max_gap=3") {
    options_ = describe(config_);
    add_common_options();
  }

  int run() override { return run_training(config_, quiet(), log_level()); }

  std::string more_help() const override {
    return protocol_help(config_.protocol) +
           "\nCtrl-C (SIGINT) or SIGTERM ends the run at an iteration that all workers agree on, "
           "with its\nresults and exit code 0; a second one ends it at once.\n";
  }

 private:
  TrainConfig config_;
};

}  // namespace

std::unique_ptr<Command> make_train_command() { return std::make_unique<Train>(); }

}  // namespace slip::cli
