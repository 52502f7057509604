#include "slipstream/tools/slip/board.h"

#include <chrono>
#include <utility>

namespace slip::cli {
namespace {

constexpr const char* region = "slip/board";
constexpr Duration pause = std::chrono::milliseconds(50);

std::size_t offset(int rank) { return static_cast<std::size_t>(rank) * sizeof(Word); }

}  // namespace

RemoteBoard::RemoteBoard(const World& world) : world_(world) {
  if (world.rank() == 0) iterations_ = world.allocate(region, offset(world.size()));
  rank0_ = world.attach(world.observer(), 0, region);
}

void RemoteBoard::post(Iteration iteration) {
  // Not the world's clock, which begins anew in each process.
  const std::int64_t moment = std::chrono::steady_clock::now().time_since_epoch() / pause;
  if (moment == std::exchange(last_, moment)) return;
  // Where it fails, so does the next thing that the worker wants of rank 0, with a better message.
  (void)world_.observer().put_signal(rank0_, 0, nullptr, 0, offset(world_.rank()),
                                     make_word(world_.incarnation(), iteration));
}

Iteration RemoteBoard::at(int rank) const { return iteration_of(iterations_.word(offset(rank))); }

}  // namespace slip::cli
