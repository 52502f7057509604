// RelaySGD against worked examples, its exact uniformity, and its healing from lost messages, on
// every tree, in both schedules; and its invariants on random delays.

#include "slipstream/trainer/relay_sgd.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "conformance.h"
#include "consensus.h"
#include "slipstream/trainer/relay_trees.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using testing::for_seeds;
using Normalise = RelaySgd::Normalise;
using Payload = RelaySgd::Payload;
using Schedule = RelaySgd::Schedule;

using Models = std::vector<double>;  // by worker

struct Scenario {
  int workers = 1;
  std::string graph = "chain";
  RelaySgd protocol = {};
  Iteration iterations = 1;
  double learning_rate = 0.1;
  std::string drop = {};
  std::uint64_t seed = 1;
};

/// The models after every round, each a number twice, so that two trees have something to share
/// out; they begin at 0.
std::vector<Models> run(const Scenario& s,
                        const std::function<double(int rank, Iteration k, double x)>& gradient) {
  std::vector<std::vector<std::vector<double>>> recorded(static_cast<std::size_t>(s.workers));
  LaunchOptions simulated;
  simulated.kind = LaunchKind::simulated;
  simulated.stack_bytes = 128 * 1024;
  launch(
      s.workers,
      [&](World& world) {
        TrainerOptions options;
        options.graph = s.graph;
        options.learning_rate = s.learning_rate;
        options.iterations = s.iterations;
        options.record_parameters = true;
        options.seed = s.seed;
        options.heterogeneity = Heterogeneity({"1s,jitter=0.5", {}, s.drop, s.workers, s.seed});
        Trainer trainer(world, {{nullptr, 2, Dtype::float64}}, s.protocol, options);
        while (trainer.running()) {
          world.compute([] {});
          const double x = trainer.parameters().as<double>()[0];
          const double g = gradient(world.rank(), trainer.iteration(), x);
          for (double& element : trainer.gradient().as<double>()) element = g;
          trainer.step(trainer.gradient()).throw_if_failed();
        }
        recorded[static_cast<std::size_t>(world.rank())] = trainer.recorded_parameters();
      },
      simulated);
  std::vector<Models> rounds(s.iterations, Models(recorded.size()));
  for (std::size_t k = 0; k < rounds.size(); ++k) {
    for (std::size_t i = 0; i < recorded.size(); ++i) rounds[k][i] = recorded[i][k][0];
  }
  return rounds;
}

/// f_i(x) = (x - i)^2 / 2.
double towards_own_rank(int rank, Iteration, double x) { return x - rank; }

void expect_near(const Models& a, const Models& b, double tolerance, const std::string& what) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], tolerance) << what << i;
}

// ---- Worked examples: a chain of four, learning rate 0.1, rounds 1 to 6.

TEST(RelaySgd, MakesTheWorkedRoundsOfEveryNormalisation) {
  const std::vector<std::pair<Normalise, std::vector<Models>>> golden = {
      {Normalise::counts,
       {{.05, .1, .2, .25},
        {.145, .22875, .27375, .335},
        {.279094, .351938, .349688, .309469},
        {.409826, .446037, .410121, .361029},
        {.496624, .504477, .486663, .43532},
        {.537155, .565978, .563164, .5206}}},
      {Normalise::initial,
       {{.025, .075, .15, .125},
        {.0975, .20625, .22875, .211875},
        {.252094, .297938, .301172, .266016},
        {.353351, .389193, .366591, .329648},
        {.432508, .459409, .450943, .395627},
        {.493018, .526314, .523349, .484768}}},
      {Normalise::latest,
       {{.025, .075, .15, .125},
        {.10375, .20625, .22875, .243125},
        {.2535, .299344, .308203, .273047},
        {.353984, .398439, .371477, .332813},
        {.443344, .464313, .455151, .399161},
        {.499241, .531515, .526337, .488907}}}};
  for (const auto& [normalise, rounds] : golden) {
    const auto seen = run({.workers = 4, .protocol = {.normalise = normalise}, .iterations = 6},
                          towards_own_rank);
    for (std::size_t k = 0; k < rounds.size(); ++k) {
      expect_near(seen[k], rounds[k], 1e-6, "round " + std::to_string(k + 1) + ", worker ");
    }
  }
}

