// The trainer of the C API with parameters in the memory of a GPU.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <mutex>
#include <string>
#include <vector>

#include "driver.h"
#include "slipstream.h"
#include "slipstream/gpu/memory.h"

namespace slip {
namespace {

constexpr int workers = 2;
constexpr std::size_t count = 1001;

/// Between the host's memory and a GPU's.
void copy(void* to, const void* from, const gpu::Stream& stream) {
  gpu::copy(to, from, count * sizeof(float), stream).throw_if_failed();
  stream.synchronize().throw_if_failed();
}

/// Draws the model to this worker's rank, in the memory of `device`; what it has come to.
std::vector<float> train(slip_world* world, int device) {
  const gpu::Stream stream(0);
  slip_parameter parameter = {sizeof parameter, nullptr, count, SLIP_FLOAT32, device};
  slip_trainer_options options;
  slip_trainer_options_init(&options, sizeof options);
  options.iterations = 20;
  options.momentum = 0.9;
  options.stream = device == SLIP_HOST ? nullptr : stream.handle();
  slip_trainer* trainer = nullptr;
  EXPECT_EQ(slip_trainer_create(world, &parameter, 1, &options, &trainer), SLIP_OK)
      << slip_last_error();
  std::vector<float> x(count), gradient(count);
  while (slip_trainer_running(trainer) != 0) {
    copy(x.data(), slip_trainer_parameters(trainer), stream);
    for (std::size_t i = 0; i < count; ++i) {
      gradient[i] = x[i] - static_cast<float>((i % 7) * (slip_world_rank(world) + 1));
    }
    copy(slip_trainer_gradient(trainer), gradient.data(), stream);
    EXPECT_EQ(slip_trainer_step(trainer, slip_trainer_gradient(trainer)), SLIP_OK)
        << slip_last_error();
  }
  EXPECT_EQ(slip_trainer_average(trainer), SLIP_OK) << slip_last_error();
  copy(x.data(), slip_trainer_parameters(trainer), stream);
  slip_trainer_free(trainer);
  return x;
}

TEST(CTrainerOnGpu, ComesToTheSameBitsAsOnTheHost) {
  SLIP_NEEDS_GPU();
  std::array<std::vector<float>, 2> results;
  const auto work = [](slip_world* world, void* context) {
    auto& found = *static_cast<std::array<std::vector<float>, 2>*>(context);
    const std::vector<float> on_host = train(world, SLIP_HOST), on_gpu = train(world, SLIP_GPU(0));
    if (slip_world_rank(world) == 0) found = {on_host, on_gpu};
    return SLIP_OK;
  };
  ASSERT_EQ(slip_launch(workers, work, &results), SLIP_OK) << slip_last_error();
  EXPECT_EQ(results[0].size(), count);
  EXPECT_EQ(results[0], results[1]);
  EXPECT_NE(results[0][1], 0);
}

TEST(CTrainerOnGpu, AGpuThatIsNotThereIsNamed) {
  SLIP_NEEDS_GPU();
  const auto work = [](slip_world* world, void*) {
    slip_parameter parameter = {sizeof parameter, nullptr, count, SLIP_FLOAT32, SLIP_GPU(99)};
    slip_trainer* trainer = nullptr;
    EXPECT_EQ(slip_trainer_create(world, &parameter, 1, nullptr, &trainer), SLIP_INVALID_ARGUMENT);
    EXPECT_THAT(slip_last_error(), ::testing::HasSubstr("GPU 99 is not here"));
    parameter.device = -1;
    EXPECT_EQ(slip_trainer_create(world, &parameter, 1, nullptr, &trainer), SLIP_INVALID_ARGUMENT);
    EXPECT_THAT(slip_last_error(), ::testing::HasSubstr("slip_parameter.device is -1"));
    return SLIP_OK;
  };
  ASSERT_EQ(slip_launch(1, work, nullptr), SLIP_OK) << slip_last_error();
}

}  // namespace
}  // namespace slip
