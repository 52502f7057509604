// A small network learns which of two interleaved half-moons a point lies on, by Adam (Kingma, Ba,
// 2015): an optimizer of one's own. Its moments stay with their worker; only parameters travel.
//
//     slip run -n 4 -- own_optimizer
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <numbers>
#include <span>
#include <vector>

#include "slipstream/slipstream.hpp"

namespace {

constexpr std::size_t hidden = 16;
constexpr std::size_t count = hidden * 4 + 1;  // two inputs, bias and output of each; a bias
constexpr int batch = 16;

struct Point {
  float x, y;
  float label;  // 0 or 1
};

Point draw(slip::Random& random) {
  const bool upper = random.below(2) == 0;
  const double angle = random.uniform(0, std::numbers::pi);
  const double x = upper ? std::cos(angle) : 1 - std::cos(angle);
  const double y = upper ? std::sin(angle) : 0.5 - std::sin(angle);
  return {static_cast<float>(x + 0.1 * random.normal()),
          static_cast<float>(y + 0.1 * random.normal()), upper ? 1.0f : 0.0f};
}

/// The probability of label 1. With `gradient`, adds that of the cross entropy.
float classify(std::span<const float> p, const Point& point, std::span<float> gradient = {}) {
  std::array<float, hidden> out;
  float sum = p[count - 1];
  for (std::size_t h = 0; h < hidden; ++h) {
    out[h] = std::tanh(p[4 * h] * point.x + p[4 * h + 1] * point.y + p[4 * h + 2]);
    sum += p[4 * h + 3] * out[h];
  }
  const float probability = 1 / (1 + std::exp(-sum));
  if (gradient.empty()) return probability;
  const float slope = (probability - point.label) / batch;
  gradient[count - 1] += slope;
  for (std::size_t h = 0; h < hidden; ++h) {
    const float inner = slope * p[4 * h + 3] * (1 - out[h] * out[h]);
    gradient[4 * h] += inner * point.x;
    gradient[4 * h + 1] += inner * point.y;
    gradient[4 * h + 2] += inner;
    gradient[4 * h + 3] += slope * out[h];
  }
  return probability;
}

class Adam {
 public:
  void apply(std::span<float> parameters, std::span<const float> gradient) {
    ++steps_;
    const float correct_mean = 1 - std::pow(0.9f, static_cast<float>(steps_));
    const float correct_square = 1 - std::pow(0.999f, static_cast<float>(steps_));
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      mean_[i] = 0.9f * mean_[i] + 0.1f * gradient[i];
      square_[i] = 0.999f * square_[i] + 0.001f * gradient[i] * gradient[i];
      parameters[i] -=
          0.02f * (mean_[i] / correct_mean) / (std::sqrt(square_[i] / correct_square) + 1e-8f);
    }
  }

 private:
  int steps_ = 0;
  std::array<float, count> mean_ = {};
  std::array<float, count> square_ = {};
};

void train() {
  const slip::World world = slip::World::connect();
  std::vector<float> parameters(count);
  slip::Random start(1);
  for (float& value : parameters) value = static_cast<float>(0.5 * start.normal());
  slip::Trainer trainer(world, {{.data = parameters.data(), .count = count}},
                        slip::Hop{.max_gap = 5, .backup = 1}, {.iterations = 600});
  Adam adam;
  std::vector<float> gradient(count);

  while (trainer.running()) {
    world.compute([&] {
      gradient.assign(count, 0);
      slip::Random random(slip::key({7, std::uint64_t(world.rank()), trainer.iteration()}));
      const auto now = trainer.parameters().as<float>();
      for (int b = 0; b < batch; ++b) classify(now, draw(random), gradient);
    });
    trainer.step([&](slip::VectorView x) { adam.apply(x.as<float>(), gradient); })
        .throw_if_failed();
  }
  trainer.average();

  if (world.rank() != 0) return;
  int right = 0;
  constexpr int tests = 2000;
  slip::Random unseen(99);
  for (int i = 0; i < tests; ++i) {
    const Point point = draw(unseen);
    right += (classify(parameters, point) > 0.5f) == (point.label > 0.5f) ? 1 : 0;
  }
  std::printf("%d workers: %.1f %% right\n", world.size(), 100.0 * right / tests);
}

}  // namespace

int main() {
  try {
    train();
  } catch (const slip::Error& error) {
    std::fprintf(stderr, "own_optimizer: %s\n", error.what());
    return 1;
  }
}