/// The recursion that RelaySGD is said to make: the mean of every worker's model, `delay` rounds
/// old.
TEST(RelaySgd, IsTheMeanOfOneDelayedModelOfEveryWorker) {
  for (const char* name : {"chain", "star", "binary-tree", "3-tree"}) {
    for (const int n : {2, 5, 9}) {
      for (const Schedule schedule : {Schedule::same_round, Schedule::overlap}) {
        const Graph tree = Graph::named(name, n);
        constexpr Iteration rounds = 25;
        const auto seen = run({.workers = n,
                               .graph = name,
                               .protocol = {.normalise = Normalise::initial, .schedule = schedule},
                               .iterations = rounds},
                              towards_own_rank);
        std::vector<Models> stepped;  // by round, after the local step
        Models x(static_cast<std::size_t>(n), 0.0);
        for (std::size_t k = 0; k < rounds; ++k) {
          stepped.push_back(x);
          for (int i = 0; i < n; ++i) stepped[k][i] -= 0.1 * towards_own_rank(i, k, x[i]);
          for (int i = 0; i < n; ++i) {
            x[i] = 0;
            for (int j = 0; j < n; ++j) {
              const int hops = tree.distance(j, i);
              const int delay = schedule == Schedule::overlap ? hops : std::max(hops - 1, 0);
              const auto age = static_cast<std::size_t>(delay);
              if (age <= k) x[i] += stepped[k - age][j] / n;  // before that it was 0
            }
          }
          expect_near(seen[k], x, 1e-12, std::string(name) + ", worker ");
        }
      }
    }
  }
}

TEST(RelaySgd, ModelsMeetInTheOptimumAndUpdatesLeaveThemApart) {
  const auto end = [](Payload payload) {
    return run({.workers = 4, .protocol = {.relay = payload}, .iterations = 400}, towards_own_rank)
        .back();
  };
  expect_near(end(Payload::models), {1.5, 1.5, 1.5, 1.5}, 1e-4, "models, worker ");
  expect_near(end(Payload::updates), {1.4175, 1.4646, 1.5354, 1.5825}, 1e-4, "updates, worker ");
}

// ---- One update by one worker reaches all alike, scaled by 1 / (1 + mean delay).

TEST(RelaySgd, DeliversAnUpdateToEverybodyAlike) {
  for (const char* graph : {"chain", "star", "binary-tree", "reversed-binary-tree", "3-tree",
                            "double-binary-trees", "ring", "double-ring"}) {
    const bool is_long =
        ::testing::Matches(::testing::AnyOf("chain", "ring", "double-ring"))(std::string(graph));
    for (const int n : {2, 3, 4, 7, 16, 64}) {
      for (const Schedule schedule : {Schedule::same_round, Schedule::overlap}) {
        const auto once = [n](int rank, Iteration k, double) {
          return rank == n / 3 && k == 0 ? -n : 0.0;
        };
        const Models end = run({.workers = n,
                                .graph = graph,
                                .protocol = {.normalise = Normalise::initial, .schedule = schedule},
                                .iterations = static_cast<Iteration>(is_long ? 100 + n * n : 2500),
                                .learning_rate = 1},
                               once)
                               .back();
        const double limit = 1 / (1 + mean_delay(Graph::named(graph, n), schedule));
        expect_near(end, Models(end.size(), limit), 1e-3,
                    std::string(graph) + " of " + std::to_string(n) + ", worker ");
      }
    }
  }
}

TEST(RelaySgd, MeanDelaysAreThePapers) {
  const auto factor = [](const char* graph, int n, Schedule schedule) {
    return 1 + mean_delay(Graph::named(graph, n), schedule);
  };
  struct Row {
    int n;
    double chain, tree, star;
  };
  for (const Row& row :
       {Row{4, 1.5, 1.375, 1.375}, Row{8, 2.75, 2.156, 1.656}, Row{16, 5.375, 3.320, 1.820},
        Row{32, 10.688, 4.783, 1.908}, Row{64, 21.344, 6.454, 1.954}}) {
    EXPECT_NEAR(factor("chain", row.n, Schedule::same_round), row.chain, 6e-4) << row.n;
    EXPECT_NEAR(factor("binary-tree", row.n, Schedule::same_round), row.tree, 6e-4) << row.n;
    EXPECT_NEAR(factor("star", row.n, Schedule::same_round), row.star, 6e-4) << row.n;
  }
  EXPECT_NEAR(factor("chain", 16, Schedule::overlap), 6.313, 6e-4);
  EXPECT_NEAR(factor("binary-tree", 16, Schedule::overlap), 4.258, 6e-4);
  EXPECT_NEAR(factor("star", 16, Schedule::overlap), 2.758, 6e-4);
}

