#include "slipstream/perf/perf.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <fstream>

#include "slipstream/gpu/device.h"
#include "slipstream/kernels/kernels.h"
#include "slipstream/perf/bench.h"
#include "slipstream/perf/gather.h"
#include "slipstream/perf/output.h"
#include "slipstream/perf/sizes.h"
#include "slipstream/perf/workers.h"
#include "slipstream/trainer/files.h"
#include "slipstream/version.h"

namespace slip::perf {
namespace {

constexpr std::array all_tests = {&put_test,     &ring_test,       &token_test,
                                  &update_test,  &kernel_test,     &partial_all_reduce_test,
                                  &group_test,   &all_reduce_test, &relay_test,
                                  &fragment_test};

/// So that the samples of `seconds` fit into memory.
constexpr double most_iterations = 1e7;

const Test& test_of(const std::string& name) {
  for (const Test* test : all_tests) {
    if (test->name == name) return *test;
  }
  throw Error(Code::invalid_argument, unknown_name("test", name, test_names()));
}

std::vector<std::size_t> sizes_of(const Test& test, const PerfOptions& options) {
  const std::string begin = options.begin.empty() ? test.begin : options.begin;
  // A first size of the user's own above the last one of the test stands alone.
  const std::size_t first = parse_size(begin, "-b");
  const std::size_t last = options.end.empty() ? std::max(first, parse_size(test.end, "-e"))
                                               : parse_size(options.end, "-e");
  return sizes_between(first, last, options.factor);
}

void validate(const Test& test, const PerfOptions& options) {
  const auto refuse = [](const std::string& line) { throw Error(Code::invalid_argument, line); };
  const bool reduces = &test == &all_reduce_test || &test == &partial_all_reduce_test;
  if (options.memory == "cuda") {
    if (&test != &kernel_test && &test != &put_test && !reduces) {
      refuse(fmt::format("-m is cuda; {} allows host", test.name));
    }
    if (const Status s = gpu::usable(); !s) refuse(fmt::format("-m is cuda: {}", s.message()));
  }
  const auto pair = pair_of(options);
  if (pair && !test.paired) {
    refuse(fmt::format("--between is given; {} is for all ranks together", test.name));
  }
  if (test.paired && !pair && options.workers % 2 != 0) {
    refuse(fmt::format("--workers is {}; {} pairs them: allowed are even numbers, or --between",
                       options.workers, test.name));
  }
  if (!test.simulated && options.transport == "sim") {
    refuse(fmt::format("--transport is sim; allowed for {} are shm, threads", test.name));
  }
  if (options.buffers == "user" && !reduces) {
    refuse(fmt::format("--buffers is user; {} allows registered", test.name));
  }
  const bool sized = &test != &token_test && &test != &group_test;
  if (!sized && !(options.begin.empty() && options.end.empty())) {
    refuse(fmt::format("-b or -e is given; {} has no sizes, only {} bytes", test.name, test.begin));
  }
  for (const auto& [name, given] : {std::pair("--link", !options.link.empty()),
                                    {"--inner-link", !options.inner_link.empty()},
                                    {"--hosts", options.hosts > 0}}) {
    if (given && options.transport != "sim") {
      refuse(fmt::format("{} is for --transport sim, not {}", name, options.transport));
    }
  }
  if (options.hosts > 0 && &test != &partial_all_reduce_test) {
    refuse(fmt::format("--hosts is for partial-all-reduce, not {}", test.name));
  }
  if (options.members() > options.workers || options.hosts > options.workers) {
    refuse(fmt::format("--group-size is {} and --hosts {}; allowed are up to {} (--workers)",
                       options.members(), options.hosts, options.workers));
  }
  if (options.groups == "fresh" && options.members() == options.workers) {
    refuse("--groups is fresh; there is but one group of everyone: --group-size below --workers");
  }
  if (options.explain && test.explain == nullptr) {
    refuse(fmt::format("--explain is for kernel and partial-all-reduce, not {}", test.name));
  }
}

std::string processor_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != line.npos) return line.substr(colon + 2);
  }
  return "unknown";
}

