// Real processes train with parameters in the memory of a GPU, and come to the same bits as on the
// host.

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <chrono>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "conformance.h"
#include "slipstream/gpu/memory.h"
#include "slipstream/gpu/stream.h"
#include "slipstream/kernels/kernels.h"
#include "slipstream/trainer/tasks/task.h"
#include "slipstream/trainer/trainer.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using ::testing::Each;
using ::testing::HasSubstr;

constexpr int workers = 3;

using MakeProtocol = std::unique_ptr<ProtocolConfig> (*)();
template <class P>
std::unique_ptr<ProtocolConfig> config_of(P protocol) {
  return std::make_unique<ProtocolConfigOf<P>>(protocol);
}

/// Many parameters, each of which is drawn to a number of this worker's.
class Wide final : public Task {
 public:
  explicit Wide(int rank) : rank_(static_cast<unsigned>(rank)) {}
  std::size_t parameter_count() const override { return 300'007; }
  void initialise(VectorView x) override { std::memset(x.data, 0, x.bytes()); }
  double gradient(ConstVectorView x, Iteration, VectorView gradient) override {
    for (std::size_t i = 0; i < x.count; ++i) {
      gradient.as<float>()[i] = x.as<float>()[i] - static_cast<float>((i % 17) * (rank_ + 1)) / 3;
    }
    return 0;
  }
  Evaluation evaluate(ConstVectorView) override { return {}; }
  double default_learning_rate() const override { return 0.1; }

 private:
  unsigned rank_;
};

struct Scenario {
  std::string name;
  std::string task;
  MakeProtocol protocol;
  bool own_optimizer = false;
};

std::ostream& operator<<(std::ostream& out, const Scenario& scenario) {
  return out << scenario.name;
}

/// What each worker came to.
using Results = std::array<std::uint64_t, workers>;

/// Results in memory that is shared with processes that are forked from here.
class SharedResults {
 public:
  SharedResults()
      : memory_(mmap(nullptr, sizeof(Results), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                     -1, 0)) {
    if (memory_ == MAP_FAILED) throw_errno("mmap");
  }
  ~SharedResults() { munmap(memory_, sizeof(Results)); }
  SharedResults(const SharedResults&) = delete;
  SharedResults& operator=(const SharedResults&) = delete;
  Results& operator*() const { return *static_cast<Results*>(memory_); }

 private:
  void* memory_;
};

/// One vector of the host's or of a GPU's memory, for the user's side of a training.
class UserVector {
 public:
  UserVector(std::size_t count, Dtype dtype, int device)
      : on_host_(count * size_of(dtype)),
        on_gpu_(device == gpu::host ? nullptr : gpu::allocate(device, on_host_.size())),
        view_{on_gpu_ ? static_cast<void*>(on_gpu_.get()) : on_host_.data(), count, dtype, device} {
  }

  VectorView view() const { return view_; }
  VectorView host() { return {on_host_.data(), view_.count, view_.dtype}; }

