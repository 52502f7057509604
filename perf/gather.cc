#include "slipstream/perf/gather.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

namespace slip::perf {
namespace {

/// Header of what a rank sends: it is followed by the samples.
struct Header {
  std::uint64_t wrong;
  std::uint64_t samples;
  double operations;
  double interval;  // negative: none
};

void send(const World& world, const std::string& name, const Measurement& own) {
  const Header header{own.wrong, own.times.size(), own.operations, own.interval.value_or(-1)};
  std::vector<std::byte> message(sizeof header + own.times.size() * sizeof(double));
  std::memcpy(message.data(), &header, sizeof header);
  if (!own.times.empty()) {
    std::memcpy(message.data() + sizeof header, own.times.data(), message.size() - sizeof header);
  }
  // The receiver names its region for the sender.
  const RemoteRegion to = world.attach(0, fmt::format("{}/{}", name, world.rank()));
  world.transport()
      .put_signal(to, sizeof(Word), message.data(), message.size(), 0,
                  make_word(world.incarnation(), 1))
      .throw_if_failed();
}

void merge(Measurement& all, const Header& header, std::span<const std::byte> samples) {
  all.wrong += header.wrong;
  all.operations = std::max(all.operations, header.operations);
  if (header.interval >= 0) all.interval = std::max(all.interval.value_or(0), header.interval);
  all.times.resize(std::max<std::size_t>(all.times.size(), header.samples));
  for (std::size_t i = 0; i < header.samples; ++i) {
    double time;
    std::memcpy(&time, samples.data() + i * sizeof time, sizeof time);
    all.times[i] = std::max(all.times[i], time);
  }
}

}  // namespace

Measurement gather(const World& world, const std::string& name, Measurement own,
                   std::size_t most_samples) {
  if (world.rank() != 0) {
    send(world, name, own);
    return own;
  }
  const std::size_t room = most_samples * sizeof(double);
  std::vector<Region> regions;
  for (int peer = 1; peer < world.size(); ++peer) {
    regions.push_back(
        world.allocate(fmt::format("{}/{}", name, peer), sizeof(Word) + sizeof(Header) + room));
  }
  for (const Region& region : regions) {
    world.wait_until([&] { return region.word(0) != 0; }, world.deadline(), "a rank's samples")
        .throw_if_failed();
    Header header;
    std::memcpy(&header, region.data() + sizeof(Word), sizeof header);
    if (header.samples > most_samples) {
      throw Error(Code::bad_data, fmt::format("{} samples where at most {} were taken",
                                              header.samples, most_samples));
    }
    merge(own, header, {region.data() + sizeof(Word) + sizeof header, room});
  }
  return own;
}

}  // namespace slip::perf
