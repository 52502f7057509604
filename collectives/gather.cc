#include "slipstream/collectives/gather.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#include "slipstream/base/align_internal.h"

namespace slip {
namespace {

constexpr std::size_t piece = std::size_t{256} << 10;

// Rank 0's buffer: the number of the piece in it, the bytes still to come with it, and the piece.
constexpr std::size_t left_offset = 8;

/// Rank 0 numbers all pieces of a gathering from 1 on, and permits one after the other by its
/// number; a permission is also the word that the piece before has been read.
void receive(const World& world, const std::string& name,
             FunctionRef<void(int rank, std::string bytes)> take) {
  const Region buffer = world.allocate(name, line + piece);
  Iteration number = 0;
  for (int rank = 1; rank < world.size(); ++rank) {
    const RemoteRegion sender = world.attach(world.observer(), rank, name);
    std::string bytes;
    for (bool more = true; more;) {
      ++number;
      world.observer()
          .put_signal(sender, 0, nullptr, 0, 0, make_word(world.incarnation(), number))
          .throw_if_failed();
      world
          .wait_until([&] { return iteration_of(buffer.word(0)) == number; }, world.deadline(),
                      fmt::format("{} of rank {}", name, rank))
          .throw_if_failed();
      std::uint64_t left = 0;
      std::memcpy(&left, buffer.data() + left_offset, sizeof left);
      more = left > piece;
      const auto* data = reinterpret_cast<const char*>(buffer.data() + line);
      bytes.append(data, std::min<std::size_t>(left, piece));
    }
    take(rank, std::move(bytes));
  }
}

void send(const World& world, const std::string& name, std::span<const std::byte> mine) {
  const Region permission = world.allocate(name, line);
  const RemoteRegion buffer = world.attach(world.observer(), 0, name);
  Iteration number = 0;
  do {
    const auto permitted = [&] { return iteration_of(permission.word(0)) > number; };
    world.wait_until(permitted, world.deadline(), "its turn to send " + name).throw_if_failed();
    number = iteration_of(permission.word(0));
    const std::uint64_t left = mine.size();
    const auto now = mine.first(std::min(mine.size(), piece));
    world.observer().put(buffer, left_offset, &left, sizeof left).throw_if_failed();
    world.observer()
        .put_signal(buffer, line, now.data(), now.size(), 0, make_word(world.incarnation(), number))
        .throw_if_failed();
    world
        .wait_until([&] { return world.observer().drained(0); }, world.deadline(),
                    name + " to be sent")
        .throw_if_failed();
    mine = mine.subspan(now.size());
  } while (!mine.empty());
}

}  // namespace

void gather(const World& world, std::string_view name, std::span<const std::byte> mine,
            FunctionRef<void(int rank, std::string bytes)> take) {
  if (world.rank() != 0) return send(world, std::string(name), mine);
  take(0, {reinterpret_cast<const char*>(mine.data()), mine.size()});
  receive(world, std::string(name), take);
}

}  // namespace slip
