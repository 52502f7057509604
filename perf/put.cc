#include <algorithm>
#include <cstring>
#include <vector>

#include "slipstream/gpu/memory.h"
#include "slipstream/perf/bench.h"

namespace slip::perf {
namespace {

/// Puts with signal between the two of a pair. The word lies right behind the payload, so that a
/// small put is one cache line.
class Puts {
 public:
  explicit Puts(const Bench& bench)
      : bench_(bench),
        pair_(bench),
        word_offset_((bench.size + 7) / 8 * 8),
        device_(device_of(bench.world.rank(), bench.options)),
        here_(bench.world.allocate(bench.name, word_offset_ + sizeof(Word), Bell::worker, device_)),
        there_(bench.world.attach(pair_.peer, bench.name)),
        source_(bench.world.allocate(bench.name + "/source", bench.size, Bell::worker, device_)),
        on_host_(bench.size) {}

  bool starts() const { return pair_.starts; }

  Status put() { return bench_.world.transport().put(there_, 0, source_.data(), bench_.size); }
  Status put_signal() {
    const Word word = make_word(bench_.world.incarnation(), ++sent_);
    return bench_.world.transport().put_signal(there_, 0, source_.data(), bench_.size, word_offset_,
                                               word);
  }
  Status await() {
    ++awaited_;
    const auto here = [&] { return iteration_of(here_.word(word_offset_)) == awaited_; };
    return bench_.world.wait_until(here, bench_.world.deadline(), "a put");
  }

  void fill() {
    perf::fill(on_host_.data(), bench_.size, bench_.world.rank(), sent_ + 1);
    copy(source_.data(), on_host_.data());
  }
  std::uint64_t count_wrong() {
    copy(on_host_.data(), here_.data());
    return perf::count_wrong(on_host_.data(), bench_.size, pair_.peer, awaited_);
  }

 private:
  void copy(std::byte* to, const std::byte* from) const {
    if (device_ == gpu::host) {
      std::memcpy(to, from, bench_.size);
    } else {
      gpu::copy(to, from, bench_.size, gpu::current_stream(device_)).throw_if_failed();
      synchronize(device_);
    }
  }

  const Bench& bench_;
  const Pair pair_;
  const std::size_t word_offset_;
  const int device_;
  Region here_;
  RemoteRegion there_;
  Region source_;                   // registered, as senders' buffers are
  std::vector<std::byte> on_host_;  // of what is checked
  Iteration sent_ = 0;
  Iteration awaited_ = 0;
};

/// Puts that follow each other, a signal after the last: the time of one, on the starting side
/// until the other one has confirmed the last.
std::optional<double> stream(const Bench& bench, Puts& puts, std::int64_t count) {
  if (!puts.starts()) {
    puts.await().throw_if_failed();
    puts.put_signal().throw_if_failed();
    return {};
  }
  const Time start = bench.world.now();
  for (std::int64_t i = 1; i < count; ++i) puts.put().throw_if_failed();
  puts.put_signal().throw_if_failed();
  puts.await().throw_if_failed();
  return microseconds(bench.world.now() - start) / static_cast<double>(count);
}

std::uint64_t check(Puts& puts) {
  std::uint64_t wrong = 0;
  const auto put = [&] {  // what was put before has been confirmed
    puts.fill();
    puts.put_signal().throw_if_failed();
  };
  for (std::int64_t k = 0; k < checked_rounds; ++k) {
    if (puts.starts()) put();
    puts.await().throw_if_failed();
    wrong += puts.count_wrong();
    if (!puts.starts()) put();
  }
  return wrong;
}

Measurement measure(const Bench& bench) {
  Puts puts(bench);
  Measurement result;
  result.operations = 2;  // there and back
  result.times = ping_pong(
      bench, bench.iterations, [&](std::int64_t) { return puts.put_signal(); },
      [&](std::int64_t) { return puts.await(); });
  stream(bench, puts, std::max<std::int64_t>(1, bench.warm_up));
  result.interval = stream(bench, puts, bench.iterations);
  if (bench.options.check) result.wrong = check(puts);
  return result;
}

double bytes(double size, const PerfOptions&) { return size; }

}  // namespace

const Test put_test = {
    "put",   "put with signal, one way; bw and rate: puts that follow each other",
    "8",     "4M",
    measure, bytes,
    true,    true};

}  // namespace slip::perf
