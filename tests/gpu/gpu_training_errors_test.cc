// What a trainer refuses of a GPU, and what becomes of a run whose GPU fails; of the fake GPU
// alone.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "conformance.h"
#include "driver.h"
#include "slipstream/base/word.h"
#include "slipstream/gpu/memory.h"
#include "slipstream/gpu/stream.h"
#include "slipstream/trainer/trainer.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using ::testing::Each;
using ::testing::HasSubstr;

constexpr int workers = 3;

template <class P>
std::unique_ptr<ProtocolConfig> config_of(P protocol) {
  return std::make_unique<ProtocolConfigOf<P>>(protocol);
}

std::unique_ptr<ProtocolConfig> hop() { return config_of(Hop{.max_gap = 2}); }

class GpuTrainingErrors : public ::testing::Test {
 protected:
  void SetUp() override {
    if (std::getenv("SLIP_TEST_GPU") != nullptr) GTEST_SKIP() << "for the fake GPU alone";
  }

  /// For tests in which workers send what is in memory of their GPUs.
  static std::string missing() { return testing::gpu_backends().front().missing; }

  static void run(int count, const testing::Work& work,
                  const std::vector<std::pair<std::string, std::string>>& settings = {},
                  Duration wait_timeout = 60s) {
    testing::RunOptions options = testing::gpu_backends()[1].defaults;
    options.world.wait_timeout = wait_timeout;
    for (const auto& setting : settings) options.environment.push_back(setting);
    EXPECT_THAT(testing::run_processes(count, work, options), Each(0));
  }

  /// What is enqueued on this thread's stream from now on never begins.
  static void block_stream(const World& world) {
    const Region never = world.allocate("never", 128, Bell::worker, 0);
    world.wait_on_stream(never, 64, make_word(world.incarnation(), 1)).throw_if_failed();
  }

  /// What a trainer with one parameter says as it is made.
  static std::string refusal(World& world, Code code, Parameter parameter,
                             std::unique_ptr<ProtocolConfig> protocol = hop()) {
    try {
      const Trainer trainer(world, {parameter}, std::move(protocol));
      ADD_FAILURE() << "nothing was refused";
      return "";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      return error.what();
    }
  }

  static void expect_no_checkpoint(const Trainer& trainer, Code code, const std::string& says) {
    try {
      (void)trainer.checkpoint();
      ADD_FAILURE() << "there is one";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code);
      EXPECT_THAT(error.what(), HasSubstr(says));
    }
  }
};

TEST_F(GpuTrainingErrors, AddressesInAnotherMemoryAreNamed) {
  run(1, [](World& world) {
    float local = 0;
    EXPECT_EQ(refusal(world, Code::invalid_argument, {&local, 1, Dtype::float32, 0}),
              "parameter 0 is said to be in memory of GPU 0, and is in memory of the host; "
              "give its address there");
    Trainer trainer(world, {{nullptr, 1, Dtype::float32, 0}}, hop());
    ASSERT_TRUE(trainer.running());
    EXPECT_THAT(trainer.step(view(std::span(&local, 1))).message(),
                HasSubstr("a gradient in memory of the host for parameters in memory of GPU"));
    EXPECT_THAT(trainer.step({&local, 1, Dtype::float32, 0}).message(),
                HasSubstr("the gradient is said to be in memory of GPU 0"));
    EXPECT_TRUE(trainer.step(trainer.gradient()).ok()) << "nothing is damaged";
  });
}

TEST_F(GpuTrainingErrors, AddressesOnAGpuThatAreSaidToBeTheHostsAreNamed) {
  run(1, [](World& world) {
    const auto memory = gpu::allocate(0, sizeof(float));
    EXPECT_EQ(refusal(world, Code::invalid_argument, {memory.get(), 1, Dtype::float32}),
              "parameter 0 is said to be in memory of the host, and is in memory of GPU 0; "
              "give its address there");
    Trainer trainer(world, {{nullptr, 1, Dtype::float32}}, hop());
    ASSERT_TRUE(trainer.running());
    EXPECT_THAT(trainer.step({memory.get(), 1, Dtype::float32}).message(),
                HasSubstr("the gradient is said to be in memory of the host, and is in memory of "
                          "GPU 0"));
    EXPECT_TRUE(trainer.step(trainer.gradient()).ok()) << "nothing is damaged";
  });
}

TEST_F(GpuTrainingErrors, AGpuThatIsNotThereIsNamed) {
  run(1, [](World& world) {
    EXPECT_THAT(refusal(world, Code::invalid_argument, {nullptr, 1, Dtype::float32, 1}),
                HasSubstr("GPU 1 is not here: this process sees 1"));
  });
}