Environment environment_of(const Test& test, const PerfOptions& options) {
  Environment environment = {
      {"slipstream", version},          {"test", fmt::format("{}: {}", test.name, test.summary)},
      {"transport", options.transport}, {"workers", fmt::format("{}", options.workers)},
      {"buffers", options.buffers},     {"warm-up", fmt::format("{}", options.warm_up)},
  };
  if (&test == &partial_all_reduce_test) {
    environment.emplace_back("groups", fmt::format("{} of {}", options.groups, options.members()));
    environment.emplace_back("wire", options.wire == Wire::bf16 ? "bf16" : "exact");
  }
  if (!options.between.empty()) environment.emplace_back("between ranks", options.between);
  if (&test == &kernel_test) {
    environment.emplace_back("kernel", options.kernel);
    environment.emplace_back("inputs", fmt::format("{}", options.inputs));
  }
  if (&test == &kernel_test || options.memory == "cuda") {
    environment.emplace_back("memory", options.memory == "host" ? "host" : gpu::device_name(0));
  }
  if (options.algorithm != Algorithm::automatic) {
    environment.emplace_back("algorithm", to_string(options.algorithm));
  }
  if (options.transport == "sim") {
    environment.emplace_back("link", options.link.empty() ? "instant" : options.link);
    if (options.hosts > 0) {
      environment.emplace_back("hosts", fmt::format("{}", options.hosts));
      environment.emplace_back("inner link",
                               options.inner_link.empty() ? "instant" : options.inner_link);
    }
    return environment;  // virtual time does not depend on the machine
  }
  environment.emplace_back("processor", processor_name());
  environment.emplace_back("processors", fmt::format("{}", sysconf(_SC_NPROCESSORS_ONLN)));
  environment.emplace_back("instructions", kernels::target_name());
  return environment;
}

/// Runs one test in one worker, size by size. Rows are on rank 0 only.
class Runner {
 public:
  Runner(const World& world, const Test& test, const PerfOptions& options)
      : world_(world), test_(test), options_(options) {
    if (const auto pair = pair_of(options)) {
      takes_part_ = world.rank() == pair->first || world.rank() == pair->second;
    }
  }

  Row measure(std::size_t size) {
    std::int64_t iterations = options_.iterations;
    if (options_.seconds > 0) iterations = iterations_that_take(size);
    const Measurement all = measure(size, iterations);
    Row row;
    row.size = size;
    row.iterations = iterations;
    row.time = summarise(all.times);
    if (options_.check) row.wrong = all.wrong;
    // In virtual time an operation may take none.
    const double time = all.interval.value_or(row.time.avg);
    if (time > 0) {
      row.bw = test_.bytes(static_cast<double>(size), options_) / time * 1e-3;
      row.rate = 1 / time;
    }
    return row;
  }

 private:
  Measurement measure(std::size_t size, std::int64_t iterations) {
    const std::string name = fmt::format("perf/{}", ++measurements_);
    // Who takes no part is here long before the others.
    world_.bootstrap().fence(world_.options().wait_timeout);
    Measurement own;
    if (takes_part_) {
      own = test_.measure({world_, options_, size, iterations, options_.warm_up, name});
    }
    return gather(world_, name + "/samples", own, static_cast<std::size_t>(iterations));
  }

  /// As many as last for `seconds`, judged by a few; rank 0 decides.
  std::int64_t iterations_that_take(std::size_t size) {
    constexpr std::int64_t few = 20;
    const Measurement all = measure(size, few);
    const std::string name = fmt::format("perf/iterations/{}", measurements_);
    if (world_.rank() != 0) {
      return std::stoll(world_.bootstrap().get(name, world_.options().wait_timeout));
    }
    const double one = std::max(1e-3, summarise(all.times).p50 * all.operations);
    const double wanted = std::clamp(options_.seconds * 1e6 / one, 1.0, most_iterations);
    const auto iterations = static_cast<std::int64_t>(wanted);
    world_.bootstrap().put(name, fmt::format("{}", iterations));
    return iterations;
  }

  const World& world_;
  const Test& test_;
  const PerfOptions& options_;
  bool takes_part_ = true;
  int measurements_ = 0;
};

void print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

