#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "slipstream/kernels/vector.h"
#include "slipstream/perf/perf.h"
#include "slipstream/runtime/world.h"

namespace slip::perf {

/// What every rank is given to measure one size. All ranks have the same.
struct Bench {
  const World& world;
  const PerfOptions& options;
  std::size_t size;         // bytes
  std::int64_t iterations;  // to be timed
  std::int64_t warm_up;     // to be done before
  std::string name;         // for regions; no other measurement has it
};

/// What one rank has measured.
struct Measurement {
  /// Microseconds of one operation, a sample for each iteration. Empty on ranks that only take
  /// part.
  std::vector<double> times;
  /// How many operations one iteration does, of which its sample is the mean.
  double operations = 1;
  /// Microseconds between operations that follow each other closely, where that is not the time of
  /// one: what bw and rate are made from.
  std::optional<double> interval;
  /// Elements or bytes that are not what they should be, of those that were checked.
  std::uint64_t wrong = 0;
};

/// A test: one file, one name.
struct Test {
  const char* name;
  const char* summary;
  const char* begin;  // default sizes
  const char* end;
  Measurement (*measure)(const Bench&);
  /// Bytes that bw counts, of an operation on `size` bytes.
  double (*bytes)(double size, const PerfOptions& options);
  bool paired;     // ranks work in pairs
  bool simulated;  // means something in virtual time
  /// Lines that --explain prints before a size is measured; null: there are none.
  std::string (*explain)(const World& world, std::size_t size,
                         const PerfOptions& options) = nullptr;
};

extern const Test put_test;
extern const Test ring_test;
extern const Test token_test;
extern const Test update_test;
extern const Test kernel_test;
extern const Test all_reduce_test;
extern const Test partial_all_reduce_test;
extern const Test group_test;
extern const Test relay_test;
extern const Test fragment_test;

/// The ranks of --between, the one that starts first; empty where it is not given. Throws
/// Error(invalid_argument).
std::optional<std::pair<int, int>> pair_of(const PerfOptions& options);

/// Ranks 0 and 1, 2 and 3, ... work in pairs, all at the same time; or those of --between alone.
/// The one that starts holds the watch.
struct Pair {
  explicit Pair(const Bench& bench);
  int peer;
  bool starts;
};

/// The GPU that a rank works on, or gpu::host.
int device_of(int rank, const PerfOptions& options);

/// Memory of a device for so many floats; of the host where it is gpu::host.
class Floats {
 public:
  Floats(std::size_t count, int device);
  VectorView view() const { return view_; }

 private:
  std::vector<float> on_host_;
  std::shared_ptr<std::byte> on_gpu_;
  VectorView view_;
};

/// Copies to and from memory of a device, and waits for it.
void write(VectorView to, std::span<const float> values);
std::vector<float> read(ConstVectorView from);
/// Until what is enqueued on this thread's stream of a GPU is done.
void synchronize(int device);

double microseconds(Duration duration);

/// Operations of all ranks, each right behind the one before.
template <class Run>
std::vector<double> back_to_back(const Bench& bench, Run&& run) {
  std::vector<double> times(static_cast<std::size_t>(bench.iterations));
  for (std::int64_t k = 0; k < bench.warm_up; ++k) run();
  Time last = bench.world.now();
  for (double& time : times) {
    run();
    const Time now = bench.world.now();
    time = microseconds(now - last);
    last = now;
  }
  return times;
}

/// Half the round trips of messages between the two of a pair. `send(k)` posts and `await(k)` waits
/// for the k-th message; both return Status. The clock is read after each posting, so that reading
/// it overlaps with the message's flight and costs nothing.
template <class Send, class Await>
std::vector<double> ping_pong(const Bench& bench, std::int64_t iterations, Send&& send,
                              Await&& await) {
  const Pair pair(bench);
  const std::int64_t rounds = bench.warm_up + iterations + 1;
  std::vector<double> times;
  if (pair.starts) times.resize(static_cast<std::size_t>(iterations));
  Time last{};
  for (std::int64_t k = 0; k < rounds; ++k) {
    if (!pair.starts) await(k).throw_if_failed();
    send(k).throw_if_failed();
    if (!pair.starts) continue;
    const Time now = bench.world.now();
    if (k > bench.warm_up) {
      times[static_cast<std::size_t>(k - bench.warm_up - 1)] = microseconds(now - last) / 2;
    }
    last = now;
    await(k).throw_if_failed();
  }
  return times;
}

/// Byte `i` of the message or vector number `k` of `rank`: a pattern that no neighbouring number
/// or place shares.
std::byte pattern(int rank, std::uint64_t k, std::size_t i);
void fill(std::byte* bytes, std::size_t size, int rank, std::uint64_t k);
std::uint64_t count_wrong(const std::byte* bytes, std::size_t size, int rank, std::uint64_t k);

/// How many rounds are checked, after those that are timed.
constexpr std::int64_t checked_rounds = 16;

}  // namespace slip::perf
