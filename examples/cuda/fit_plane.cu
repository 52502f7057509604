// Each worker has samples of one plane of its own in its GPU's memory and fits it with the others;
// parameters, gradients and averages stay there. Start it with `slip run -n 4 -- fit_plane`. The
// workers may share one GPU.
#include <cuda_runtime.h>

#include <array>
#include <cstdio>
#include <vector>

#include "slipstream/slipstream.hpp"

namespace {

constexpr int samples = 4096;
constexpr std::array<float, 3> plane = {2, -1, 0.5};  // z = 2 x - y + 0.5

struct Sample {
  float x, y, z;
};

void check(cudaError_t result) {
  if (result != cudaSuccess) throw slip::Error(slip::Code::io, cudaGetErrorString(result));
}

// gradient += that of the mean squared error over the samples.
__global__ void add_gradient(const Sample* all, const float* at, float* gradient) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= samples) return;
  const Sample s = all[i];
  const float error = (at[0] * s.x + at[1] * s.y + at[2] - s.z) / samples;
  atomicAdd(&gradient[0], error * s.x);
  atomicAdd(&gradient[1], error * s.y);
  atomicAdd(&gradient[2], error);
}

std::vector<Sample> draw(int rank) {
  slip::Random random(slip::key({static_cast<std::uint64_t>(rank)}));
  std::vector<Sample> all(samples);
  for (Sample& s : all) {
    s.x = static_cast<float>(random.uniform(-1, 1));
    s.y = static_cast<float>(random.uniform(-1, 1));
    s.z = plane[0] * s.x + plane[1] * s.y + plane[2];
  }
  return all;
}

void train(int gpus) {
  const slip::World world = slip::World::connect();
  const int gpu = world.rank() % gpus;
  check(cudaSetDevice(gpu));
  cudaStream_t stream;
  check(cudaStreamCreate(&stream));
  const std::vector<Sample> host = draw(world.rank());
  Sample* mine;
  check(cudaMalloc(&mine, samples * sizeof(Sample)));
  check(cudaMemcpy(mine, host.data(), samples * sizeof(Sample), cudaMemcpyHostToDevice));
  float fitted[3] = {};
  {
    slip::TrainerOptions options;
    options.learning_rate = 0.5;
    options.iterations = 200;
    options.stream = stream;
    slip::Trainer trainer(world, {{.count = 3, .device = gpu}}, slip::Hop{.max_gap = 5}, options);
    while (trainer.running()) {
      auto* gradient = static_cast<float*>(trainer.gradient().data);
      const auto* at = static_cast<const float*>(trainer.parameters().data);
      check(cudaMemsetAsync(gradient, 0, 3 * sizeof(float), stream));
      add_gradient<<<samples / 256, 256, 0, stream>>>(mine, at, gradient);
      trainer.step(trainer.gradient()).throw_if_failed();
    }
    trainer.average();
    const void* mean = trainer.parameters().data;
    check(cudaMemcpyAsync(fitted, mean, sizeof fitted, cudaMemcpyDeviceToHost, stream));
    check(cudaStreamSynchronize(stream));
  }
  check(cudaFree(mine));
  check(cudaStreamDestroy(stream));
  if (world.rank() == 0) {
    std::printf("%d workers: z = %.2f x %+.2f y %+.2f\n", world.size(), fitted[0], fitted[1],
                fitted[2]);
  }
}

}  // namespace

int main() {
  int gpus = 0;
  if (const cudaError_t result = cudaGetDeviceCount(&gpus); result != cudaSuccess || gpus == 0) {
    std::printf("skipped: no GPU here (%s)\n", cudaGetErrorString(result));
    return 77;
  }
  try {
    train(gpus);
  } catch (const slip::Error& error) {
    std::fprintf(stderr, "fit_plane: %s\n", error.what());
    return 1;
  }
}
