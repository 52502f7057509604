// How the simulator scales: timing-only Hop on a ring in virtual time, with more and more workers.
// Prints events per second, and the slopes of time and memory: 1 is linear.
//
//   simulator_scale [ITERATIONS [WORKERS...]]

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <vector>

#include "slipstream/runtime/launch.h"
#include "slipstream/trainer/trainer.h"

namespace slip::perf {
namespace {

using namespace std::chrono_literals;

struct Result {
  int workers;
  double events;
  double seconds;  // of the processor
  double bytes;    // at most, of memory
};

std::uint64_t simulate(int workers, Iteration iterations) {
  sim::Counts counts;
  LaunchOptions options;
  options.kind = LaunchKind::simulated;
  options.world.network.link.latency = 300ms;
  options.counts = &counts;
  TrainerOptions training;
  training.shared_graph = std::make_shared<const Graph>(Graph::named("ring", workers));
  training.iterations = iterations;
  training.heterogeneity =
      Heterogeneity({.compute = "1s,jitter=0.05", .slow = {}, .drop = {}, .workers = workers});
  launch(
      workers,
      [&](World& world) {
        Trainer trainer(world, {{nullptr, 0}}, Hop{}, training);
        while (trainer.running()) {
          world.compute([] {});
          trainer.step(trainer.gradient()).throw_if_failed();
        }
      },
      options);
  return counts.events;
}

/// In a process of its own, so that its memory is its own.
Result measure(int workers, Iteration iterations) {
  int channel[2];
  if (pipe(channel) != 0) throw_errno("cannot make a pipe");
  const pid_t child = fork();
  if (child < 0) throw_errno("cannot start a process");
  if (child == 0) {
    const std::uint64_t events = simulate(workers, iterations);
    const bool written = write(channel[1], &events, sizeof events) == sizeof events;
    _exit(written ? 0 : 1);
  }
  close(channel[1]);
  std::uint64_t events = 0;
  const bool read_all = read(channel[0], &events, sizeof events) == sizeof events;
  close(channel[0]);
  int status = 0;
  rusage usage{};
  if (wait4(child, &status, 0, &usage) != child || status != 0 || !read_all) {
    throw Error(Code::aborted, fmt::format("the run of {} workers failed", workers));
  }
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return {workers, static_cast<double>(events), seconds(usage.ru_utime) + seconds(usage.ru_stime),
          static_cast<double>(usage.ru_maxrss) * 1024};
}

void run(Iteration iterations, const std::vector<int>& sizes) {
  fmt::print("# Hop on a ring, {} iterations, timing only; seconds of one processor\n", iterations);
  fmt::print("{:>8} {:>12} {:>9} {:>11} {:>12}\n", "workers", "events", "seconds", "Mevents/s",
             "KiB/worker");
  std::vector<Result> results;
  for (const int workers : sizes) {
    const Result& r = results.emplace_back(measure(workers, iterations));
    fmt::print("{:>8} {:>12.0f} {:>9.3f} {:>11.2f} {:>12.1f}\n", r.workers, r.events, r.seconds,
               r.events / r.seconds * 1e-6, r.bytes / r.workers / 1024);
  }
  if (results.size() < 2) return;
  const Result& first = results.front();
  const Result& last = results.back();
  const double growth = std::log(static_cast<double>(last.workers) / first.workers);
  fmt::print("# slopes from {} to {} workers: time {:.2f}, memory {:.2f}\n", first.workers,
             last.workers, std::log(last.seconds / first.seconds) / growth,
             std::log(last.bytes / first.bytes) / growth);
}

}  // namespace
}  // namespace slip::perf

int main(int argc, char** argv) {
  std::vector<int> sizes;
  for (int i = 2; i < argc; ++i) sizes.push_back(std::atoi(argv[i]));
  if (sizes.empty()) sizes = {1024, 2048, 4096, 8192, 16384};
  const int iterations = argc > 1 ? std::atoi(argv[1]) : 50;
  try {
    if (iterations < 1) throw slip::Error(slip::Code::invalid_argument, "ITERATIONS is at least 1");
    slip::perf::run(static_cast<slip::Iteration>(iterations), sizes);
  } catch (const slip::Error& error) {
    fmt::print(stderr, "simulator_scale: {}\n", error.what());
    return 1;
  }
  return 0;
}
