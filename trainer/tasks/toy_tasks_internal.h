#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "slipstream/trainer/tasks/task.h"

namespace slip {

// Tasks small enough to check by hand or by formula; in float64 but for consensus, none draws per
// mini-batch, and none needs a library, so one seed gives one history byte for byte on any machine.

/// No parameters: only the timing of a protocol is left.
std::unique_ptr<Task> make_none_task();

/// f_i(x) = (x - i)^2 / 2 in one dimension on rank i, started at 0. The loss is the exact mean over
/// the workers, least at x = (n - 1) / 2.
std::unique_ptr<Task> make_targets_task(int rank, int workers);

/// Zero gradients, in float32 as real models are; each worker starts at its own point, uniform in
/// [-1, 1)^dim and a pure function of (seed, rank), and only averaging moves it. What is evaluated
/// is the mean square of the parameters; the mini-batches' loss is 0.
std::unique_ptr<Task> make_consensus_task(std::size_t dim, std::uint64_t seed, int rank);

/// The random quadratics of RelaySum (Vogels et al. 2021, section 5):
///   f_i(x) = |A_i x - b_i|^2 / 2,   A_i = U_i diag(mu .. l, evenly spaced) V_i^T,
/// with random rotations, so the curvature lies between mu^2 and l^2. The workers' own minima are
/// apart so that the mean of |grad f_i(x*)|^2 at the common optimum x* is exactly `zeta2` (a single
/// worker has none), and x* is at distance `r0` from the start at 0.
/// The loss is exact: f(x) - f(x*) of the mean f over the workers.
struct QuadraticOptions {
  std::size_t dim = 10;
  double mu = 0.5;
  double l = 1;
  double zeta2 = 0.1;
  double r0 = 10;
  std::uint64_t seed = 1;
  int workers = 1;
};
std::unique_ptr<Task> make_quadratic_task(const QuadraticOptions& options, int rank);

/// One of the above from `--task`'s NAME and SETTINGS ("quadratic", "dim=10,mu=0.5"), or null if no
/// toy task is called `name`. Throws Error(invalid_argument).
std::unique_ptr<Task> make_toy_task(std::string_view name, std::string_view settings,
                                    const TaskOptions& options);

}  // namespace slip
