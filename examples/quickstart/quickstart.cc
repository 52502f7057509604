// Four workers fit the line y = 2 x - 1, each from samples of its own. The last one computes
// slowly; with one backup update per iteration its neighbours do not wait for it.
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <thread>

#include "slipstream/slipstream.hpp"

namespace {

void train(slip::World& world) {
  std::array<float, 2> line = {0, 0};  // slope, intercept
  slip::Trainer trainer(world, {{.data = line.data(), .count = line.size()}},
                        slip::Hop{.max_gap = 5, .backup = 1},
                        {.learning_rate = 0.2, .iterations = 300});
  const bool slow = world.rank() == world.size() - 1;

  while (trainer.running()) {
    world.compute([&] {
      const auto at = trainer.parameters().as<float>();
      const auto gradient = trainer.gradient().as<float>();
      slip::Random random(slip::key({std::uint64_t(world.rank()), trainer.iteration()}));
      const auto x = static_cast<float>(random.uniform(-1, 1));
      const auto y = 2 * x - 1;
      const float error = at[0] * x + at[1] - y;
      gradient[0] = error * x;
      gradient[1] = error;
      if (slow) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    });
    trainer.step(trainer.gradient()).throw_if_failed();
  }
  trainer.average();
  if (world.rank() == 0) std::printf("y = %.2f x %+.2f\n", line[0], line[1]);
}

}  // namespace

int main() {
  try {
    slip::launch(4, train);
  } catch (const slip::Error& error) {
    std::fprintf(stderr, "quickstart: %s\n", error.what());
    return 1;
  }
}