void run_rank_0(const World& world, Runner& runner, const Test& test, const PerfOptions& options,
                const std::vector<std::size_t>& sizes) {
  const Environment environment = environment_of(test, options);
  print(comment_lines(environment) + header_line());
  std::vector<Row> rows;
  std::uint64_t wrong = 0;
  for (const std::size_t size : sizes) {
    if (options.explain) print(test.explain(world, size, options));
    rows.push_back(runner.measure(size));
    print(row_line(rows.back()));
    wrong += rows.back().wrong.value_or(0);
  }
  if (!options.json.empty()) write_file(options.json, to_json(environment, rows));
  if (!options.csv.empty()) write_file(options.csv, to_csv(rows));
  if (wrong > 0) throw Error(Code::bad_data, fmt::format("{} wrong elements", wrong));
}

}  // namespace

Options describe(PerfOptions& options) {
  Options table;
  table.section("What is measured")
      .add("begin", options.begin, "first size in bytes, with K, M or G")
      .add("end", options.end, "last size")
      .add("factor", options.factor, "from one size to the next", Range::between(2, 1 << 20))
      .add("iterations", options.iterations, "samples for each size",
           Range::between(1, most_iterations))
      .add("warm-up", options.warm_up, "iterations before them", Range::between(0, most_iterations))
      .add("seconds", options.seconds, "about as long for each size, in place of --iterations",
           Range::between(0, 86400))
      .add("check", options.check, "1: check contents, after the samples were taken",
           Range::between(0, 1))
      .add("memory", options.memory, {"host", "cuda"}, "where the data lies")
      .add("kernel", options.kernel,
           {"weighted_average", "average_copies", "average_apply", "relay", "gather",
            "scatter_average", "axpy", "copy"},
           "what the test kernel runs")
      .add("inputs", options.inputs, "vectors of an average of the test kernel",
           Range::between(1, 64))
      .section("Where")
      .add("workers", options.asked_workers,
           "ranks, each bound to a core; by default the launcher's, else 2",
           Range::between(1, 1024))
      .add("transport", options.transport, {"shm", "cuda_ipc", "ucx", "verbs", "threads", "sim"},
           "processes by shared memory, UCX or RDMA verbs, threads, or simulated workers")
      .add("between", options.between, "2,5: only these ranks, of a test that works in pairs")
      .add("buffers", options.buffers, {"registered", "user"}, "whose memory all-reduce works on")
      .add("link", options.link, "of sim: rate=100gbit,latency=1us")
      .add("inner-link", options.inner_link, "of sim: inside a host")
      .add("hosts", options.hosts, "of sim: that hold the workers in blocks; 0: one for each",
           Range::between(0, 1024))
      .section("Of partial-all-reduce, group and all-reduce")
      .add("group-size", options.group_size, "members of a group; 0: everyone",
           Range::between(0, 1024))
      .add("groups", options.groups, {"repeated", "fresh"},
           "each right behind itself, or one that was not there before")
      .append(describe(options.algorithm, options.wire))
      .add("explain", options.explain,
           "print what each algorithm should take, and which is taken; of kernel: a copy beside it")
      .add("generator", options.generator, {"random", "buffer", "division"},
           "how the group service forms groups")
      .section("Output")
      .add("json", options.json, "file for the rows as JSON")
      .add("csv", options.csv, "file for the rows as CSV");
  return table;
}

std::map<std::string, std::string> short_names() {
  return {{"begin", "-b"},      {"end", "-e"},     {"factor", "-f"},
          {"iterations", "-n"}, {"warm-up", "-w"}, {"check", "-c"},
          {"seconds", "-D"},    {"memory", "-m"},  {"json", "-J"}};
}

std::vector<std::string> test_names() {
  std::vector<std::string> names;
  for (const Test* test : all_tests) names.emplace_back(test->name);
  return names;
}

std::string tests_help() {
  std::string help;
  for (const Test* test : all_tests)
    help += fmt::format("  {:<18} {}\n", test->name, test->summary);
  return help;
}

void run(const std::string& name, const PerfOptions& options) {
  const Test& test = test_of(name);
  const std::vector<std::size_t> sizes = sizes_of(test, options);
  validate(test, options);
  run_workers(options, [&](World& world) {
    Runner runner(world, test, options);
    if (world.rank() == 0) {
      run_rank_0(world, runner, test, options, sizes);
    } else {
      for (const std::size_t size : sizes) runner.measure(size);
    }
  });
}

}  // namespace slip::perf
