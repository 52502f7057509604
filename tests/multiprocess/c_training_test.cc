// The C API between processes, in a program that is C.
#include <gmock/gmock.h>

#include "slip_program.h"

namespace slip {
namespace {

using ::testing::HasSubstr;

TEST(CTraining, hop_trains_four_processes) {
  const Outcome outcome = run_slip({"run", "-n", "4", "--", SLIP_C_TRAINING});
  EXPECT_TRUE(outcome.end.ok()) << outcome.output << outcome.error;
  EXPECT_THAT(outcome.output, HasSubstr("4 workers: x = 1.5"));
}

TEST(CTraining, a_rank_that_gives_up_ends_all_with_its_reason) {
  const Outcome outcome = run_slip({"run", "-n", "3", "--", SLIP_C_TRAINING, "1"});
  EXPECT_FALSE(outcome.end.ok());
  EXPECT_THAT(outcome.output + outcome.error, HasSubstr("rank gave up on purpose"));
}

}  // namespace
}  // namespace slip
