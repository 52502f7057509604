#include "slipstream/collectives/fragments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <span>
#include <vector>

#include "slipstream/base/error.h"

namespace slip {
namespace {

using Order = FragmentMap::Order;

/// By fragment the elements of the vector that it has.
std::vector<std::vector<std::size_t>> members(const FragmentMap& map) {
  std::vector<double> x(map.count()), gathered(map.count());
  std::iota(x.begin(), x.end(), 0.0);
  map.gather(view(std::span(gathered)), view(std::span(x)));
  std::vector<std::vector<std::size_t>> all;
  for (std::size_t f = 0; f < map.fragments(); ++f) {
    const auto begin = gathered.begin() + static_cast<std::ptrdiff_t>(map.first(f));
    all.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(map.count(f)));
  }
  return all;
}

TEST(FragmentMap, has_every_element_once_and_a_piece_of_every_tensor_in_each_fragment) {
  const std::vector<std::size_t> tensors{10, 3, 25, 7};
  for (const Order order : {Order::blocks, Order::shuffled}) {
    const FragmentMap map(tensors, 4, order, 5);
    std::set<std::size_t> seen;
    for (std::size_t f = 0; f < 4; ++f) {
      std::vector<std::size_t> of_tensor(tensors.size());
      const auto elements = members(map)[f];
      for (const std::size_t element : elements) {
        EXPECT_TRUE(seen.insert(element).second) << "element " << element << " is in two fragments";
        std::size_t tensor = 0, end = tensors[0];
        while (element >= end) end += tensors[++tensor];
        ++of_tensor[tensor];
      }
      for (std::size_t t = 0; t < tensors.size(); ++t) {
        const std::size_t piece = tensors[t] / 4;
        EXPECT_EQ(of_tensor[t], f < 3 ? piece : tensors[t] - 3 * piece) << "tensor " << t;
      }
      EXPECT_LE(elements.size(), map.largest());
    }
    EXPECT_EQ(seen.size(), 45u);
  }
}

TEST(FragmentMap, blocks_of_one_tensor_are_in_the_order_of_the_vector) {
  const std::vector<std::size_t> one{23};
  const FragmentMap map(one, 5, Order::blocks, 1);
  EXPECT_TRUE(map.identity());
  EXPECT_EQ(map.first(3), 12u);
  EXPECT_EQ(map.count(4), 7u);
  EXPECT_FALSE(FragmentMap(one, 5, Order::shuffled, 1).identity());
}

TEST(FragmentMap, averages_go_back_to_where_they_were_gathered_from) {
  const std::vector<std::size_t> tensors{9, 31};
  for (const Order order : {Order::blocks, Order::shuffled}) {
    const FragmentMap map(tensors, 3, order, 2);
    std::vector<float> x(40), gathered(40), back(40, -1);
    std::iota(x.begin(), x.end(), 0.0F);
    map.gather(view(std::span(gathered)), view(std::span(x)));
    for (std::size_t f = 0; f < 3; ++f) {
      const ConstVectorView all = view(std::span(gathered));
      const ConstVectorView fragment = all.slice(map.first(f), map.count(f));
      const ConstVectorView inputs[] = {fragment, fragment};
      const double weights[] = {0.25, 0.75};
      map.average(view(std::span(back)), f, inputs, weights);
      EXPECT_EQ(std::ranges::count(back, -1.0F),
                static_cast<std::ptrdiff_t>(40 - map.first(f) - map.count(f)));
    }
    EXPECT_EQ(back, x);
  }
}

TEST(FragmentMap, is_a_pure_function_of_the_seed) {
  const std::vector<std::size_t> tensors{50, 50};
  const auto made = [&](std::uint64_t seed) {
    return members(FragmentMap(tensors, 7, Order::shuffled, seed));
  };
  EXPECT_EQ(made(3), made(3));
  EXPECT_NE(made(3), made(4));
  // The two tensors have permutations of their own.
  const auto first = made(3)[0];
  std::vector<std::size_t> moved;
  for (std::size_t i = 7; i < 14; ++i) moved.push_back(first[i] - 50);
  EXPECT_NE(std::vector(first.begin(), first.begin() + 7), moved);
}

TEST(FragmentMap, refuses_no_fragments_and_too_many) {
  const std::vector<std::size_t> tensors{50};
  EXPECT_THROW(FragmentMap(tensors, 0, Order::blocks, 1), Error);
  EXPECT_THROW(FragmentMap(tensors, FragmentMap::most + 1, Order::blocks, 1), Error);
}

}  // namespace
}  // namespace slip
