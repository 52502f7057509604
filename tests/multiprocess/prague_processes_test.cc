// Prague between real processes: the mean is conserved, and the loss of a worker, also of the one
// that forms the groups, ends the run everywhere.

#include <gmock/gmock.h>
#include <sys/wait.h>

#include <chrono>
#include <csignal>
#include <string>

#include "conformance.h"
#include "slipstream/base/random.h"
#include "slipstream/trainer/trainer.h"

namespace slip {
namespace {

using namespace std::chrono_literals;

constexpr int workers = 4;

double start_of(int rank) { return Random(key({7, static_cast<std::uint64_t>(rank)})).uniform(); }

testing::RunOptions patient() {
  testing::RunOptions options;
  options.world.wait_timeout = 60s;
  options.world.network.workers_per_host = 2;
  return options;
}

TrainerOptions of_run(Iteration iterations) {
  TrainerOptions options;
  options.iterations = iterations;
  options.own_start = true;
  options.heterogeneity = Heterogeneity({"1ms,jitter=0.5", {"rank=1,x=5"}, "", workers, 1});
  return options;
}

class PragueProcesses : public ::testing::TestWithParam<Prague> {};

TEST_P(PragueProcesses, conserve_the_mean) {
  const auto ends = testing::run_processes(
      workers,
      [](World& world) {
        double x = start_of(world.rank());
        Trainer trainer(world, {{&x, 1, Dtype::float64}}, GetParam(), of_run(60));
        while (trainer.running()) {
          world.compute([] {});
          trainer.step(trainer.gradient()).throw_if_failed();
        }
        trainer.average();
        double mean = 0;
        for (int rank = 0; rank < workers; ++rank) mean += start_of(rank) / workers;
        EXPECT_NEAR(x, mean, 1e-12);
        EXPECT_EQ(trainer.iterations_done(), 60u);
      },
      patient());
  EXPECT_THAT(ends, ::testing::Each(0));
}

TEST_P(PragueProcesses, end_when_a_worker_is_killed) {
  for (const int victim : {0, 3}) {
    const auto ends = testing::run_processes(
        workers,
        [victim](World& world) {
          Trainer trainer(world, {{nullptr, 1000}}, GetParam(), of_run(max_iteration));
          Status status;
          while (trainer.running()) {
            if (world.rank() == victim && trainer.iteration() == 20) raise(SIGKILL);
            world.compute([] {});
            status = trainer.step(trainer.gradient());
          }
          EXPECT_EQ(status.code(), Code::peer_lost) << status.message();
          EXPECT_EQ(status.peer(), victim);
        },
        patient());
    for (int rank = 0; rank < workers; ++rank) {
      const int end = ends[static_cast<std::size_t>(rank)];
      if (rank == victim) {
        EXPECT_TRUE(WIFSIGNALED(end));
      } else {
        EXPECT_EQ(end, 0) << "rank " << rank;
      }
    }
  }
}

std::string variant_name(const ::testing::TestParamInfo<Prague>& info) {
  const char* names[] = {"static_schedule", "random_groups", "divisions",
                         "static_schedule_in_the_background", "divisions_in_the_background"};
  return names[info.index];
}

INSTANTIATE_TEST_SUITE_P(
    , PragueProcesses,
    ::testing::Values(Prague{.generator = Prague::Generator::static_},
                      Prague{.generator = Prague::Generator::random},
                      Prague{.group_size = 2, .filter = 4},
                      Prague{.generator = Prague::Generator::static_,
                             .order = Prague::Order::parallel},
                      Prague{.group_size = 2, .filter = 4, .order = Prague::Order::parallel}),
    variant_name);

}  // namespace
}  // namespace slip
