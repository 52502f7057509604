// Real processes train with parameters in the memory of a GPU, and come to the same bits as on the
// host.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "conformance.h"
#include "driver.h"
#include "slipstream/gpu/memory.h"
#include "slipstream/gpu/stream.h"
#include "slipstream/kernels/kernels.h"
#include "slipstream/runtime/update_queue.h"
#include "slipstream/trainer/tasks/task.h"
#include "slipstream/trainer/trainer.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using ::testing::Each;

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

/// By CUDA IPC, by way of the host and, where there are any, over networks: staged, and by a device
/// that reads and writes memory of GPUs.
std::vector<testing::Backend> gpu_backends() {
  std::vector<testing::Backend> all = testing::gpu_backends();
  std::erase_if(all, [](const testing::Backend& one) {
    return one.name != "cuda_ipc" && one.name != "auto_gpu_by_host" && one.name != "ucx_tcp_gpu" &&
           one.name != "verbs_gpu";
  });
  return all;
}

class GpuTraining : public ::testing::TestWithParam<Scenario> {};

TEST_P(GpuTraining, ComesToTheSameBitsAsOnTheHost) {
  const std::vector<testing::Backend> backends = gpu_backends();
  if (!backends[0].missing.empty()) GTEST_SKIP() << backends[0].missing;
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
  for (const testing::Backend& gpus : backends) {
    SCOPED_TRACE(gpus.name);
    EXPECT_THAT(testing::run_processes(
                    workers,
                    [&](World& world) {
                      (*on_gpu)[static_cast<std::size_t>(world.rank())] =
                          train(world, GetParam(), 0);
                    },
                    gpus.defaults),
                Each(0));
    EXPECT_EQ(*on_gpu, *on_host);
    EXPECT_THAT(*on_gpu, Each(::testing::Ne(0u)));
  }
}

// On the trainer's stream the gradient's kernels would wait for all that is sent.
TEST(GpuOverlap, HopSendsOnAStreamOfItsOwn) {
  if (std::getenv("SLIP_TEST_GPU") != nullptr) GTEST_SKIP() << "for the fake GPU alone";
  const testing::Backend gpus = gpu_backends()[0];
  if (!gpus.missing.empty()) GTEST_SKIP() << gpus.missing;
  const auto work = [](World& world) {
    const auto enqueued_to_begin = [&world](std::size_t count) {
      const gpu::Stream stream(0);
      TrainerOptions options;
      options.iterations = 2;
      options.stream = stream.handle();
      Trainer trainer(world, {{nullptr, count, Dtype::float32, 0}}, config_of(Hop{}), options);
      const std::size_t before = enqueued_on(stream);
      EXPECT_TRUE(trainer.running());
      const std::size_t begun = enqueued_on(stream);
      for (; trainer.running(); trainer.step(trainer.gradient()).throw_if_failed()) {
      }
      return begun - before;
    };
    constexpr std::size_t chunks = 4;
    EXPECT_EQ(enqueued_to_begin(chunks * UpdateQueueOptions().chunk_bytes / sizeof(float)),
              enqueued_to_begin(1));
  };
  EXPECT_THAT(testing::run_processes(2, work, gpus.defaults), Each(0));
}

MakeProtocol hop = [] { return config_of(Hop{.max_gap = 2}); };
MakeProtocol serial_hop = [] { return config_of(Hop{.max_gap = 3, .order = Hop::Order::serial}); };
MakeProtocol all_reduce = [] { return config_of(AllReduceSgd{}); };
MakeProtocol prague = [] {
  return config_of(Prague{.generator = Prague::Generator::division, .service = false});
};

MakeProtocol prague_parallel = [] {
  return config_of(
      Prague{.generator = Prague::Generator::static_, .order = Prague::Order::parallel});
};
MakeProtocol relay_sgd = [] { return config_of(RelaySgd{}); };
MakeProtocol relay_updates = [] {
  return config_of(RelaySgd{.normalise = RelaySgd::Normalise::latest,
                            .schedule = RelaySgd::Schedule::overlap,
                            .relay = RelaySgd::Payload::updates});
};
MakeProtocol sgp = [] { return config_of(Sgp{}); };
MakeProtocol d2 = [] { return config_of(D2{}); };
MakeProtocol update_tracking = [] { return config_of(GradientTracking{}); };
MakeProtocol momentum_tracking = [] {
  return config_of(GradientTracking{.track = GradientTracking::Track::momentum});
};
MakeProtocol quasi_global = [] { return config_of(QuasiGlobal{}); };
MakeProtocol dybw_full = [] { return config_of(Dybw{.threshold = Dybw::Threshold::full}); };
MakeProtocol parameter_server = [] { return config_of(ParameterServer{}); };

