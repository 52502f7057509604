// The random quadratics of RelaySum (Vogels et al., NeurIPS'21, section 5): steps until f(mean
// model) - f* is 1e-6, on the paper's own problems and at the learning rate that the search of its
// program finds, so that they are the paper's to the step.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "relaysum_problem.h"
#include "slipstream/runtime/launch.h"
#include "slipstream/trainer/trainer.h"

namespace slip {
namespace {

using relaysum::Problem;
using relaysum::ProblemOptions;

struct Method {
  std::function<std::unique_ptr<ProtocolConfig>()> protocol;
  std::string graph;
};

template <class P>
Method method(const P& options, const std::string& graph) {
  return {[options] { return std::make_unique<ProtocolConfigOf<P>>(options); }, graph};
}

Method relay(const std::string& graph,
             RelaySgd::Schedule schedule = RelaySgd::Schedule::same_round) {
  return method(RelaySgd{.normalise = RelaySgd::Normalise::initial, .schedule = schedule}, graph);
}

const Method all_reduce = method(AllReduceSgd(), "ring");
const Method d2_ring = method(D2{.lazy = false}, "ring");
const Method d2_star = method(D2{.lazy = false}, "star");
const Method gossip = method(QuasiGlobal(), "ring");
const Method tracking_ring = method(GradientTracking(), "ring");
const Method tracking_tree = method(GradientTracking(), "binary-tree");
const Method tracking_star = method(GradientTracking(), "star");
const Method relay_grad = method(RelaySgd{.relay = RelaySgd::Payload::updates}, "binary-tree");
const Method sgp = method(Sgp(), "ring");  // its graph is its own

constexpr double target = 1e-6;

/// Calls `look` with the error of the mean model after each step, until that returns false or for
/// `last` steps.
void run(double learning_rate, const Problem& problem, int workers, const Method& method,
         Iteration last, const std::function<bool(Iteration step, double error)>& look) {
  struct Mean {
    Problem::Vector x = Problem::Vector(Problem::dimension);
    int workers = 0;
  };
  std::map<Iteration, Mean> means;  // of the steps that not all workers have done
  bool enough = false;
  LaunchOptions simulated;
  simulated.kind = LaunchKind::simulated;
  simulated.stack_bytes = 128 * 1024;
  launch(
      workers,
      [&](World& world) {
        TrainerOptions options;
        options.graph = method.graph;
        options.learning_rate = learning_rate;
        options.iterations = last;
        Trainer trainer(world, {{nullptr, Problem::dimension, Dtype::float64}}, method.protocol(),
                        options);
        const auto doubles = [](VectorView v) {
          return std::span(static_cast<double*>(v.data), v.count);
        };
        while (trainer.running()) {
          if (enough) trainer.stop();
          const auto x = doubles(trainer.parameters());
          problem.gradient(world.rank(), x, doubles(trainer.gradient()));
          trainer.step(trainer.gradient()).throw_if_failed();
          const Iteration step = trainer.iterations_done();
          Mean& mean = means[step];
          for (std::size_t i = 0; i < x.size(); ++i) mean.x[i] += x[i] / workers;
          if (++mean.workers < workers) continue;
          if (!enough) enough = !look(step, problem.error(mean.x));
          means.erase(step);
        }
      },
      simulated);
}

/// How the paper's program looks for a learning rate, by bisection: for the one that reaches the
/// target first, or, of methods that end off the optimum, by how much the rate says, for one that
/// settles just below the target.
struct Search {
  enum class For { reaching, settling } what;
  double start;
  Iteration last;

