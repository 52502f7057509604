#include "slipstream/perf/bench.h"

#include "slipstream/base/random.h"

namespace slip::perf {

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