INSTANTIATE_TEST_SUITE_P(
    All, GpuTraining,
    ::testing::Values(
        Scenario{"hop_digits", "digits", hop}, Scenario{"hop_wide", "wide", hop},
        Scenario{"hop_own_optimizer", "quadratic:dim=37", hop, true},
        Scenario{"serial_hop", "quadratic:dim=101", serial_hop},
        Scenario{"all_reduce_wide", "wide", all_reduce},
        Scenario{"all_reduce_one_shot", "quadratic:dim=11", all_reduce},
        Scenario{"all_reduce_own_optimizer", "wide", all_reduce, true},
        Scenario{"prague_digits", "digits", prague}, Scenario{"prague_wide", "wide", prague},
        Scenario{"prague_parallel", "wide", prague_parallel},
        Scenario{"relay_sgd", "wide", relay_sgd},
        Scenario{"relay_updates", "quadratic:dim=101", relay_updates}, Scenario{"sgp", "wide", sgp},
        Scenario{"d2", "quadratic:dim=101", d2},
        Scenario{"update_tracking", "quadratic:dim=101", update_tracking},
        Scenario{"momentum_tracking", "quadratic:dim=101", momentum_tracking},
        Scenario{"momentum_tracking_own_optimizer", "quadratic:dim=101", momentum_tracking, true},
        Scenario{"quasi_global", "quadratic:dim=101", quasi_global},
        Scenario{"dybw_full", "quadratic:dim=101", dybw_full},
        Scenario{"parameter_server", "wide", parameter_server},
        Scenario{"parameter_server_own_optimizer", "quadratic:dim=101", parameter_server, true}),
    [](const auto& info) { return info.param.name; });

// ---- Protocols that take what has come by then: no two runs are the same.

/// Elements of the vector, in parts whose messages are whole.
using Parts = std::vector<std::vector<std::size_t>>;

struct WaitFree {
  std::string name;
  MakeProtocol protocol;
  Parts (*parts)(std::size_t count) = [](std::size_t count) {
    Parts whole(1);
    for (std::size_t i = 0; i < count; ++i) whole[0].push_back(i);
    return whole;
  };
  bool own_optimizer = false;
  bool counts_updates = true;
  bool draws_near = true;  // false: some may go on alone when their one neighbour is done
  bool waits = false;      // for others, or skips iterations
};

std::ostream& operator<<(std::ostream& out, const WaitFree& scenario) {
  return out << scenario.name;
}

template <FragmentMap::Order order>
Parts fragments_of(std::size_t count) {
  const FragmentMap map(std::span(&count, 1), 10, order, TrainerOptions{}.seed);
  std::vector<double> x(count), gathered(count);
  std::iota(x.begin(), x.end(), 0.0);
  map.gather(view(std::span(gathered)), view(std::span(x)));
  Parts parts(map.fragments());
  for (std::size_t f = 0; f < parts.size(); ++f) {
    for (std::size_t i = 0; i < map.count(f); ++i) {
      parts[f].push_back(static_cast<std::size_t>(gathered[map.first(f) + i]));
    }
  }
  return parts;
}

/// Every 17th element of Wide has the same gradients. So those of a part stay the same, bit for
/// bit, unless some were read before they had come, or written over while they were read.
void expect_whole(const Parts& parts, std::span<const float> x) {
  for (const std::vector<std::size_t>& part : parts) {
    std::array<std::optional<float>, 17> seen;
    for (const std::size_t i : part) {
      std::optional<float>& same = seen[i % seen.size()];
      if (!same) same = x[i];
      ASSERT_EQ(x[i], *same) << "element " << i;
    }
  }
}

class GpuWaitFree : public ::testing::TestWithParam<std::tuple<testing::Backend, WaitFree>> {};

