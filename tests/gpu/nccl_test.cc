// Groups that repeat, averaged by NCCL: on a stand-in for it (fake_nccl), for which several workers
// on a machine need several GPUs.

#include "slipstream/gpu/nccl.h"

#include <dlfcn.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "averaging.h"
#include "conformance.h"
#include "slipstream/collectives/all_reduce.h"
#include "slipstream/collectives/partial_all_reduce.h"
#include "slipstream/gpu/memory.h"
#include "slipstream/gpu/nccl_communicator_internal.h"
#include "slipstream/gpu/stream.h"
#include "slipstream/trainer/all_reduce_sgd.h"
#include "slipstream/trainer/prague.h"
#include "slipstream/trainer/trainer.h"

namespace slip::testing {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;

constexpr std::size_t count = 70'001;

/// Of the stand-ins (fake_cuda/settings.h, fake_nccl/settings.h).
using Settings = std::vector<std::pair<std::string, std::string>>;

void expect_ok(const Status& status) { EXPECT_TRUE(status.ok()) << status.message(); }

/// Of one process, before it first asks for NCCL.
void set(const Settings& settings) {
  for (const auto& [name, value] : settings) setenv(name.c_str(), value.c_str(), 1);
}

/// A count that the stand-in keeps of its communicators in this process.
int asked(const char* function) {
  void* library = dlopen(SLIP_FAKE_NCCL, RTLD_NOW | RTLD_NOLOAD);
  return reinterpret_cast<int (*)()>(dlsym(library, function))();
}

class Nccl : public ::testing::Test {
 protected:
  void SetUp() override {
    if (std::getenv("SLIP_TEST_GPU") != nullptr) GTEST_SKIP() << "for fake GPUs alone";
    const std::string missing = gpu_backends().front().missing;
    if (!missing.empty()) GTEST_SKIP() << missing;
  }

