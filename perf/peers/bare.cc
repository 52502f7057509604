// What the machine can do without a library: two processes, each bound to a processor, on shared
// memory. `slip_peer_bare ring|line|copy|mean SIZE ITERATIONS` prints the mean and the median of
// the microseconds of one operation:
//   ring  a message of SIZE bytes through a single-producer ring (mean: the median is of windows)
//   line  a word handed over, one way
//   copy  SIZE bytes copied into the other's memory, one way, in turns
//   mean  the mean of two float vectors of SIZE bytes, in both, by loads and stores

#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <string_view>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

struct alignas(64) Line {
  std::atomic<std::uint64_t> value{0};
};

/// Shared by the two processes.
struct Control {
  Line lines[2];
};

struct Peer {
  int rank;
  std::size_t size;
  long iterations;
  Control* control;
  std::byte* memory[2];  // of each rank; shared

  void hand_over(std::uint64_t value) const {
    control->lines[1 - rank].value.store(value, std::memory_order_release);
  }
  void await(std::uint64_t value) const {
    while (control->lines[rank].value.load(std::memory_order_acquire) < value) {
    }
  }
};

double microseconds(Clock::duration d) {
  return std::chrono::duration<double, std::micro>(d).count();
}

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

/// With 64-byte messages the ring stays in both processors' first-level caches.
constexpr std::size_t ring_slots = 224;
constexpr long window = 1024;

/// A slot is a sequence number and the payload; the reader returns what it has consumed.
std::size_t slot_bytes(std::size_t size) { return 8 + (size + 7) / 8 * 8; }

/// The library's wide, overlapping stores are several times slower here.
void copy_narrowly(std::byte* to, const std::byte* from, std::size_t size) {
  std::size_t i = 0;
  for (; i + 16 <= size; i += 16) {
    std::memcpy(to + i, from + i, 16);
    asm volatile("" ::: "memory");  // or the compiler would call the library
  }
  std::memcpy(to + i, from + i, size - i);
}

std::vector<double> ring(const Peer& p) {
  std::byte* slots = p.memory[1];
  const std::size_t step = slot_bytes(p.size);
  const auto slot = [&](std::uint64_t k) { return slots + k % ring_slots * step; };
  const auto word = [](std::byte* at) {
    return std::atomic_ref<std::uint64_t>(*reinterpret_cast<std::uint64_t*>(at));
  };
  const auto total = static_cast<std::uint64_t>(p.iterations * window);
  std::vector<double> times;
  if (p.rank == 0) {
    std::vector<std::byte> message(p.size);
    std::uint64_t consumed = 0;
    for (std::uint64_t k = 0; k < total; ++k) {
      while (k - consumed >= ring_slots) {
        consumed = p.control->lines[0].value.load(std::memory_order_acquire);
      }
      copy_narrowly(slot(k) + 8, message.data(), p.size);
      word(slot(k)).store(k + 1, std::memory_order_release);
    }
  } else {
    unsigned char sum = 0;
    auto last = Clock::now();
    for (std::uint64_t k = 0; k < total; ++k) {
      while (word(slot(k)).load(std::memory_order_acquire) != k + 1) {
      }
      sum ^= std::to_integer<unsigned char>(slot(k)[8]);
      if ((k + 1) % (ring_slots / 4) == 0) p.hand_over(k + 1);
      if ((k + 1) % window == 0) {
        const auto now = Clock::now();
        times.push_back(microseconds(now - last) / window);
        last = now;
      }
    }
    asm volatile("" ::"r"(sum));
  }
  return times;
}

/// Half the round trips; the clock is read while the message is on its way.
template <class Work>
std::vector<double> in_turns(const Peer& p, Work work) {
  std::vector<double> times;
  Clock::time_point last;
  for (long k = 1; k <= p.iterations + 1; ++k) {
    const auto value = static_cast<std::uint64_t>(k);
    if (p.rank == 1) p.await(value);
    work(k);
    p.hand_over(value);
    if (p.rank == 1) continue;
    const auto now = Clock::now();
    if (k > 1) times.push_back(microseconds(now - last) / 2);
    last = now;
    p.await(value);
  }
  return times;
}

std::vector<double> line(const Peer& p) {
  return in_turns(p, [](long) {});
}

/// From private memory into two slots of the other's, as an update queue does.
std::vector<double> copy(const Peer& p) {
  const std::vector<std::byte> source(p.size, std::byte{1});
  return in_turns(p, [&](long k) {
    std::memcpy(p.memory[1 - p.rank] + (k % 2 ? p.size : 0), source.data(), p.size);
  });
}

/// Each averages its half of both vectors.
std::vector<double> mean(const Peer& p) {
  auto* mine = reinterpret_cast<float*>(p.memory[0]);
  auto* other = reinterpret_cast<float*>(p.memory[1]);
  const std::size_t count = p.size / sizeof(float);
  const std::size_t begin = p.rank == 0 ? 0 : count / 2;
  const std::size_t end = p.rank == 0 ? count / 2 : count;
  std::vector<double> times;
  auto last = Clock::now();
  for (long k = 1; k <= p.iterations; ++k) {
    p.hand_over(static_cast<std::uint64_t>(2 * k - 1));
    p.await(static_cast<std::uint64_t>(2 * k - 1));
    for (std::size_t i = begin; i < end; ++i) {
      const float value = 0.5F * mine[i] + 0.5F * other[i];
      mine[i] = value;
      other[i] = value;
    }
    p.hand_over(static_cast<std::uint64_t>(2 * k));
    p.await(static_cast<std::uint64_t>(2 * k));
    const auto now = Clock::now();
    if (p.rank == 0) times.push_back(microseconds(now - last));
    last = now;
  }
  return times;
}

void bind(int rank) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) fail("sched_getaffinity");
  int skip = CPU_COUNT(&allowed) > 1 ? rank : 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed) || skip-- > 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0) fail("sched_setaffinity");
    return;
  }
}

std::byte* share(std::size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) fail("mmap");
  return static_cast<std::byte*>(memory);
}

void print(std::vector<double> times) {
  if (times.empty()) return;
  const double mean =
      std::accumulate(times.begin(), times.end(), 0.0) / static_cast<double>(times.size());
  std::nth_element(times.begin(), times.begin() + static_cast<long>(times.size() / 2), times.end());
  std::printf("%.6f %.6f\n", mean, times[times.size() / 2]);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view mode = argc == 4 ? argv[1] : "";
  auto* const run = mode == "ring"   ? ring
                    : mode == "line" ? line
                    : mode == "copy" ? copy
                    : mode == "mean" ? mean
                                     : nullptr;
  const long size = argc == 4 ? std::atol(argv[2]) : 0;
  const long iterations = argc == 4 ? std::atol(argv[3]) : 0;
  if (run == nullptr || size < 1 || iterations < 1) {
    std::fprintf(stderr, "usage: slip_peer_bare ring|line|copy|mean SIZE ITERATIONS\n");
    return 2;
  }
  const auto bytes = static_cast<std::size_t>(size);
  const std::size_t room = std::max(2 * bytes, ring_slots * slot_bytes(bytes));
  Peer peer{0, bytes, iterations, new (share(sizeof(Control))) Control, {share(room), share(room)}};
  const pid_t child = fork();
  if (child < 0) fail("fork");
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    peer.rank = 1;
  }
  bind(peer.rank);
  print(run(peer));
  std::fflush(stdout);
  if (child == 0) _exit(0);
  int status = 0;
  waitpid(child, &status, 0);
  return status == 0 ? 0 : 1;
}
