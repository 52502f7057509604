#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <span>

#include "slipstream/perf/bench.h"
#include "slipstream/runtime/remote_ring.h"

namespace slip::perf {
namespace {

/// Messages of one sample: one is too short for the clock.
constexpr std::int64_t window = 1024;

/// So that small messages stay in both processors' first-level caches.
std::size_t capacity(std::size_t size) {
  return std::bit_ceil(std::max<std::size_t>(std::size_t{16} << 10, 8 * (size + 64)));
}

void send(const Bench& bench, RingSender& ring, std::int64_t count) {
  const auto message = std::make_unique<std::byte[]>(bench.size);
  for (std::int64_t k = 0; k < count; k += window) {
    const Time deadline = bench.world.deadline();
    for (std::int64_t i = 0; i < window; ++i) {
      if (Status status = ring.send({message.get(), bench.size}, deadline); !status) [[unlikely]]
        throw Error(status);
    }
  }
}

/// Calls `handler` with each of `count` messages.
template <class Handler>
void receive(const Bench& bench, RingReceiver& ring, std::int64_t count, Handler&& handler) {
  while (count > 0) {
    const auto waiting = [&] { return ring.ready(); };
    bench.world.wait_until(waiting, bench.world.deadline(), "a message").throw_if_failed();
    int received = 0;
    const auto limit = static_cast<int>(std::min(count, window));
    ring.poll(handler, limit, &received).throw_if_failed();
    count -= received;
  }
}

std::vector<double> receive_timed(const Bench& bench, RingReceiver& ring) {
  std::vector<double> times(static_cast<std::size_t>(bench.iterations));
  // Messages are looked at, as a handler would.
  unsigned char sum = 0;
  const auto look = [&](std::span<const std::byte> message) {
    sum ^= std::to_integer<unsigned char>(message.front());
  };
  receive(bench, ring, bench.warm_up * window, look);
  Time last = bench.world.now();
  for (double& time : times) {
    receive(bench, ring, window, look);
    const Time now = bench.world.now();
    time = microseconds(now - last) / static_cast<double>(window);
    last = now;
  }
  asm volatile("" ::"r"(sum));
  return times;
}

void send_patterns(const Bench& bench, RingSender& ring) {
  const auto message = std::make_unique<std::byte[]>(bench.size);
  for (std::int64_t k = 0; k < checked_rounds * window; ++k) {
    fill(message.get(), bench.size, bench.world.rank(), static_cast<std::uint64_t>(k));
    ring.send({message.get(), bench.size}, bench.world.deadline()).throw_if_failed();
  }
}

std::uint64_t check(const Bench& bench, RingReceiver& ring, int sender) {
  std::uint64_t wrong = 0;
  std::uint64_t k = 0;
  receive(bench, ring, checked_rounds * window, [&](std::span<const std::byte> message) {
    const std::size_t common = std::min(message.size(), bench.size);
    wrong += count_wrong(message.data(), common, sender, k++) + (bench.size - common);
  });
  return wrong;
}

Measurement measure(const Bench& bench) {
  const Pair pair(bench);
  Measurement result;
  result.operations = window;
  if (!pair.starts) {
    RingSender ring(bench.world, pair.peer, bench.name, capacity(bench.size));
    send(bench, ring, (bench.warm_up + bench.iterations) * window);
    if (bench.options.check) send_patterns(bench, ring);
  } else {
    RingReceiver ring(bench.world, pair.peer, bench.name, capacity(bench.size));
    result.times = receive_timed(bench, ring);
    if (bench.options.check) result.wrong = check(bench, ring, pair.peer);
  }
  return result;
}

double bytes(double size, const PerfOptions&) { return size; }

}  // namespace

const Test ring_test = {"ring",  "messages through a RemoteRing; times are per message",
                        "64",    "4K",
                        measure, bytes,
                        true,    true};

}  // namespace slip::perf
