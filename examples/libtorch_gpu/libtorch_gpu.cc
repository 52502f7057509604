// A network of LibTorch whose parameters and gradients are the trainer's own memory, on the GPU: no
// byte of them passes through the host. It learns to tell points inside a circle from those
// outside. Start it with `slip run -n 4 -- libtorch_gpu`. The workers may share one GPU.
#include <torch/torch.h>

#include <cstdio>
#include <vector>

#include "slipstream/slipstream.hpp"

namespace {

torch::nn::Sequential make_model(torch::Device device) {
  torch::manual_seed(1);
  torch::nn::Sequential model(torch::nn::Linear(2, 64), torch::nn::Tanh(),
                              torch::nn::Linear(64, 2));
  model->to(device);
  return model;
}

// Parts of a vector in the shapes of the model's parameters; nothing is copied.
std::vector<torch::Tensor> parts_of(const slip::VectorView& vector, torch::nn::Sequential& model) {
  std::vector<torch::Tensor> parts;
  auto* next = static_cast<float*>(vector.data);
  for (const torch::Tensor& p : model->parameters()) {
    parts.push_back(torch::from_blob(next, p.sizes(), p.options()));
    next += p.numel();
  }
  return parts;
}

struct Points {
  torch::Tensor at, inside;
};

Points draw(torch::Device device) {
  const torch::Tensor at = torch::rand({256, 2}, device) * 2 - 1;
  return {at, (at.square().sum(1) < 0.6).to(torch::kLong)};
}

void train() {
  const slip::World world = slip::World::connect();
  const auto gpus = static_cast<int>(torch::cuda::device_count());
  const torch::Device device(torch::kCUDA, static_cast<torch::DeviceIndex>(world.rank() % gpus));
  torch::nn::Sequential model = make_model(device);

  // Copied in once; LibTorch's current stream is the default one, as the trainer's is.
  std::vector<slip::Parameter> parameters;
  for (torch::Tensor& p : model->parameters()) {
    parameters.push_back({.count = static_cast<std::size_t>(p.numel()), .device = device.index()});
  }
  slip::TrainerOptions options;
  options.learning_rate = 0.5;
  options.momentum = 0.9;
  options.iterations = 500;
  slip::Trainer trainer(world, parameters, slip::Hop{.max_gap = 5}, options);
  const std::vector<torch::Tensor> values = parts_of(trainer.parameters(), model);
  const std::vector<torch::Tensor> gradients = parts_of(trainer.gradient(), model);
  std::vector<torch::Tensor> own = model->parameters();
  for (std::size_t i = 0; i < own.size(); ++i) {
    values[i].copy_(own[i].detach());
    own[i].set_data(values[i]);
    own[i].mutable_grad() = gradients[i];
  }

  torch::manual_seed(world.rank());
  while (trainer.running()) {
    for (const torch::Tensor& gradient : gradients) gradient.zero_();
    const Points points = draw(device);
    torch::nn::functional::cross_entropy(model->forward(points.at), points.inside).backward();
    trainer.step(trainer.gradient()).throw_if_failed();
  }
  trainer.average();

  const Points test = draw(device);
  const torch::NoGradGuard no_gradient;
  const auto right = model->forward(test.at).argmax(1).eq(test.inside).to(torch::kFloat).mean();
  if (world.rank() == 0) {
    std::printf("%d workers: %.0f%% right\n", world.size(), 100 * right.item<float>());
  }
}

}  // namespace

int main() {
  if (!torch::cuda::is_available()) {
    std::printf("skipped: LibTorch sees no GPU here\n");
    return 77;
  }
  try {
    train();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "libtorch_gpu: %s\n", error.what());
    return 1;
  }
}
