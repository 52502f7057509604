#include "slipstream/collectives/algorithm.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

namespace slip {
namespace {

/// A vector is not cut into smaller ones where stages overlap.
constexpr double small_chunk = 16 << 10;

PathCost path_of(const sim::Link& link) {
  const bool unlimited = link.bytes_per_second == 0;
  return {to_seconds(link.latency),
          unlimited ? std::numeric_limits<double>::infinity() : link.bytes_per_second};
}

}  // namespace

std::string_view to_string(Algorithm algorithm) {
  switch (algorithm) {
    case Algorithm::one_shot:
      return "one-shot";
    case Algorithm::two_shot:
      return "two-shot";
    case Algorithm::hierarchical:
      return "hierarchical";
    case Algorithm::nccl:
      return "nccl";
    case Algorithm::automatic:
      break;
  }
  return "automatic";
}

double CostModel::seconds(Algorithm algorithm, std::size_t bytes, const GroupShape& shape) const {
  const double b = static_cast<double>(bytes);
  const double n = shape.members;
  const double p = shape.per_host;
  const double h = shape.hosts;
  const double rails = shape.rails;
  // The slowest message counts.
  const double latency =
      std::max(shape.hosts > 1 ? outer.latency : 0.0, shape.per_host > 1 ? inner.latency : 0.0);
  // Everything to everybody: what a worker writes inside its host, and what leaves the host.
  const double inside = (p - 1) * b / inner.bandwidth;
  const double between = p * (n - p) * b / (rails * outer.bandwidth);
  switch (algorithm) {
    case Algorithm::one_shot:
      return latency + inside + between + n * b / arithmetic;
    case Algorithm::two_shot:  // chunks overlap, so the slowest part counts
      return 2 * latency + std::max((inside + between) * 2 / n, b / arithmetic);
    case Algorithm::hierarchical: {
      // To the leader, among leaders, and back: these overlap if there are chunks enough.
      const double part = b / rails;  // a leader's
      const double local = (p - 1) * part / inner.bandwidth;
      const double exchange = 2 * (h - 1) / h * part / outer.bandwidth;
      const double sums = (p + 1) * part / arithmetic;
      const double slowest = std::max({local, exchange, sums});
      const double chunks = std::max(1.0, part / h / small_chunk);
      return 2 * (inner.latency + outer.latency) + slowest +
             (2 * local + exchange + sums - slowest) / chunks;
    }
    case Algorithm::nccl:
      return std::numeric_limits<double>::infinity();
    case Algorithm::automatic:
      break;
  }
  return std::min(seconds(Algorithm::one_shot, bytes, shape),
                  std::min(seconds(Algorithm::two_shot, bytes, shape),
                           seconds(Algorithm::hierarchical, bytes, shape)));
}

std::string CostModel::to_text() const {
  const auto text = [](const PathCost& path) {
    return fmt::format("{:.3g} us, {:.3g} GB/s", path.latency * 1e6, path.bandwidth * 1e-9);
  };
  return fmt::format("inside a host {}; between hosts {}; arithmetic {:.3g} GB/s", text(inner),
                     text(outer), arithmetic * 1e-9);
}

CostModel cost_model(const World& world) {
  CostModel model;
  const sim::NetworkOptions& network = world.options().network;
  if (network.instant()) return model;
  model.inner = path_of(network.inner_link);
  model.outer = path_of(network.link);
  if (world.clock().is_virtual()) model.arithmetic = std::numeric_limits<double>::infinity();
  return model;
}

}  // namespace slip