TEST_F(GpuTrainingErrors, AModelThatDoesNotFitSaysHowMuchIsFree) {
  run(1,
      [](World& world) {
        EXPECT_THAT(refusal(world, Code::out_of_memory, {nullptr, 10'000'000, Dtype::float32, 0}),
                    HasSubstr("out of memory"));
      },
      {{"FAKE_CUDA_MEMORY", "1000000"}});
}

TEST_F(GpuTrainingErrors, PeersOfAWorkerWhoseGpuIsFullAreTold) {
  run(workers,
      [](World& world) {
        std::shared_ptr<std::byte> others;
        if (world.rank() == 1) others = gpu::allocate(0, 45'000'000);
        try {
          Trainer trainer(world, {{nullptr, 1'000'000, Dtype::float32, 0}}, hop());
          while (trainer.running()) trainer.step(trainer.gradient()).throw_if_failed();
          trainer.status().throw_if_failed();
          ADD_FAILURE() << "nothing was refused";
        } catch (const Error& error) {
          if (world.rank() != 1) {
            EXPECT_THAT(error.what(), HasSubstr("rank 1"));
            return;
          }
          EXPECT_EQ(error.code(), Code::out_of_memory);
          EXPECT_THAT(error.what(), HasSubstr("out of memory"));
          world.fail(error.status());
        }
      },
      {{"FAKE_CUDA_MEMORY", "50000000"}});
}

/// A user's own.
struct Hosts : Hop {
  static constexpr std::string_view name = "hosts";
  bool runs_on_gpu() const { return false; }
};

TEST_F(GpuTrainingErrors, ProtocolsOfTheHostNameThoseForGpus) {
  run(1, [](World& world) {
    EXPECT_THAT(
        refusal(world, Code::not_supported, {nullptr, 1, Dtype::float32, 0}, config_of(Hosts{})),
        ::testing::StartsWith("hosts works on parameters in memory of the host only; on GPUs there "
                              "are all_reduce, "));
  });
}

TEST_F(GpuTrainingErrors, ALostGpuEndsTheRunEverywhere) {
  if (!missing().empty()) GTEST_SKIP() << missing();
  run(workers, [](World& world) {
    Trainer trainer(world, {{nullptr, 1000, Dtype::float32, 0}}, hop());
    Status status;
    while (status && trainer.running()) {
      if (world.rank() == 1 && trainer.iteration() == 10) {
        lose_gpus();
      }
      status = trainer.step(trainer.gradient());
    }
    EXPECT_FALSE(trainer.status().ok());
    if (world.rank() == 1) {
      EXPECT_THAT(trainer.status().message(), HasSubstr("GPU 0 is lost"));
    } else {
      EXPECT_THAT(trainer.status().message(), HasSubstr("rank 1"));
    }
  });
}

TEST_F(GpuTrainingErrors, AStreamThatStandsStillEndsTheRunEverywhere) {
  if (!missing().empty()) GTEST_SKIP() << missing();
  const auto work = [](World& world) {
    const gpu::Stream stream(0);
    const gpu::CurrentStream bound(stream);
    TrainerOptions options;
    options.graph = "complete";
    options.iterations = max_iteration;
    options.stream = stream.handle();
    Trainer trainer(world, {{nullptr, 1000, Dtype::float32, 0}}, config_of(Swift{}), options);
    while (trainer.running()) {
      if (world.rank() == 1 && trainer.iteration() == 10) block_stream(world);
      (void)trainer.step(trainer.gradient());
    }
    if (world.rank() == 1) {
      EXPECT_EQ(trainer.status().code(), Code::timeout);
      EXPECT_THAT(trainer.status().message(), HasSubstr("for the GPU to end the iteration before"));
    } else {
      EXPECT_THAT(trainer.status().message(), HasSubstr("rank 1"));
    }
  };
  run(workers, work, {}, 10s);
}

TEST_F(GpuTrainingErrors, ACheckpointWaitsNoLongerThanTheWorld) {
  const auto work = [](World& world) {
    const gpu::Stream stream(0);
    const gpu::CurrentStream bound(stream);
    TrainerOptions options;
    options.stream = stream.handle();
    const Trainer trainer(world, {{nullptr, 1000, Dtype::float32, 0}}, hop(), options);
    block_stream(world);
    expect_no_checkpoint(trainer, Code::timeout, "for the GPU to do what is enqueued");
    EXPECT_FALSE(trainer.checkpoint().parameters.empty()) << "the world has failed";
  };
  run(1, work, {}, 5s);
}

TEST_F(GpuTrainingErrors, ACheckpointIsNotWrittenWhereItsCopyHasFailed) {
  run(1, [](World& world) {
    const Trainer trainer(world, {{nullptr, 1000, Dtype::float32, 0}}, hop());
    fail_calls("cuMemcpyAsync");
    expect_no_checkpoint(trainer, Code::io, "GPU 0: copying: operation not permitted");
  });
}

}  // namespace
}  // namespace slip