  static RunOptions options() {
    RunOptions result = gpu_backends()[1].defaults;
    result.world.wait_timeout = 60s;
    result.environment.emplace_back("FAKE_CUDA_DEVICES", "4");
    result.environment.emplace_back("SLIP_NCCL_LIBRARY", SLIP_FAKE_NCCL);
    return result;
  }
  /// Rank r has GPU r.
  static void run(int workers, const Work& work, const RunOptions& how = options()) {
    EXPECT_THAT(run_processes(workers, work, how), Each(0));
  }
};

PartialAllReduceOptions by_nccl(const World& world, bool in_place = false) {
  PartialAllReduceOptions result;
  result.in_place = in_place;
  result.algorithm = Algorithm::nccl;
  result.device = world.rank();
  return result;
}

/// A vector in memory of this worker's GPU, or elsewhere there.
template <class T>
void upload(VectorView to, const std::vector<T>& from, const gpu::Stream& stream) {
  expect_ok(gpu::copy(to.data, from.data(), to.bytes(), stream));
}
template <class T>
std::vector<T> download(VectorView from, const gpu::Stream& stream) {
  std::vector<T> values(from.count);
  expect_ok(gpu::copy(values.data(), from.data, from.bytes(), stream));
  expect_ok(stream.synchronize());
  return values;
}

/// Of vectors within [-1, 1]; to rounding, by whatever order they are added in.
template <class T>
void expect_near(const std::vector<T>& values, const std::vector<T>& expected) {
  ASSERT_EQ(values.size(), expected.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    ASSERT_NEAR(values[i], expected[i], 4 * std::numeric_limits<T>::epsilon()) << i;
  }
}

bool has(const std::vector<int>& members, int rank) {
  return std::find(members.begin(), members.end(), rank) != members.end();
}

// ---- What it comes to.

const std::vector<std::vector<int>> all_groups = {{0, 1, 2}, {0, 2}, {1, 2}, {0, 1}};

/// Averages all groups in turn, and compares each with what it should be. From the third time on a
/// group is NCCL's.
template <class T>
void average_in_turn(World& world, Dtype dtype, bool in_place, bool users) {
  const gpu::Stream stream(world.rank());
  const gpu::CurrentStream current(stream);
  PartialAllReduce partial(world, "mean", count, dtype, by_nccl(world, in_place));
  const auto own = gpu::allocate(world.rank(), count * sizeof(T));
  const VectorView vector{own.get(), count, dtype, world.rank()};
  std::uint64_t sequence = 0;
  for (int turn = 0; turn < 5; ++turn) {
    for (const std::vector<int>& members : all_groups) {
      const Group group{++sequence, members};
      if (!has(members, world.rank())) continue;
      EXPECT_EQ(partial.algorithm(group) == Algorithm::nccl, turn >= 2);
      if (turn == 3) expect_ok(partial.announce(group));
      std::vector<T> values(count);
      fill<T>(values, world.rank(), sequence);
      upload(users ? vector : partial.buffer(), values, stream);
      expect_ok(users ? partial.mean(group, vector) : partial.mean(group));
      expect_near(download<T>(users ? vector : partial.buffer(), stream),
                  expected_mean<T>(members, count, sequence));
    }
  }
  EXPECT_EQ(asked("fake_nccl_made"), 3) << "a communicator for each group of this worker";
  EXPECT_EQ(asked("fake_nccl_averages"), 3 * 3);
}

TEST_F(Nccl, GroupsThatRepeatComeToTheSameMean) {
  for (const bool in_place : {false, true}) {
    for (const bool users : {false, true}) {
      run(3, [=](World& world) { average_in_turn<float>(world, Dtype::float32, in_place, users); });
    }
  }
  run(3, [](World& world) { average_in_turn<double>(world, Dtype::float64, false, false); });
}

TEST_F(Nccl, EveryMemberHasTheSameBits) {
  run(3, [](World& world) {
    const gpu::Stream stream(world.rank());
    const gpu::CurrentStream current(stream);
    AllReduce all(world, "mean", count, Dtype::float32, by_nccl(world, true));
    for (std::uint64_t round = 0; round < 4; ++round) {
      std::vector<float> values(count);
      fill<float>(values, world.rank(), round);
      upload(all.buffer(), values, stream);
      expect_ok(all.mean());
    }
    const std::vector<float> mean = download<float>(all.buffer(), stream);
    world.bootstrap().put("mean of " + std::to_string(world.rank()),
                          std::string(reinterpret_cast<const char*>(mean.data()), 60'000));
    const std::string first = world.bootstrap().get("mean of 0", 60s);
    EXPECT_EQ(std::memcmp(first.data(), mean.data(), first.size()), 0);
  });
}

TEST_F(Nccl, AnAllReduceMakesOneCommunicatorAndClosesIt) {
  run(3, [](World& world) {
    {
      const gpu::Stream stream(world.rank());
      const gpu::CurrentStream current(stream);
      AllReduce all(world, "mean", count, Dtype::float32, by_nccl(world));
      for (int round = 0; round < 20; ++round) expect_ok(all.mean());
      EXPECT_EQ(asked("fake_nccl_made"), 1);
      EXPECT_EQ(asked("fake_nccl_averages"), 18);
      EXPECT_EQ(asked("fake_nccl_alive"), 1);
      world.bootstrap().fence(60s);  // members close it together
    }
    EXPECT_EQ(asked("fake_nccl_alive"), 0);
    EXPECT_EQ(asked("fake_nccl_aborted"), 0);
  });
}

TEST_F(Nccl, AGroupThatHasBeenAwayIsForgottenAndItsCommunicatorClosed) {
  run(2, [](World& world) {
    const gpu::Stream stream(world.rank());
    const gpu::CurrentStream current(stream);
    PartialAllReduce partial(world, "mean", 1000, Dtype::float32, by_nccl(world));
    const std::vector<int> both{0, 1}, self{world.rank()};
    std::uint64_t sequence = 0;
    const auto average = [&] { expect_ok(partial.mean({++sequence, both})); };
    for (int time = 0; time < 4; ++time) average();
    EXPECT_EQ(asked("fake_nccl_averages"), 2);

    world.bootstrap().fence(60s);  // members close it together
    sequence += 31;                // 32 numbers on, at the next one: too late by one
    EXPECT_NE(partial.algorithm({sequence + 1, both}), Algorithm::nccl);
    EXPECT_EQ(partial.algorithm({sequence, both}), Algorithm::nccl);
    for (int time = 0; time < 4; ++time) average();
    EXPECT_EQ(asked("fake_nccl_averages"), 4);
    EXPECT_EQ(asked("fake_nccl_made"), 2);
    const auto closed = [] { return asked("fake_nccl_alive") == 1; };
    expect_ok(world.wait_until(closed, world.deadline(), "the first communicator to close"));

    world.bootstrap().fence(60s);
    sequence += 100;  // others are what shows that it is away
    expect_ok(partial.mean({++sequence, self}));
    const auto all_closed = [] { return asked("fake_nccl_alive") == 0; };
    expect_ok(world.wait_until(all_closed, world.deadline(), "the second communicator to close"));
    EXPECT_EQ(asked("fake_nccl_aborted"), 0);
  });
}

// ---- Trainers.

/// The parameters that a run comes to.
template <class P>
std::vector<float> trained(World& world, const P& protocol) {
  const gpu::Stream stream(world.rank());
  const gpu::CurrentStream current(stream);
  const auto memory = gpu::allocate(world.rank(), count * sizeof(float));
  const VectorView x{memory.get(), count, Dtype::float32, world.rank()};
  TrainerOptions options;
  options.iterations = 8;
  options.learning_rate = 0.5;
  options.stream = stream.handle();
  Trainer trainer(world, {{x.data, x.count, x.dtype, x.device}},
                  std::make_unique<ProtocolConfigOf<P>>(protocol), options);
  while (trainer.running()) {
    std::vector<float> gradient = download<float>(trainer.parameters(), stream);
    for (std::size_t i = 0; i < count; ++i) {  // towards a target of each worker's own
      gradient[i] -= static_cast<float>((i + static_cast<std::size_t>(world.rank()) * 7) % 11) / 11;
    }
    upload(trainer.gradient(), gradient, stream);
    expect_ok(trainer.step(trainer.gradient()));
  }
  return download<float>(trainer.parameters(), stream);
}

TEST_F(Nccl, AllReduceAndPragueTrainToTheSameModel) {
  run(3, [](World& world) {
    const auto ours = trained(world, AllReduceSgd{});
    expect_near(trained(world, AllReduceSgd{.algorithm = Algorithm::nccl}), ours);
    EXPECT_EQ(asked("fake_nccl_averages"), 6);
    const auto prague = [](Algorithm algorithm) {
      return Prague{.generator = Prague::Generator::division,
                    .group_size = 3,
                    .service = false,
                    .algorithm = algorithm};
    };
    const auto with_ours = trained(world, prague(Algorithm::automatic));
    expect_near(trained(world, prague(Algorithm::nccl)), with_ours);
    EXPECT_EQ(asked("fake_nccl_averages"), 12);
  });
}

// ---- What is refused, by all workers alike.

std::string refusal(World& world, Code code, PartialAllReduceOptions options) {
  try {
    const PartialAllReduce partial(world, "mean", count, Dtype::float32, options);
    ADD_FAILURE() << "nothing was refused";
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
}

TEST_F(Nccl, MemoryOfTheHostIsRefused) {
  run(1, [](World& world) {
    PartialAllReduceOptions options = by_nccl(world);
    options.device = gpu::host;
    EXPECT_EQ(refusal(world, Code::invalid_argument, options),
              "algorithm is nccl, which averages in memory of GPUs; choose another, or automatic");
    options.device = 0;
    options.in_background = true;
    EXPECT_THAT(refusal(world, Code::invalid_argument, options),
                HasSubstr("in memory of GPUs and not in the background"));
  });
}

TEST_F(Nccl, WhoCannotUseItIsNamedAtAllWorkers) {
  for (const auto& [setting, why] :
       {std::pair<Settings, const char*>{
            {{"SLIP_NCCL_LIBRARY", "/nowhere/libnccl.so.2"}},
            "'mean': rank 1 cannot use NCCL: /nowhere/libnccl.so.2 cannot be loaded"},
        {{{"FAKE_NCCL_VERSION", "21602"}}, "is too old: NCCL 2.16.2; install NCCL 2.18.0 or newer"},
        {{{"SLIP_NCCL_LIBRARY", SLIP_FAKE_CUDA}}, "has no ncclAllReduce; install NCCL"}}) {
    run(2, [&](World& world) {
      if (world.rank() == 1) set(setting);
      EXPECT_THAT(refusal(world, Code::not_supported, by_nccl(world)),
                  AllOf(HasSubstr(why), HasSubstr("choose another algorithm, or automatic")));
    });
  }
}

TEST_F(Nccl, VersionsThatDifferAreNamed) {
  run(2, [](World& world) {
    if (world.rank() == 1) set({{"FAKE_NCCL_VERSION", "22703"}});
    EXPECT_THAT(refusal(world, Code::peer_mismatch, by_nccl(world)),
                HasSubstr("'mean': rank 1 has NCCL 2.27.3 and rank 0 has 2.28.9"));
  });
}

TEST_F(Nccl, WorkersThatShareAGpuAreNamed) {
  run(3, [](World& world) {
    PartialAllReduceOptions options = by_nccl(world);
    if (world.rank() == 2) options.device = 0;
    EXPECT_THAT(refusal(world, Code::not_supported, options),
                HasSubstr("ranks 0 and 2 share GPU-01000000-0000-0000-0000-000000000000, which "
                          "NCCL does not do; give each a GPU of its own"));
  });
}

/// Were it not seen before, as where two hosts' GPUs gave the same UUID.
TEST_F(Nccl, WhatItRefusesItselfIsSaid) {
  run(2, [](World& world) {
    const std::string name = "id";
    if (world.rank() == 0) {
      const gpu::NcclId id = gpu::make_nccl_id();
      world.bootstrap().put(name, {reinterpret_cast<const char*>(id.data()), id.size()});
    }
    const std::string given = world.bootstrap().get(name, 60s);
    gpu::NcclId id;
    std::memcpy(id.data(), given.data(), id.size());
    gpu::NcclCommunicator communicator(0, id, 2, world.rank(), 1s, [&] { world.wake(); });
    expect_ok(world.wait_until([&] { return communicator.settled(); }, world.deadline(), "NCCL"));
    EXPECT_THAT(communicator.status().message(), HasSubstr("NCCL: connecting: invalid usage"));
    world.bootstrap().fence(60s);  // whose id it is stays
  });
}

// ---- What fails on the way: everybody hears of it, and nothing hangs.

/// All-reduces of this worker, until one fails.
struct Ended {
  Status status;
  int done = 0;
  bool kept = false;  // the vector, as it was before
};
/// It does not wait long for what `hangs` from the third on.
Ended average_until_failure(World& world, std::string_view hangs = {}) {
  const gpu::Stream stream(world.rank());
  const gpu::CurrentStream current(stream);
  Ended ended;
  PartialAllReduceOptions options = by_nccl(world);
  options.wait = [&](FunctionRef<bool()> over, std::string_view what) {
    const bool hopeless = ended.done == 2 && what == hangs;
    return world.wait_until(over, hopeless ? world.now() + 2s : world.deadline(), what);
  };
  AllReduce all(world, "mean", count, Dtype::float32, options);
  const auto memory = gpu::allocate(world.rank(), count * sizeof(float));
  const VectorView vector{memory.get(), count, Dtype::float32, world.rank()};
  for (; ended.done < 10; ++ended.done) {
    std::vector<float> values(count);
    fill<float>(values, world.rank(), static_cast<std::uint64_t>(ended.done));
    upload(vector, values, stream);
    ended.status = all.mean(vector);
    if (ended.status) continue;
    EXPECT_EQ(all.mean(vector).message(), ended.status.message()) << "it is for good";
    if (!world.aborted()) ended.kept = download<float>(vector, stream) == values;
    break;
  }
  return ended;
}

TEST_F(Nccl, AnErrorOfOneMemberIsToldToAll) {
  run(3, [](World& world) {
    if (world.rank() == 1) set({{"FAKE_NCCL_FAIL_AT", "2"}});
    const Ended ended = average_until_failure(world);
    // Who has not yet seen that the one before is done may hear of it there.
    EXPECT_THAT(ended.done, ::testing::AnyOf(world.rank() == 1 ? 3 : 2, 3));
    EXPECT_TRUE(ended.kept);
    EXPECT_EQ(ended.status.code(), Code::group_broken);
    EXPECT_THAT(ended.status.message(),
                HasSubstr(world.rank() == 1
                              ? "rank 1: 'mean': NCCL: averaging: remote process exited or there "
                                "was a network error: said by fake_nccl; NCCL_DEBUG=WARN"
                              : " gave up: "));
    EXPECT_EQ(ended.status.peer(), world.rank() == 1 ? -1 : 1);
    EXPECT_EQ(asked("fake_nccl_alive"), 0);
  });
}

/// Rank 1's NCCL hangs, and who waits for it says for what.
class NcclHangs : public Nccl {
 protected:
  static void expect_given_up(const char* hangs, const std::string& what) {
    run(3, [&](World& world) {
      if (world.rank() == 1) set({{hangs, "1"}});
      const Ended ended = average_until_failure(world, what);
      EXPECT_EQ(ended.done, 2);
      EXPECT_TRUE(ended.kept);
      EXPECT_THAT(ended.status.message(),
                  ::testing::AnyOf(HasSubstr("for " + what + " 'mean'"), HasSubstr(" gave up: ")));
      EXPECT_EQ(asked("fake_nccl_alive"), 0);
    });
  }
};

TEST_F(NcclHangs, ACollectiveThatNeverEndsIsGivenUpAtTheDeadline) {
  expect_given_up("FAKE_NCCL_HANG_AT", "an all-reduce by NCCL");
}

TEST_F(NcclHangs, MembersThatNeverConnectAreGivenUpAtTheDeadline) {
  expect_given_up("FAKE_NCCL_INIT_HANGS", "members to connect by NCCL");
}

TEST_F(Nccl, AnAbortThatDoesNotReturnIsLeftToItself) {
  run(2, [](World& world) {
    set({{"FAKE_NCCL_HANG_AT", "1"}, {"FAKE_NCCL_ABORT_HANGS", "1"}});
    EXPECT_EQ(average_until_failure(world, "an all-reduce by NCCL").done, 2);
    EXPECT_EQ(asked("fake_nccl_alive"), 1);
  });
}

TEST_F(Nccl, AMemberThatDiesEndsTheOthers) {
  for (const int at : {2, 4}) {  // it has not connected, or has averaged
    const auto ends = run_processes(
        3,
        [at](World& world) {
          if (world.rank() == 1) {
            const gpu::Stream stream(world.rank());
            const gpu::CurrentStream current(stream);
            AllReduce all(world, "mean", count, Dtype::float32, by_nccl(world));
            for (int i = 0; i < at; ++i) expect_ok(all.mean());
            raise(SIGKILL);
          }
          const Ended ended = average_until_failure(world);
          EXPECT_THAT(ended.done, ::testing::AnyOf(at - 1, at)) << "who has its mean may be first";
          EXPECT_EQ(ended.status.code(), Code::peer_lost) << ended.status.message();
          EXPECT_EQ(ended.status.peer(), 1);
          EXPECT_EQ(asked("fake_nccl_alive"), 0);
        },
        options());
    EXPECT_THAT(ends, ::testing::ElementsAre(0, SIGKILL, 0));
  }
}

// ---- The real library, as far as it does without a GPU.

TEST(NcclLibrary, TheInstalledOneIsLoaded) {
  if (dlopen("libnccl.so.2", RTLD_LAZY) == nullptr) GTEST_SKIP() << dlerror();
  unsetenv("SLIP_NCCL_LIBRARY");
  EXPECT_TRUE(gpu::nccl_usable().ok()) << gpu::nccl_usable().message();
  EXPECT_THAT(gpu::nccl_version(), ::testing::MatchesRegex("2\\.[0-9]+\\.[0-9]+"));
}

}  // namespace
}  // namespace slip::testing
