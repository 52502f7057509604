#include "slipstream/collectives/dtur.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>
#include <vector>

#include "slipstream/base/random.h"
#include "slipstream/trainer/dybw.h"

namespace slip {
namespace {

std::vector<std::pair<int, int>> path(int workers) {
  return dtur_tree(Graph::named("chain", workers));
}

TEST(Dtur, AnIterationEndsWithBothEndsOfAnEdge) {
  Dtur dtur(4, path(4));
  dtur.finished(0);
  dtur.finished(2);
  EXPECT_FALSE(dtur.may_end()) << "no two neighbours";
  dtur.finished(3);
  EXPECT_TRUE(dtur.may_end());
  EXPECT_EQ(dtur.members(), (std::vector<std::uint64_t>{0b1101}));
}

TEST(Dtur, AnEdgeCountsOnceInAnEpoch) {
  Dtur dtur(3, path(3));
  const auto both = [&](int a, int b) {
    dtur.finished(a);
    dtur.finished(b);
    return dtur.may_end();
  };
  EXPECT_TRUE(both(0, 1));
  dtur.end();
  EXPECT_FALSE(both(0, 1)) << "established already";
  dtur.finished(2);
  EXPECT_TRUE(dtur.may_end());
  dtur.end();
  EXPECT_TRUE(both(0, 1)) << "a new epoch";
}

TEST(Dtur, AFloorIsMet) {
  Dtur dtur(4, path(4), 3);
  dtur.finished(0);
  dtur.finished(1);
  EXPECT_FALSE(dtur.may_end());
  dtur.finished(3);
  EXPECT_TRUE(dtur.may_end());
}

TEST(Dtur, AWorldOfOneEndsByItself) {
  Dtur dtur(1, path(1));
  EXPECT_FALSE(dtur.may_end());
  dtur.finished(0);
  EXPECT_TRUE(dtur.may_end());
  dtur.end();
  dtur.finished(0);
  EXPECT_TRUE(dtur.may_end());
}

/// Whatever the order in which they finish, also beyond one word of bits.
TEST(Dtur, AnEpochConnectsAllWorkers) {
  constexpr int workers = 70;
  const auto tree = path(workers);
  Dtur dtur(workers, tree);
  Random random(7);
  std::vector<int> order(workers);
  for (int epoch = 0; epoch < 5; ++epoch) {
    std::set<std::size_t> established;
    for (int iteration = 0; iteration < workers - 1; ++iteration) {
      std::iota(order.begin(), order.end(), 0);
      for (std::size_t i = order.size(); i > 1; --i)
        std::swap(order[i - 1], order[random.below(i)]);
      for (const int rank : order) {
        dtur.finished(rank);
        if (dtur.may_end()) break;
      }
      for (std::size_t e = 0; e < tree.size(); ++e) {
        if (dtur.has_finished(tree[e].first) && dtur.has_finished(tree[e].second)) {
          established.insert(e);
        }
      }
      dtur.end();
    }
    EXPECT_EQ(established.size(), tree.size());
  }
}

TEST(DturTree, IsThePathOfRanksOrASpanningTree) {
  for (const char* name : {"ring", "complete", "chain", "ring-based"}) {
    const auto tree = dtur_tree(Graph::named(name, 8));
    ASSERT_EQ(tree.size(), 7U) << name;
    for (int i = 0; i < 7; ++i) EXPECT_EQ(tree[static_cast<std::size_t>(i)], std::pair(i, i + 1));
  }
  EXPECT_EQ(dtur_tree(Graph::named("star", 5)).size(), 4U);
  EXPECT_EQ(dtur_tree(Graph::named("star", 5)).front(), std::pair(0, 1));
}

}  // namespace
}  // namespace slip
