#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "slipstream/base/error.h"
#include "slipstream/base/portable_math.h"
#include "slipstream/base/random.h"
#include "slipstream/trainer/tasks/images_internal.h"
#include "slipstream/trainer/tasks/partition_internal.h"
#include "slipstream/trainer/tasks/settings_internal.h"

namespace slip {
namespace {

using Indices = std::vector<std::uint32_t>;

constexpr std::uint64_t partition_stream = 1;  // these draws are not the model's, which has `seed`

Indices shuffled(std::size_t count, Random& random) {
  Indices indices(count);
  std::iota(indices.begin(), indices.end(), 0u);
  shuffle(indices, random);
  return indices;
}

/// Where piece `i` of `pieces` nearly equal ones begins among `count`.
std::size_t cut(std::size_t count, std::size_t i, std::size_t pieces) { return count * i / pieces; }

Shares deal_iid(std::size_t count, std::size_t workers, Random& random) {
  const Indices all = shuffled(count, random);
  Shares shares;
  for (std::size_t w = 0; w < workers; ++w) {
    shares.emplace_back(all.begin() + static_cast<std::ptrdiff_t>(cut(count, w, workers)),
                        all.begin() + static_cast<std::ptrdiff_t>(cut(count, w + 1, workers)));
  }
  return shares;
}

Shares deal_shards(std::span<const std::uint8_t> labels, std::size_t workers,
                   std::size_t per_worker, Random& random) {
  Indices all = shuffled(labels.size(), random);
  std::ranges::stable_sort(all, {}, [&](std::uint32_t i) { return labels[i]; });
  const std::size_t pieces = workers * per_worker;
  const Indices order = shuffled(pieces, random);
  Shares shares(workers);
  for (std::size_t i = 0; i < pieces; ++i) {
    Indices& share = shares[i / per_worker];
    const std::size_t piece = order[i];
    share.insert(share.end(),
                 all.begin() + static_cast<std::ptrdiff_t>(cut(all.size(), piece, pieces)),
                 all.begin() + static_cast<std::ptrdiff_t>(cut(all.size(), piece + 1, pieces)));
  }
  return shares;
}

/// The logarithm of a Gamma(alpha, 1) draw (Marsaglia and Tsang 2000; below 1 by their boost). In
/// logarithms because a small alpha underflows.
double log_gamma_draw(double alpha, Random& random) {
  if (alpha < 1) {
    const double boost = portable::log(1 - random.uniform()) / alpha;
    return log_gamma_draw(alpha + 1, random) + boost;
  }
  const double d = alpha - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  for (;;) {
    const double x = random.normal();
    const double root = 1 + c * x;
    if (root <= 0) continue;
    const double v = root * root * root;
    if (portable::log(1 - random.uniform()) < 0.5 * x * x + d - d * v + d * portable::log(v)) {
      return portable::log(d) + portable::log(v);
    }
  }
}

/// A draw of those that are `open`, of whom there is one; 0 for the others.
std::vector<double> dirichlet_draw(double alpha, const std::vector<bool>& open, Random& random) {
  std::vector<double> p(open.size());
  double largest = std::numeric_limits<double>::lowest();
  for (std::size_t i = 0; i < p.size(); ++i) {
    p[i] = log_gamma_draw(alpha, random);
    if (open[i]) largest = std::max(largest, p[i]);
  }
  double sum = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    sum += p[i] = open[i] ? portable::exp(p[i] - largest) : 0;
  }
  for (double& value : p) value /= sum;
  return p;
}

/// Class by class, to those who have less than an equal share so far.
Shares deal_classes(std::span<const Indices> classes, std::size_t workers, double equal_share,
                    double alpha, Random& random) {
  Shares shares(workers);
  for (const Indices& members : classes) {
    if (members.empty()) continue;
    std::vector<bool> open(workers);
    for (std::size_t w = 0; w < workers; ++w) {
      open[w] = static_cast<double>(shares[w].size()) < equal_share;
    }
    const std::vector<double> p = dirichlet_draw(alpha, open, random);
    const auto size = static_cast<double>(members.size());
    double sum = 0;
    std::size_t begin = 0;
    for (std::size_t w = 0; w < workers; ++w) {
      sum += p[w];
      const std::size_t end =
          w + 1 == workers ? members.size() : static_cast<std::size_t>(std::min(size, sum * size));
      for (; begin < end; ++begin) shares[w].push_back(members[begin]);
    }
  }
  return shares;
}

/// As the code of RelaySum's experiments does: in groups of ten workers, each with its part of the
/// samples, anew until nobody has less than half of an equal share; then all are strung together
/// and cut into equal shares.
Shares deal_dirichlet(std::span<const std::uint8_t> labels, std::size_t workers, double alpha,
                      Random& random) {
  constexpr std::size_t group = 10;
  constexpr int attempts = 100;  // fewer classes than workers may never do
  const double equal_share = static_cast<double>(labels.size()) / static_cast<double>(workers);
  const Indices all = shuffled(labels.size(), random);
  Indices strung;
  for (std::size_t first = 0; first < workers; first += group) {
    const std::size_t end = std::min(first + group, workers);
    std::vector<Indices> classes(image_classes);
    for (std::size_t i = cut(all.size(), first, workers); i < cut(all.size(), end, workers); ++i) {
      classes[labels[all[i]]].push_back(all[i]);
    }
    Shares shares;
    for (int attempt = 0; attempt < attempts; ++attempt) {
      shares = deal_classes(classes, end - first, equal_share, alpha, random);
      const auto least = std::ranges::min_element(shares, {}, &Indices::size);
      if (2 * static_cast<double>(least->size()) >= equal_share) break;
    }
    for (Indices& share : shares) {
      shuffle(share, random);
      strung.insert(strung.end(), share.begin(), share.end());
    }
  }
  Shares shares;
  for (std::size_t w = 0; w < workers; ++w) {
    shares.emplace_back(
        strung.begin() + static_cast<std::ptrdiff_t>(cut(strung.size(), w, workers)),
        strung.begin() + static_cast<std::ptrdiff_t>(cut(strung.size(), w + 1, workers)));
  }
  return shares;
}

Shares deal_users(std::span<const std::uint32_t> users, std::size_t workers, std::size_t count,
                  Random& random) {
  const Indices order = shuffled(count, random);
  std::vector<std::size_t> worker_of(count);
  for (std::size_t w = 0; w < workers; ++w) {
    for (std::size_t i = cut(count, w, workers); i < cut(count, w + 1, workers); ++i) {
      worker_of[order[i]] = w;
    }
  }
  Shares shares(workers);
  for (std::size_t i = 0; i < users.size(); ++i) {
    shares[worker_of[users[i]]].push_back(static_cast<std::uint32_t>(i));
  }
  return shares;
}

[[noreturn]] void refuse_count(std::size_t samples, std::string_view name, std::size_t needed,
                               std::string_view what = "samples") {
  throw Error(Code::invalid_argument,
              fmt::format("--partition {} needs at least {} {}, one for each piece; the data "
                          "have {}: use fewer workers",
                          name, needed, what, samples));
}

[[noreturn]] void refuse_name(std::string_view name, std::string_view allowed) {
  throw Error(Code::invalid_argument,
              fmt::format("--partition: '{}' is unknown; allowed are {}", name, allowed));
}

}  // namespace