 private:
  std::vector<std::byte> on_host_;
  std::shared_ptr<std::byte> on_gpu_;
  VectorView view_;
};

/// to = from, with a wait for the GPU.
void fetch(VectorView to, ConstVectorView from) {
  kernels::copy(to, from);
  if (from.on_gpu()) gpu::current_stream(from.device).synchronize().throw_if_failed();
}

std::unique_ptr<Task> task_of(const Scenario& scenario, const World& world) {
  if (scenario.task == "wide") return std::make_unique<Wide>(world.rank());
  TaskOptions options;
  options.task = scenario.task;
  options.model = scenario.task == "digits" ? "softmax" : "";
  options.rank = world.rank();
  options.workers = world.size();
  return make_task(options);
}

/// Trains, and hashes all parameters of all iterations, the checkpoint and the mean.
std::uint64_t train(World& world, const Scenario& scenario, int device) {
  std::optional<gpu::Stream> stream;
  std::optional<gpu::CurrentStream> bound;
  if (device != gpu::host) {
    stream.emplace(device);
    bound.emplace(*stream);
  }
  const auto task = task_of(scenario, world);
  const auto held_out = task_of(scenario, world);  // another thread evaluates
  UserVector x(task->parameter_count(), task->dtype(), device);
  UserVector gradient(task->parameter_count(), task->dtype(), device);
  task->initialise(x.host());
  kernels::copy(x.view(), x.host());

  TrainerOptions options;
  options.momentum = 0.9;
  options.weight_decay = 1e-3;
  options.iterations = 30;
  options.record_parameters = true;
  options.evaluate_every = 10;
  options.evaluate = [&](ConstVectorView model) { return held_out->evaluate(model); };
  options.stream = stream ? stream->handle() : nullptr;
  const VectorView v = x.view();
  Trainer trainer(world, {{v.data, v.count, v.dtype, device}}, scenario.protocol(), options);
  while (trainer.running()) {
    fetch(x.host(), trainer.parameters());
    task->gradient(x.host(), trainer.iteration(), gradient.host());
    const VectorView there = scenario.own_optimizer ? gradient.view() : trainer.gradient();
    kernels::copy(there, gradient.host());
    const Status status =
        scenario.own_optimizer
            ? trainer.step([&](VectorView own) { kernels::axpy(own, -0.05, there); })
            : trainer.step(there);
    status.throw_if_failed();
  }
  std::uint64_t hash = kernels::checksum(trainer.checkpoint().parameters);
  for (const Checkpoint::Vector& velocity : trainer.checkpoint().velocities) {
    hash ^= kernels::checksum(velocity);
  }
  for (const auto& parameters : trainer.recorded_parameters()) {
    hash = hash * 31 + kernels::checksum(std::as_bytes(std::span(parameters)));
  }
  trainer.average();
  fetch(x.host(), x.view());
  if (world.rank() == 0) {
    EXPECT_EQ(trainer.curve().size(), 4u);
  }
  return hash * 31 + kernels::checksum(std::as_bytes(std::span(
                         static_cast<const std::byte*>(x.host().data), x.host().bytes())));
}

class GpuTraining : public ::testing::TestWithParam<Scenario> {};

TEST_P(GpuTraining, ComesToTheSameBitsAsOnTheHost) {
  const testing::Backend gpus = testing::gpu_backends()[1];
  if (!gpus.missing.empty()) GTEST_SKIP() << gpus.missing;
  if (GetParam().task == "digits" && !SLIP_HAVE_TORCH) GTEST_SKIP() << "built without LibTorch";
  const SharedResults on_host, on_gpu;
  testing::RunOptions host;
  host.world.transport = "shm";
  EXPECT_THAT(testing::run_processes(
                  workers,
                  [&](World& world) {
                    (*on_host)[static_cast<std::size_t>(world.rank())] =
                        train(world, GetParam(), gpu::host);
                  },
                  host),
              Each(0));
  EXPECT_THAT(testing::run_processes(
                  workers,
                  [&](World& world) {
                    (*on_gpu)[static_cast<std::size_t>(world.rank())] = train(world, GetParam(), 0);
                  },
                  gpus.defaults),
              Each(0));
  EXPECT_EQ(*on_gpu, *on_host);
  EXPECT_THAT(*on_gpu, Each(::testing::Ne(0u)));
}

MakeProtocol hop = [] { return config_of(Hop{.max_gap = 2}); };
MakeProtocol serial_hop = [] { return config_of(Hop{.max_gap = 3, .order = Hop::Order::serial}); };
MakeProtocol all_reduce = [] { return config_of(AllReduceSgd{}); };
MakeProtocol prague = [] {
  return config_of(Prague{.generator = Prague::Generator::division, .service = false});
};

INSTANTIATE_TEST_SUITE_P(
    All, GpuTraining,
    ::testing::Values(Scenario{"hop_digits", "digits", hop}, Scenario{"hop_wide", "wide", hop},
                      Scenario{"hop_own_optimizer", "quadratic:dim=37", hop, true},
                      Scenario{"serial_hop", "quadratic:dim=101", serial_hop},
                      Scenario{"all_reduce_wide", "wide", all_reduce},
                      Scenario{"all_reduce_one_shot", "quadratic:dim=11", all_reduce},
                      Scenario{"all_reduce_own_optimizer", "wide", all_reduce, true},
                      Scenario{"prague_digits", "digits", prague},
                      Scenario{"prague_wide", "wide", prague}),
    [](const auto& info) { return info.param.name; });

// ---- What is refused, and GPUs that fail; of the fake GPU alone.

class GpuTrainingErrors : public ::testing::Test {
 protected:
  void SetUp() override {
    if (std::getenv("SLIP_TEST_GPU") != nullptr) GTEST_SKIP() << "for the fake GPU alone";
  }

  static void run(int count, const testing::Work& work,
                  const std::vector<std::pair<std::string, std::string>>& settings = {}) {
    testing::RunOptions options = testing::gpu_backends()[1].defaults;
    for (const auto& setting : settings) options.environment.push_back(setting);
    EXPECT_THAT(testing::run_processes(count, work, options), Each(0));
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

TEST_F(GpuTrainingErrors, ProtocolsOfTheHostNameThoseForGpus) {
  run(1, [](World& world) {
    EXPECT_EQ(
        refusal(world, Code::not_supported, {nullptr, 1, Dtype::float32, 0}, config_of(DivShare{})),
        "div_share works on parameters in memory of the host only; on GPUs there are "
        "all_reduce, d_psgd, hop, prague");
  });
}

TEST_F(GpuTrainingErrors, ALostGpuEndsTheRunEverywhere) {
  run(workers, [](World& world) {
    Trainer trainer(world, {{nullptr, 1000, Dtype::float32, 0}}, hop());
    Status status;
    while (status && trainer.running()) {
      if (world.rank() == 1 && trainer.iteration() == 10) {
        void* driver = dlopen(SLIP_FAKE_CUDA, RTLD_NOW | RTLD_NOLOAD);
        reinterpret_cast<void (*)()>(dlsym(driver, "fake_cuda_lose_gpus"))();
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

}  // namespace
}  // namespace slip