TEST(RelaySgd, ACorrectedLearningRateDeliversAllOfAnUpdate) {
  const auto once = [](int rank, Iteration k, double) { return rank == 2 && k == 0 ? -8 : 0.0; };
  const Models end = run({.workers = 8,
                          .protocol = {.normalise = Normalise::initial, .correct_lr = true},
                          .iterations = 400,
                          .learning_rate = 1},
                         once)
                         .back();
  expect_near(end, Models(8, 1.0), 1e-6, "worker ");
}

// ---- Trees.

TEST(RelayTrees, SpanEveryGraphFromItsMiddle) {
  for (const std::string_view name : Graph::names()) {
    for (const int n : {1, 2, 3, 6, 16, 31}) {
      const Graph graph = Graph::named(name, n);
      if (!graph.is_symmetric()) continue;
      for (const Graph& tree : relay_trees(graph)) {
        EXPECT_EQ(tree.edge_count(), 2 * static_cast<std::size_t>(n - 1)) << name << " of " << n;
        EXPECT_TRUE(tree.is_symmetric());
        EXPECT_TRUE(tree.is_strongly_connected()) << name << " of " << n;
        for (int i = 0; i < n; ++i) {
          for (const int peer : tree.neighbours_in(i)) {
            EXPECT_THAT(graph.neighbours_in(i), ::testing::Contains(peer)) << name << " of " << n;
          }
        }
      }
    }
  }
  EXPECT_EQ(relay_trees(Graph::named("double-binary-trees", 8)).size(), 2u);
  // A ring of 9 has paths of up to 4 edges to both sides of its middle.
  const Graph tree = relay_trees(Graph::named("ring", 9)).front();
  int ends = 0;
  for (int i = 0; i < 9; ++i) ends += tree.neighbours_in(i).size() == 1;
  EXPECT_EQ(ends, 2);
}

TEST(RelayTrees, MeanHopsAreThoseOfABreadthFirstSearch) {
  for (const char* name : {"chain", "star", "binary-tree", "3-tree"}) {
    const Graph tree = Graph::named(name, 13);
    double hops = 0;
    for (int i = 0; i < 13; ++i) {
      for (const int d : tree.distances(i)) hops += d;
    }
    EXPECT_NEAR(mean_hops(tree), hops / (13 * 13), 1e-12) << name;
  }
}

// ---- Loss.

/// As the paper's program has it: a lost message is neither averaged nor relayed, and counts tell
/// how many models are missing, for which the worker's last average stands.
TEST(RelaySgd, GoesOnWithoutAMessageAsThePaperDoes) {
  struct Message {
    double sum = 0;
    int count = 0;
    void add(const Message& other) {
      sum += other.sum;
      count += other.count;
    }
  };
  constexpr int n = 8;
  constexpr Iteration rounds = 30;
  for (const char* name : {"chain", "binary-tree", "star"}) {
    const auto seen =
        run({.workers = n, .graph = name, .iterations = rounds, .drop = "p=0.2"}, towards_own_rank);
    const Heterogeneity lossy({"", {}, "p=0.2", n, 1});
    const Graph tree = Graph::named(name, n);
    std::map<std::pair<int, int>, Message> held;  // by sender and receiver
    Models x(n, 0.0);
    for (Iteration k = 0; k < rounds; ++k) {
      Models stepped = x;
      for (int i = 0; i < n; ++i) stepped[i] -= 0.1 * towards_own_rank(i, k, x[i]);
      const auto sum_at = [&](int i, int but) {
        Message sum{stepped[i], 1};
        for (const int from : tree.neighbours_in(i)) {
          if (from != but) sum.add(held[{from, i}]);
        }
        return sum;
      };
      std::map<std::pair<int, int>, Message> arrived;
      for (int i = 0; i < n; ++i) {
        for (const int to : tree.neighbours_in(i)) {
          if (!lossy.drops(to, i, k, 0)) arrived[{i, to}] = sum_at(i, to);
        }
      }
      held = arrived;
      for (int i = 0; i < n; ++i) {
        const Message sum = sum_at(i, -1);
        x[i] = (sum.sum + (n - sum.count) * x[i]) / n;
      }
      expect_near(seen[k], x, 1e-12, std::string(name) + ", worker ");
    }
  }
}

