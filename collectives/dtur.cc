#include "slipstream/collectives/dtur.h"

#include <algorithm>

namespace slip {

Dtur::Dtur(int workers, std::vector<std::pair<int, int>> tree, int floor)
    : workers_(workers),
      floor_(floor),
      tree_(std::move(tree)),
      edges_of_(static_cast<std::size_t>(workers)),
      established_(tree_.size(), false),
      left_(tree_.size()),
      members_(words(workers), 0) {
  for (std::size_t e = 0; e < tree_.size(); ++e) {
    edges_of_[static_cast<std::size_t>(tree_[e].first)].push_back(e);
    edges_of_[static_cast<std::size_t>(tree_[e].second)].push_back(e);
  }
}

void Dtur::finished(int rank) {
  const auto i = static_cast<std::size_t>(rank);
  members_[i / 64] |= std::uint64_t{1} << (i % 64);
  ++count_;
  if (new_edge_) return;
  for (const std::size_t e : edges_of_[i]) {
    if (established_[e] || !has_finished(tree_[e].first) || !has_finished(tree_[e].second)) {
      continue;
    }
    new_edge_ = e;
    return;
  }
}

void Dtur::end() {
  if (new_edge_) {
    established_[*new_edge_] = true;
    --left_;
  }
  if (left_ == 0) {
    std::fill(established_.begin(), established_.end(), false);
    left_ = tree_.size();
  }
  std::fill(members_.begin(), members_.end(), 0);
  count_ = 0;
  new_edge_.reset();
}

}  // namespace slip
