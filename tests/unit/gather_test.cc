#include "slipstream/collectives/gather.h"

#include <gtest/gtest.h>

#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "slipstream/base/random.h"
#include "slipstream/runtime/launch.h"

namespace slip {
namespace {

std::string bytes_of(int rank, std::size_t size) {
  Random random(static_cast<std::uint64_t>(rank));
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}

class Gather : public testing::TestWithParam<LaunchKind> {
 protected:
  static void run(int workers, const std::function<void(World&)>& work) {
    LaunchOptions options;
    options.kind = GetParam();
    launch(workers, work, options);
  }
};

TEST_P(Gather, BringsEveryWorkersBytesToRankZeroInOrder) {
  // Nothing, less than a piece, whole pieces, and one byte more or less.
  const std::vector<std::size_t> sizes = {
      100, 0, 1, 256 << 10, 512000, 1024 * 1024, 1024 * 1024 + 1, (256 << 10) - 1};
  const int workers = static_cast<int>(sizes.size());
  std::vector<std::string> taken;
  run(workers, [&](World& world) {
    for (const char* name : {"first", "second"}) {
      const std::string mine =
          bytes_of(world.rank(), sizes[static_cast<std::size_t>(world.rank())]);
      gather(world, name, std::as_bytes(std::span(mine)), [&](int rank, std::string bytes) {
        EXPECT_EQ(world.rank(), 0);
        EXPECT_EQ(rank, static_cast<int>(taken.size()) % workers);
        taken.push_back(std::move(bytes));
      });
    }
  });
  ASSERT_EQ(taken.size(), 2 * sizes.size());
  for (std::size_t i = 0; i < taken.size(); ++i) {
    const std::size_t rank = i % sizes.size();
    EXPECT_TRUE(taken[i] == bytes_of(static_cast<int>(rank), sizes[rank])) << "rank " << rank;
  }
}

TEST_P(Gather, AWorldOfOneHasOnlyItsOwn) {
  std::string taken;
  run(1, [&](World& world) {
    const std::string mine = "mine";
    gather(world, "name", std::as_bytes(std::span(mine)),
           [&](int, const std::string& bytes) { taken = bytes; });
  });
  EXPECT_EQ(taken, "mine");
}

TEST_P(Gather, EndsWhereAWorkerFails) {
  try {
    run(3, [](World& world) {
      if (world.rank() == 2) throw Error(Code::bad_data, "the data ran out");
      const std::string mine(10, 'x');
      gather(world, "name", std::as_bytes(std::span(mine)), [](int, const std::string&) {});
    });
    ADD_FAILURE() << "no Error was thrown";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "the data ran out");
  }
}

INSTANTIATE_TEST_SUITE_P(Launched, Gather,
                         testing::Values(LaunchKind::threads, LaunchKind::simulated),
                         [](const auto& info) {
                           return info.param == LaunchKind::threads ? "threads" : "simulated";
                         });

}  // namespace
}  // namespace slip