  bool reaching() const { return what == For::reaching; }
  double resolution() const { return reaching() ? 1e-4 : 1e-6; }
  double agreement() const { return target / (reaching() ? 10 : 100); }
  /// The steps at which it looks at the error: a thousand, evenly spread in logarithms, which are
  /// all of the first hundred.
  std::vector<Iteration> looks() const {
    std::vector<Iteration> steps;
    for (int i = 0; i < 999; ++i) {
      const double step = std::pow(static_cast<double>(last), i / 999.0);
      const auto rounded = static_cast<Iteration>(std::lround(step));
      if (steps.empty() || rounded > steps.back()) steps.push_back(rounded);
    }
    return steps;
  }
};
constexpr Search fastest{Search::For::reaching, 10, 10'000};
constexpr Search settled{Search::For::settling, 10, 70'000};
constexpr Search fastest_in_figure_2{Search::For::reaching, 10, 20'000};
constexpr Search settled_in_figure_2{Search::For::settling, 100, 20'000};

struct End {
  enum class Kind { reaches, rises, settles, lasts } kind = Kind::lasts;
  Iteration step = 0;
  double error = 0;  // where it settles
};

/// The first that holds: the target is reached, if that is looked for; more than `patience` steps
/// are done; the error rises above the target, what oscillates might dip below by chance; three
/// looks agree.
End end_of(double rate, const ProblemOptions& options, const Problem& problem, const Method& method,
           const Search& search, Iteration patience) {
  const std::vector<Iteration> looks = search.looks();
  std::vector<double> seen;
  End end;
  const auto ends = [&](Iteration step, End::Kind kind, double error) {
    end = {kind, step, error};
    return false;
  };
  run(rate, problem, options.workers, method, looks.back(), [&](Iteration step, double error) {
    if (step != looks[seen.size()]) return true;
    seen.push_back(error);
    const std::size_t n = seen.size();
    if (search.reaching() && error < target) return ends(step, End::Kind::reaches, error);
    if (step > patience) return ends(step, End::Kind::lasts, error);
    if (!(error <= seen[0]) || (n > 1 && error > seen[n - 2] && error > target)) {
      return ends(step, End::Kind::rises, error);
    }
    if (n < 3) return true;
    const double mean = (seen[n - 3] + seen[n - 2] + error) / 3;
    const bool agree = std::all_of(seen.end() - 3, seen.end(), [&](double x) {
      return std::abs(x - mean) < search.agreement();
    });
    return agree ? ends(step, End::Kind::settles, mean) : true;
  });
  return end;
}

Iteration fewest_steps(const ProblemOptions& options, const Method& method, const Search& search) {
  const Problem problem(options);
  Iteration best = 0;  // none
  double low = 0, high = 2 * search.start;
  double rate = search.reaching() ? high : high / 2;
  for (int i = 0; i < 30 && high - low > search.resolution(); ++i) {
    const Iteration patience = best > 0 ? 10 * best : max_iteration;
    const End end = end_of(rate, options, problem, method, search, patience);
    const bool settles = end.kind == End::Kind::settles;
    const bool too_high = end.kind == End::Kind::rises || (settles && end.error > target);
    const bool counts = end.kind == End::Kind::reaches || (settles && end.error < target);
    const bool better = counts && (best == 0 || end.step < best);
    if (better) best = end.step;
    if (settles && counts && end.error > target / 1.1) break;
    if (too_high) {
      high = std::max(low, rate);
    } else if (end.kind != End::Kind::reaches) {
      low = std::min(rate, high);
    } else if (!better) {
      low = std::min(rate, high);
      high = std::min(4 * rate, high);
    }
    // Halved as long as nothing is known to be too low.
    rate = low > 0 ? (low + high) / 2 : rate / 2;
  }
  return best;
}

/// Appendix figures 7 and 8.
TEST(Quadratics, NeedThePapersStepsOnItsProblems) {
  struct {
    const char* name;
    Method method;
    std::vector<double> zeta2;
    std::vector<Iteration> steps;
  } const rows[] = {{"RelaySGD, chain", relay("chain"), {0, 0.1, 10}, {51, 51, 54}},
                    {"D2, ring", d2_ring, {0, 0.1, 10}, {18, 34, 54}},
                    {"gradient tracking, ring", tracking_ring, {0, 0.1, 10}, {10, 301, 641}},
                    {"RelaySGD, star", relay("star"), {0, 0.01, 0.1}, {8, 8, 8}},
                    {"D2, star", d2_star, {0, 0.01, 0.1}, {65, 65, 65}},
                    {"gradient tracking, star", tracking_star, {0, 0.01, 0.1}, {9, 280, 295}}};
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.steps.size(); ++i) {
      const ProblemOptions options{.workers = 32, .zeta2 = row.zeta2[i]};
      EXPECT_EQ(fewest_steps(options, row.method, fastest), row.steps[i])
          << row.name << ", zeta2 " << row.zeta2[i];
    }
  }
}

/// Appendix figure 7, and what the notebook of figure 2 prints of its first problems.
TEST(Quadratics, NeedThePapersStepsWhereTheySettleOffTheOptimum) {
  struct {
    const char* name;
    Method method;
    Search search;
    int workers;
    double zeta2;
    double r0;
    std::vector<Iteration> steps;  // of problems 0, 1, ...
  } const rows[] = {{"gossip", gossip, settled, 32, 0, 1, {13}},
                    {"gossip", gossip, settled, 32, 0.1, 1, {1469}},
                    {"gossip", gossip, settled, 32, 10, 1, {19818}},
                    {"gossip", gossip, settled_in_figure_2, 16, 0.1, 10, {2445, 3564, 4302}},
                    {"Grad", relay_grad, settled_in_figure_2, 16, 0.1, 10, {146, 96, 107}},
                    {"Grad", relay_grad, settled_in_figure_2, 64, 0.1, 10, {87, 85, 87}}};
  for (const auto& row : rows) {
    for (std::uint32_t seed = 0; seed < row.steps.size(); ++seed) {
      const ProblemOptions options{row.workers, row.zeta2, row.r0, seed};
      EXPECT_EQ(fewest_steps(options, row.method, row.search), row.steps[seed])
          << row.name << " of " << row.workers << ", zeta2 " << row.zeta2 << ", problem " << seed;
    }
  }
}

double median_steps(ProblemOptions options, const Method& method, std::uint32_t problems) {
  std::vector<double> steps;
  for (options.seed = 0; options.seed < problems; ++options.seed) {
    steps.push_back(static_cast<double>(fewest_steps(options, method, fastest_in_figure_2)));
  }
  std::sort(steps.begin(), steps.end());
  return (steps[(problems - 1) / 2] + steps[problems / 2]) / 2;
}

struct Row {
  std::string name;
  Method method;
  double zeta2;
  std::map<int, double> steps;  // the paper's, by the number of workers
  std::uint32_t problems = 10;
  double within = 0.01;
};

/// Figure 2, medians: the paper's of ten problems, and of both zeta2 where they are alike.
class Medians : public testing::TestWithParam<Row> {};

TEST_P(Medians, AreThePapers) {
  const Row& row = GetParam();
  for (const auto& [workers, paper] : row.steps) {
    const ProblemOptions options{.workers = workers, .zeta2 = row.zeta2, .r0 = 100};
    const double steps = median_steps(options, row.method, row.problems);
    EXPECT_NEAR(steps, paper, std::max(1.0, row.within * paper)) << workers << " workers";
    std::cout << workers << " workers: " << steps << " steps, the paper's " << paper << '\n';
  }
}

INSTANTIATE_TEST_SUITE_P(
    Quadratics, Medians,
    testing::Values(
        Row{"all_reduce", all_reduce, 0.01, {{6, 9}, {24, 7}, {96, 6}}},
        Row{"relay_sgd_tree", relay("binary-tree"), 0.01, {{6, 15}, {24, 27}, {96, 37}}},
        Row{"relay_sgd_tree_data_apart", relay("binary-tree"), 1, {{6, 15}, {24, 27}}},
        Row{"relay_sgd_chain", relay("chain"), 0.01, {{6, 21}, {24, 71}, {96, 244}}},
        Row{"relay_sgd_chain_data_apart", relay("chain"), 1, {{6, 21}, {24, 71}}},
        Row{"d2", d2_ring, 0.01, {{6, 19}, {24, 73}, {96, 205}}},
        Row{"d2_data_apart", d2_ring, 1, {{6, 19}, {24, 73}}},
        Row{"tracking_ring", tracking_ring, 0.01, {{6, 49}, {24, 712}}},
        Row{"tracking_tree", tracking_tree, 0.01, {{6, 158}, {24, 886}}},
        Row{"tracking_tree_of_96", tracking_tree, 0.01, {{96, 3260}}, 1, 0.15},
        Row{"sgp", sgp, 0.01, {{6, 110}, {24, 38}, {96, 21}}},
        Row{"sgp_data_apart", sgp, 1, {{6, 1032}, {24, 535}}},
        Row{"sgp_data_apart_of_96", sgp, 1, {{96, 339}}, 3, 0.15}),
    [](const auto& info) { return info.param.name; });

TEST(Quadratics, OverlapNeedsAFewStepsMore) {
  for (const char* graph : {"chain", "binary-tree", "star"}) {
    for (const int workers : {6, 16, 24}) {
      const ProblemOptions options{.workers = workers, .r0 = 100};
      const double same = median_steps(options, relay(graph), 3);
      const double overlap = median_steps(options, relay(graph, RelaySgd::Schedule::overlap), 3);
      EXPECT_GE(overlap, same + 2) << graph << " of " << workers;
      EXPECT_LE(overlap, same + 6) << graph << " of " << workers;
    }
  }
}

}  // namespace
}  // namespace slip