TEST(RelaySgd, HealsFromLostMessages) {
  for (const Normalise normalise : {Normalise::counts, Normalise::latest, Normalise::own}) {
    const auto rounds = run({.workers = 8,
                             .graph = "binary-tree",
                             .protocol = {.normalise = normalise},
                             .iterations = 800,
                             .learning_rate = 0.02,
                             .drop = "p=0.1"},
                            towards_own_rank);
    // Around the optimum 3.5; without loss it would be there.
    double off = 0;
    for (const double x : rounds.back()) {
      EXPECT_NEAR(x, 3.5, 0.5);
      off = std::max(off, std::abs(x - 3.5));
    }
    EXPECT_GT(off, 1e-4) << "nothing was lost";
  }
}

TEST(RelaySgd, ALostUpdateStaysLost) {
  const auto end = [](const std::string& drop) {
    return run({.workers = 4,
                .protocol = {.relay = Payload::updates},
                .iterations = 400,
                .drop = drop},
               towards_own_rank)
        .back();
  };
  const Models whole = end(""), lossy = end("p=0.05");
  double difference = 0;
  for (std::size_t i = 0; i < whole.size(); ++i) difference += std::abs(whole[i] - lossy[i]);
  EXPECT_GT(difference, 1e-3);
}

// ---- Late messages.

TEST(RelaySgd, DoesNotWaitForWhoIsLateWithinTheStaleness) {
  const auto train = [](int staleness) {
    std::pair<double, Models> result{0, Models(8)};
    LaunchOptions simulated;
    simulated.kind = LaunchKind::simulated;
    launch(
        8,
        [&](World& world) {
          double x = 0;
          TrainerOptions options;
          options.graph = "binary-tree";
          options.learning_rate = 0.05;
          options.iterations = 1500;
          options.heterogeneity = Heterogeneity({"10ms", {"random,x=6,p=1/n"}, "", 8, 1});
          Trainer trainer(world, {{&x, 1, Dtype::float64}}, RelaySgd{.staleness = staleness},
                          options);
          while (trainer.running()) {
            world.compute([] {});
            trainer.gradient().as<double>()[0] = x - world.rank();
            trainer.step(trainer.gradient()).throw_if_failed();
          }
          result.first = to_seconds(trainer.elapsed());
          result.second[static_cast<std::size_t>(world.rank())] = x;
          EXPECT_LE(world.counters().max_gap_seen.get(), static_cast<Iteration>(staleness) + 1);
        },
        simulated);
    return result;
  };
  const auto [waiting, exact] = train(0);
  const auto [going_on, stale] = train(6);
  EXPECT_GT(waiting / going_on, 1.5);
  expect_near(exact, Models(8, 3.5), 1e-6, "worker ");
  // All models count alike, however late they are.
  expect_near(stale, Models(8, 3.5), 0.05, "worker ");
}

// ---- Random scenarios.

void check(std::uint64_t seed, LaunchKind kind) {
  Random random(seed);
  consensus::Scenario s = consensus::random_scenario(random, seed, kind);
  RelaySgd options;
  options.normalise = static_cast<Normalise>(random.below(4));
  options.schedule = static_cast<Schedule>(random.below(2));
  options.staleness = static_cast<int>(random.below(4));
  s.protocol = consensus::make(options);
  const char* graphs[] = {"chain", "star", "binary-tree", "3-tree", "double-binary-trees", "ring"};
  s.trainer.graph = graphs[random.below(std::size(graphs))];
  const consensus::Outcome outcome = run(s);
  for (const Iteration done : outcome.done) EXPECT_EQ(done, outcome.done.front());
  for (const auto& x : outcome.ends) {
    for (const double value : x) {
      EXPECT_LE(std::abs(value), 1 + 1e-12) << "an average left the range of what it averages";
    }
  }
}

TEST(RelaySgdInvariants, hold_on_random_scenarios_in_the_simulator) {
  for_seeds(500, [](std::uint64_t seed) { check(seed, LaunchKind::simulated); });
}

TEST(RelaySgdInvariants, hold_on_threads) {
  for_seeds(
      20, [](std::uint64_t seed) { check(seed, LaunchKind::threads); }, 20);
}

TEST(RelaySgd, refuses_directed_graphs_and_normalised_updates) {
  const Graph directed = Graph::named("exponential", 8), chain = Graph::named("chain", 4);
  EXPECT_THROW(RelaySgd().validate({.graph = directed}), Error);
  RelaySgd options{.normalise = Normalise::counts, .relay = Payload::updates};
  EXPECT_THROW(options.validate({.graph = chain}), Error);
  options = {.relay = Payload::updates, .staleness = 1};
  EXPECT_THROW(options.validate({.graph = chain}), Error);
  EXPECT_NO_THROW(RelaySgd().validate({.graph = chain}));
}

}  // namespace
}  // namespace slip