TEST_P(GpuWaitFree, ModelsStayWholeAndDrawNear) {
  const auto& [gpus, scenario] = GetParam();
  if (!gpus.missing.empty()) GTEST_SKIP() << gpus.missing;
  const SharedResults ends, used;
  const auto work = [&, &scenario = scenario](World& world) {
    const gpu::Stream stream(0);
    const gpu::CurrentStream bound(stream);
    Wide task(world.rank());
    const std::size_t count = task.parameter_count();
    const Parts parts = scenario.parts(count);
    UserVector x(count, Dtype::float32, 0), gradient(count, Dtype::float32, 0);
    task.initialise(x.host());
    kernels::copy(x.view(), x.host());
    TrainerOptions options;
    options.graph = "complete";
    options.iterations = 25;
    // So that none makes its iterations while the machine lets no other begin.
    options.heterogeneity = Heterogeneity({"1ms", {}, "", workers, 1});
    options.stream = stream.handle();
    Trainer trainer(world, {{x.view().data, count, Dtype::float32, 0}}, scenario.protocol(),
                    options);
    while (trainer.running()) {
      // None is left behind to go on alone.
      if (!scenario.waits && trainer.iteration() % 5 == 0) world.bootstrap().fence(60s);
      fetch(x.host(), trainer.parameters());
      expect_whole(parts, x.host().as<float>());
      world.compute([&] { task.gradient(x.host(), trainer.iteration(), gradient.host()); });
      kernels::copy(gradient.view(), gradient.host());
      const Status status =
          scenario.own_optimizer
              ? trainer.step([&](VectorView own) { kernels::axpy(own, -0.1, gradient.view()); })
              : trainer.step(gradient.view());
      status.throw_if_failed();
    }
    fetch(x.host(), trainer.parameters());
    const auto rank = static_cast<std::size_t>(world.rank());
    (*ends)[rank] = std::bit_cast<std::uint32_t>(x.host().as<float>()[16]);
    (*used)[rank] = world.counters().updates_used.get();
    trainer.average();
    fetch(x.host(), x.view());
    // Between the start and what the worker with the largest gradients is drawn to.
    for (const float value : x.host().as<float>()) {
      ASSERT_GE(value, 0);
      ASSERT_LE(value, 16.F * workers / 3);
    }
    EXPECT_GT(x.host().as<float>()[16], 0);
  };
  EXPECT_THAT(testing::run_processes(workers, work, gpus.defaults), Each(0));
  if (scenario.counts_updates) {
    EXPECT_GT(std::reduce((*used).begin(), (*used).end()), 0u);
  }
  std::array<float, workers> x;
  std::ranges::transform(*ends, x.begin(), [](std::uint64_t bits) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits));
  });
  const auto [least, most] = std::ranges::minmax(x);
  if (scenario.draws_near) {
    EXPECT_LT(most - least, 8) << "alone they come to 5.0, 9.9 and 14.9";
  }
}

const WaitFree ad_psgd{
    .name = "ad_psgd", .protocol = [] { return config_of(AdPsgd{}); }, .draws_near = false};
const WaitFree ad_psgd_own_optimizer{.name = "ad_psgd_own_optimizer",
                                     .protocol = ad_psgd.protocol,
                                     .own_optimizer = true,
                                     .draws_near = false};
const WaitFree prague_service_parallel{
    .name = "prague_service_parallel",
    .protocol = [] { return config_of(Prague{.group_size = 2, .order = Prague::Order::parallel}); },
    .counts_updates = false,
    .waits = true};

INSTANTIATE_TEST_SUITE_P(
    All, GpuWaitFree,
    ::testing::Combine(
        ::testing::ValuesIn(gpu_backends()),
        ::testing::Values(
            WaitFree{"div_share", [] { return config_of(DivShare{}); },
                     fragments_of<FragmentMap::Order::blocks>},
            WaitFree{"div_share_shuffled",
                     [] { return config_of(DivShare{.map = FragmentMap::Order::shuffled}); },
                     fragments_of<FragmentMap::Order::shuffled>},
            WaitFree{"swift", [] { return config_of(Swift{}); }},
            WaitFree{"swift_paper",
                     [] { return config_of(Swift{.variant = Swift::Variant::paper}); }},
            ad_psgd, ad_psgd_own_optimizer,
            WaitFree{"ad_psgd_pull_local_steps",
                     [] { return config_of(AdPsgd{.mode = AdPsgd::Mode::pull, .local_steps = 2}); }},
            WaitFree{"ad_psgd_paper", [] { return config_of(AdPsgd{.mode = AdPsgd::Mode::paper}); }},
            WaitFree{.name = "dybw_carry", .protocol = [] { return config_of(Dybw{}); }, .waits = true},
            WaitFree{.name = "dybw_abort",
                     .protocol = [] { return config_of(Dybw{.policy = Dybw::Policy::abort}); },
                     .waits = true},
            prague_service_parallel,
            WaitFree{"parameter_server_asynchronous",
                     [] {
                       return config_of(
                           ParameterServer{.mode = ParameterServer::Mode::asynchronous,
                                           .servers = ParameterServer::Servers::single});
                     }})),
    [](const auto& info) {
      return std::get<0>(info.param).name + "_" + std::get<1>(info.param).name;
    });

}  // namespace
}  // namespace slip
