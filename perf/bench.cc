#include "slipstream/perf/bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string_view>

#include "slipstream/base/error.h"
#include "slipstream/base/random.h"
#include "slipstream/gpu/device.h"
#include "slipstream/gpu/memory.h"
#include "slipstream/gpu/stream.h"
#include "slipstream/kernels/kernels.h"

namespace slip::perf {
namespace {

/// The rank that is all of `text`; -1 if it is none of the workers'.
int parse_rank(std::string_view text, int workers) {
  int rank = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), rank);
  const bool good = error == std::errc() && end == text.data() + text.size();
  return good && rank >= 0 && rank < workers ? rank : -1;
}

}  // namespace

std::optional<std::pair<int, int>> pair_of(const PerfOptions& options) {
  if (options.between.empty()) return std::nullopt;
  const std::string_view text = options.between;
  const std::size_t comma = std::min(text.find(','), text.size() - 1);
  const int first = parse_rank(text.substr(0, comma), options.workers);
  const int second = parse_rank(text.substr(comma + 1), options.workers);
  if (first >= 0 && second >= 0 && first != second) return std::pair(first, second);
  throw Error(Code::invalid_argument,
              fmt::format("--between is '{}'; allowed are two ranks from 0 to {}, such as 0,1",
                          text, options.workers - 1));
}

Pair::Pair(const Bench& bench) {
  const int rank = bench.world.rank();
  if (const auto pair = pair_of(bench.options)) {
    starts = rank == pair->first;
    peer = starts ? pair->second : pair->first;
  } else {
    starts = rank % 2 == 0;
    peer = rank ^ 1;
  }
}

int device_of(int rank, const PerfOptions& options) {
  return options.memory == "cuda" ? rank % gpu::device_count() : gpu::host;
}

Floats::Floats(std::size_t count, int device)
    : on_host_(device == gpu::host ? count : 0),
      on_gpu_(device == gpu::host ? nullptr : gpu::allocate(device, count * sizeof(float))),
      view_{on_gpu_ ? static_cast<void*>(on_gpu_.get()) : on_host_.data(), count, Dtype::float32,
            device} {}

void write(VectorView to, std::span<const float> values) {
  kernels::copy(to, slip::view(values));
  synchronize(to.device);
}

std::vector<float> read(ConstVectorView from) {
  std::vector<float> values(from.count);
  kernels::copy(slip::view(std::span(values)), from);
  synchronize(from.device);
  return values;
}

void synchronize(int device) {
  if (device != gpu::host) gpu::current_stream(device).synchronize().throw_if_failed();
}

double microseconds(Duration duration) { return static_cast<double>(duration.count()) * 1e-3; }

std::byte pattern(int rank, std::uint64_t k, std::size_t i) {
  return static_cast<std::byte>(mix(k * 1024 + static_cast<std::uint64_t>(rank)) + i * 7);
}

void fill(std::byte* bytes, std::size_t size, int rank, std::uint64_t k) {
  for (std::size_t i = 0; i < size; ++i) bytes[i] = pattern(rank, k, i);
}

std::uint64_t count_wrong(const std::byte* bytes, std::size_t size, int rank, std::uint64_t k) {
  std::uint64_t wrong = 0;
  for (std::size_t i = 0; i < size; ++i) wrong += bytes[i] != pattern(rank, k, i);
  return wrong;
}

}  // namespace slip::perf
