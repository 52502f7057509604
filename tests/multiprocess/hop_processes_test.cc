// Hop's invariants (papers: bounds B4 to B6; jumps; the mean conserved) between real processes, one
// of which is a straggler.

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <system_error>

#include "conformance.h"
#include "slipstream/base/random.h"
#include "slipstream/trainer/trainer.h"

namespace slip {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t workers = 4;
constexpr std::size_t dimension = 3;
constexpr Iteration iterations = 60;

/// What the workers leave for each other and for the test; each writes at its own index only.
struct Board {
  std::array<std::atomic<std::int64_t>, workers> entered{};
  std::array<std::array<double, dimension>, workers> starts{}, ends{};
  std::array<Iteration, workers> done{}, jumps{};
};
static_assert(std::atomic<std::int64_t>::is_always_lock_free);

/// In memory that processes forked from here share.
class SharedBoard {
 public:
  SharedBoard() {
    void* memory =
        mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "mmap");
    board_ = new (memory) Board;
  }
  ~SharedBoard() { munmap(board_, sizeof(Board)); }
  SharedBoard(const SharedBoard&) = delete;
  SharedBoard& operator=(const SharedBoard&) = delete;
  Board* operator->() const { return board_; }

 private:
  Board* board_;
};

class HopProcesses : public ::testing::Test {
 protected:
  /// Trains with zero gradients from random starts, and checks as it goes.
  void run(const Hop& hop) {
    testing::RunOptions options;
    options.world.wait_timeout = 60s;
    const auto ends = testing::run_processes(
        workers, [&](World& world) { work(world, hop); }, options);
    for (std::size_t rank = 0; rank < workers; ++rank) {
      EXPECT_EQ(ends[rank], 0) << "rank " << rank;
      EXPECT_EQ(board->done[rank], iterations) << "rank " << rank;
    }
  }

  const SharedBoard board;

 private:
  /// The bound of Iter(i) - Iter(j) at `distance`, which on a ring is the same both ways.
  static int gap_bound(const Hop& hop, int distance) {
    const int by_tokens = hop.max_gap * distance;
    // Neither who does without updates nor who jumps over them is held by them.
    if (hop.backup > 0 || hop.max_jump > 0) return by_tokens;
    return std::min((hop.staleness.value_or(0) + 1) * distance, by_tokens);
  }

  static int longest_jump(const Hop& hop) { return std::min(hop.max_jump, hop.max_gap + 1); }

  void work(World& world, const Hop& hop) {
    const auto me = static_cast<std::size_t>(world.rank());
    const auto ring = std::make_shared<const Graph>(Graph::named("ring", workers));
    // A worker's tokens may be seen before it has written down how far it has stepped or jumped.
    const int slack = std::max(1, longest_jump(hop));
    auto& x = board->ends[me];
    Random random(key({99, me}));
    for (double& value : x) value = random.uniform(-1, 1);
    board->starts[me] = x;

    TrainerOptions options;
    options.shared_graph = ring;
    options.weights = Weights::metropolis;
    options.iterations = iterations;
    options.own_start = true;
    options.heterogeneity = Heterogeneity({"1ms,jitter=0.5", {"rank=0,x=20"}, "", workers, 1});
    Trainer trainer(world, {{x.data(), dimension, Dtype::float64}}, hop, options);
    Iteration before = 0;
    while (trainer.running()) {
      const Iteration k = trainer.iteration();
      board->entered[me] = static_cast<std::int64_t>(k);
      for (std::size_t j = 0; j < workers; ++j) {
        if (j == me) continue;
        const int bound = gap_bound(hop, ring->distance(world.rank(), static_cast<int>(j)));
        EXPECT_LE(static_cast<std::int64_t>(k) - board->entered[j], bound + slack)
            << "rank " << me << " in iteration " << k << ", rank " << j;
      }
      if (k > before + 1) {
        EXPECT_LE(k - before, static_cast<Iteration>(longest_jump(hop))) << "rank " << me;
        ++board->jumps[me];
      }
      before = k;
      world.compute([] {});
      const Status status = trainer.step(trainer.gradient());
      ASSERT_TRUE(status.ok()) << status.message();
    }
    // Past everything, for those who look.
    board->entered[me] = static_cast<std::int64_t>(iterations);
    board->done[me] = trainer.iterations_done();
  }
};

TEST_F(HopProcesses, the_standard_mode_keeps_its_bound_and_the_mean) {
  run({.max_gap = 2});
  for (std::size_t d = 0; d < dimension; ++d) {
    double first = 0;
    double last = 0;
    for (std::size_t rank = 0; rank < workers; ++rank) {
      first += board->starts[rank][d] / workers;
      last += board->ends[rank][d] / workers;
      EXPECT_NE(board->starts[rank][d], board->ends[rank][d]) << "rank " << rank;
    }
    EXPECT_NEAR(first, last, 1e-12);
  }
}

TEST_F(HopProcesses, backup_updates_and_jumps_keep_their_bounds) {
  run({.max_gap = 3, .backup = 1, .max_jump = 4});
  EXPECT_GT(board->jumps[0], 0U) << "the straggler";
}

TEST_F(HopProcesses, bounded_staleness_keeps_its_bound) { run({.max_gap = 4, .staleness = 2}); }

}  // namespace
}  // namespace slip
