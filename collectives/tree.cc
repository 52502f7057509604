#include "slipstream/collectives/tree.h"

#include <algorithm>
#include <string>

#include "slipstream/base/align_internal.h"
#include "slipstream/kernels/kernels.h"

namespace slip {
namespace {

constexpr std::size_t slot_size(std::size_t bytes) { return line + round_up(bytes); }
constexpr int mean_slots = 3;  // the two children's sums, and the mean

/// A worker's place in the tree, and vectors that it gets from there.
class Tree {
 public:
  Tree(const World& world, std::string_view name, VectorView vector, int slots)
      : world_(world),
        name_(name),
        shape_(vector),
        slot_bytes_(slot_size(vector.bytes())),
        region_(world.allocate(name, slot_bytes_ * static_cast<std::size_t>(slots))) {}

  int parent() const { return (world_.rank() - 1) / 2; }
  bool is_root() const { return world_.rank() == 0; }
  int first_child() const { return 2 * world_.rank() + 1; }
  int end_child() const { return std::min(first_child() + 2, world_.size()); }

  void send(int to, int slot, VectorView vector) const {
    const RemoteRegion region = world_.attach(to, name_);
    const std::size_t at = slot_bytes_ * static_cast<std::size_t>(slot);
    world_.transport()
        .put_signal(region, at + line, vector.data, vector.bytes(), at,
                    make_word(world_.incarnation(), 0))
        .throw_if_failed();
    world_
        .wait_until([&] { return world_.transport().drained(to); }, world_.deadline(),
                    name_ + " to be sent")
        .throw_if_failed();
  }

  ConstVectorView receive(int slot) const {
    const std::size_t at = slot_bytes_ * static_cast<std::size_t>(slot);
    world_.wait_until([&] { return region_.word(at) != 0; }, world_.deadline(), name_)
        .throw_if_failed();
    return {region_.data() + at + line, shape_.count, shape_.dtype};
  }

  /// Nobody frees its memory while a peer may still write to it.
  void end() const { world_.bootstrap().fence(world_.options().join_timeout); }

 private:
  const World& world_;
  std::string name_;
  VectorView shape_;
  std::size_t slot_bytes_;
  Region region_;
};

void pass_down(const Tree& tree, int slot, VectorView vector) {
  if (!tree.is_root()) kernels::copy(vector, tree.receive(slot));
  for (int child = tree.first_child(); child < tree.end_child(); ++child) {
    tree.send(child, slot, vector);
  }
}

}  // namespace

void broadcast(const World& world, std::string_view name, VectorView vector) {
  if (world.size() == 1 || vector.count == 0) return;
  const Tree tree(world, name, vector, 1);
  pass_down(tree, 0, vector);
  tree.end();
}

void tree_mean(const World& world, std::string_view name, VectorView vector) {
  if (world.size() == 1 || vector.count == 0) return;
  const Tree tree(world, name, vector, mean_slots);
  for (int child = tree.first_child(); child < tree.end_child(); ++child) {
    kernels::axpy(vector, 1, tree.receive(child - tree.first_child()));
  }
  if (tree.is_root()) {
    const ConstVectorView sum = vector;
    const double share = 1.0 / world.size();
    kernels::weighted_average(vector, {&sum, 1}, {&share, 1});
  } else {
    tree.send(tree.parent(), (world.rank() - 1) % 2, vector);
  }
  pass_down(tree, mean_slots - 1, vector);
  tree.end();
}

std::size_t tree_mean_memory(int workers, std::size_t bytes) {
  return workers == 1 || bytes == 0 ? 0 : mean_slots * slot_size(bytes);
}

}  // namespace slip
