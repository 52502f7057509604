#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "slipstream/base/error.h"
#include "slipstream/base/function_ref.h"
#include "slipstream/base/word.h"
#include "slipstream/kernels/vector.h"
#include "slipstream/runtime/world.h"
#include "slipstream/transport/region.h"

namespace slip::all_reduce {

constexpr std::size_t line = 64;
constexpr std::size_t round_up(std::size_t n, std::size_t unit) {
  return (n + unit - 1) / unit * unit;
}

/// A worker has a slot of memory for each of its peers, in order of rank.
constexpr std::size_t slot(int sender, int receiver) {
  return static_cast<std::size_t>(sender < receiver ? sender : sender - 1);
}

/// One way to do it; see AllReduce.
class Algorithm {
 public:
  Algorithm(const World& world, std::string_view name)
      : world_(world), name_(name), copies_at_post_(world.transport().copies_at_post()) {}
  virtual ~Algorithm() = default;
  Algorithm(const Algorithm&) = delete;
  Algorithm& operator=(const Algorithm&) = delete;

  virtual VectorView buffer() const = 0;
  /// The operation with this number (1, 2, ...) on `vector`, which may be buffer().
  virtual Status mean(VectorView vector, Iteration number) = 0;

  Iteration max_lead() const { return max_lead_; }

 protected:
  /// The peer's region `name`, which has at least as many bytes as this worker's own.
  RemoteRegion attach(int peer, std::string_view name, std::size_t bytes) const;

  /// Until `arrived`, which is up to `peer`. No clock is read where nothing has to be waited for.
  template <class Condition>
  Status await(int peer, const Condition& arrived) {
    if (arrived()) [[likely]]
      return {};
    return wait_for(peer, arrived);
  }

  /// Until what was put to `peer` may be overwritten here.
  Status await_local_completion(const RemoteRegion& peer) {
    if (copies_at_post_ || peer.mapped()) return {};
    return await(peer.peer, [&] { return world_.transport().drained(peer.peer); });
  }

  const World& world_;

 private:
  Status wait_for(int peer, FunctionRef<bool()> arrived);

  const std::string name_;
  const bool copies_at_post_;
  Iteration max_lead_ = 0;
};

std::size_t one_shot_memory(int workers, std::size_t bytes);
std::unique_ptr<Algorithm> make_one_shot(const World& world, std::string_view name,
                                         std::size_t count, Dtype dtype);

std::size_t two_shot_memory(int workers, std::size_t bytes);
std::unique_ptr<Algorithm> make_two_shot(const World& world, std::string_view name,
                                         std::size_t count, Dtype dtype);

}  // namespace slip::all_reduce
