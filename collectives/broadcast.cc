#include "slipstream/collectives/broadcast.h"

#include <cstring>

namespace slip {

void broadcast(const World& world, std::string_view name, VectorView vector) {
  if (world.size() == 1 || vector.count == 0) return;
  const std::size_t word_offset = (vector.bytes() + 7) / 8 * 8;
  const Region region = world.allocate(name, word_offset + sizeof(Word));
  if (world.rank() != 0) {
    world
        .wait_until([&] { return region.word(word_offset) != 0; }, world.deadline(),
                    "rank 0's parameters")
        .throw_if_failed();
    std::memcpy(vector.data, region.data(), vector.bytes());
  }
  for (int child = 2 * world.rank() + 1; child <= 2 * world.rank() + 2; ++child) {
    if (child >= world.size()) break;
    const RemoteRegion to = world.attach(child, name);
    world.transport()
        .put_signal(to, 0, vector.data, vector.bytes(), word_offset,
                    make_word(world.incarnation(), 0))
        .throw_if_failed();
    world
        .wait_until([&] { return world.transport().drained(child); }, world.deadline(),
                    "a broadcast")
        .throw_if_failed();
  }
  // Nobody frees its region while a peer may still write to it.
  world.bootstrap().fence(world.options().join_timeout);
}

}  // namespace slip
