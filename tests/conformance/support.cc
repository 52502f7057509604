#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <exception>
#include <numeric>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "conformance.h"
#include "slipstream/base/random.h"
#include "slipstream/gpu/memory.h"

namespace slip::testing {
namespace {

std::uint64_t number_from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

}  // namespace

const void* Payloads::at(const void* data, std::size_t bytes) {
  if (device_ == gpu::host || bytes == 0) return data;
  if (bytes > bytes_) {
    memory_ = gpu::allocate(device_, bytes);
    bytes_ = bytes;
  }
  gpu::copy(memory_.get(), data, bytes, gpu::current_stream(device_)).throw_if_failed();
  return memory_.get();
}

Contents::Contents(const Region& region, std::size_t offset, std::size_t bytes)
    : data_(region.data() + offset) {
  if (region.device() == gpu::host) return;
  copy_.resize(bytes);
  const gpu::Stream stream(region.device());
  gpu::copy(copy_.data(), data_, bytes, stream).throw_if_failed();
  stream.synchronize().throw_if_failed();
  data_ = copy_.data();
}

void for_seeds(int count, FunctionRef<void(std::uint64_t)> body, std::uint64_t most) {
  const std::uint64_t first = number_from_environment("SLIP_TEST_SEED", 1);
  const std::uint64_t seeds =
      std::min(most, number_from_environment("SLIP_TEST_SEEDS", static_cast<std::uint64_t>(count)));
  for (std::uint64_t seed = first; seed < first + seeds; ++seed) {
    try {
      body(seed);
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what();
    }
    if (!::testing::Test::HasFailure()) continue;
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    ADD_FAILURE() << "replay: SLIP_TEST_SEED=" << seed << " SLIP_TEST_SEEDS=1 "
                  << program_invocation_short_name << " --gtest_filter=" << test->test_suite_name()
                  << "." << test->name();
    return;
  }
}

Graph random_graph(int workers, double density, std::uint64_t seed) {
  Random random(seed);
  std::vector<int> order(static_cast<std::size_t>(workers));
  std::iota(order.begin(), order.end(), 0);
  shuffle(order, random);
  std::set<std::pair<int, int>> edges;
  for (std::size_t i = 0; i < order.size(); ++i) {
    edges.emplace(order[i], order[(i + 1) % order.size()]);
  }
  for (int from = 0; from < workers; ++from) {
    for (int to = 0; to < workers; ++to) {
      if (random.uniform() < density) edges.emplace(from, to);
    }
  }
  std::vector<Edge> list;
  for (const auto& [from, to] : edges) {
    if (from != to) list.push_back({from, to, {}});
  }
  return {workers, std::move(list)};
}

Neighbourhood neighbourhood(const Graph& graph, int rank) {
  const auto place = [rank](auto neighbours) {
    return static_cast<int>(std::find(neighbours.begin(), neighbours.end(), rank) -
                            neighbours.begin());
  };
  Neighbourhood result;
  for (const int peer : graph.neighbours_in(rank)) {
    result.in.push_back({peer, place(graph.neighbours_out(peer))});
  }
  for (const int peer : graph.neighbours_out(rank)) {
    result.out.push_back({peer, place(graph.neighbours_in(peer))});
  }
  return result;
}

}  // namespace slip::testing