Shares partition(std::span<const std::uint8_t> labels, std::string_view name, int workers,
                 std::uint64_t seed) {
  const auto n = static_cast<std::size_t>(workers);
  const std::size_t equals = name.find('=');
  const std::string_view kind = name.substr(0, equals);
  const std::string_view value = equals == name.npos ? "" : name.substr(equals + 1);
  Random random(key({seed, partition_stream}));

  if (name == "iid") {
    if (labels.size() < n) refuse_count(labels.size(), name, n);
    return deal_iid(labels.size(), n, random);
  }
  if (kind == "dirichlet" && equals != name.npos) {
    const double alpha = parse_setting("--partition", value, {"dirichlet", 1, 1e-3, 1e6});
    if (labels.size() < n) refuse_count(labels.size(), name, n);
    return deal_dirichlet(labels, n, alpha, random);
  }
  if (kind == "shards" && equals != name.npos) {
    const double shards = parse_setting("--partition", value, {"shards", 1, 1, 1e6, true});
    const auto pieces = static_cast<std::size_t>(shards) * n;
    if (labels.size() < pieces) refuse_count(labels.size(), name, pieces);
    return deal_shards(labels, n, static_cast<std::size_t>(shards), random);
  }
  refuse_name(name, "iid, dirichlet=ALPHA, shards=N");
}

Shares partition_ratings(std::span<const std::uint32_t> users, std::string_view name, int workers,
                         std::uint64_t seed) {
  const auto n = static_cast<std::size_t>(workers);
  Random random(key({seed, partition_stream}));
  if (name == "iid") {
    if (users.size() < n) refuse_count(users.size(), name, n);
    return deal_iid(users.size(), n, random);
  }
  if (name == "user") {
    // Numbered from 0 on, each with a rating.
    const std::size_t count = users.empty() ? 0 : std::size_t{std::ranges::max(users)} + 1;
    if (count < n) refuse_count(count, name, n, "users");
    return deal_users(users, n, count, random);
  }
  refuse_name(name, "iid, user (with --task movielens)");
}

}  // namespace slip
