#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "slipstream/base/random.h"
#include "slipstream/trainer/tasks/images_internal.h"
#include "slipstream/trainer/tasks/model_internal.h"

/// Set where the BLAS that LibTorch is linked to is OpenBLAS.
extern "C" [[gnu::weak]] void openblas_set_num_threads(int threads);

namespace slip {
namespace {

using Shape = std::vector<std::int64_t>;
using Tensors = std::vector<at::Tensor>;

constexpr std::int64_t side = image_side;

at::Tensor softmax_logits(const at::Tensor& images, const Tensors& p) {
  return at::linear(images.flatten(1), p[0], p[1]);
}

at::Tensor mlp_logits(const at::Tensor& images, const Tensors& p) {
  return at::linear(at::relu(at::linear(images.flatten(1), p[0], p[1])), p[2], p[3]);
}

at::Tensor lenet_logits(const at::Tensor& images, const Tensors& p) {
  at::Tensor x = at::max_pool2d(at::relu(at::conv2d(images, p[0], p[1], 1, 2)), 2);
  x = at::max_pool2d(at::relu(at::conv2d(x, p[2], p[3])), 2);
  x = at::relu(at::linear(x.flatten(1), p[4], p[5]));
  x = at::relu(at::linear(x, p[6], p[7]));
  return at::linear(x, p[8], p[9]);
}

struct Architecture {
  std::string_view name;
  double learning_rate;
  std::vector<Shape> shapes;  // weights and biases alternate
  at::Tensor (*logits)(const at::Tensor& images, const Tensors& parameters);
};

const std::array<Architecture, 3> architectures{{
    {"softmax", 0.02, {{10, side* side}, {10}}, softmax_logits},
    {"mlp", 0.1, {{128, side* side}, {128}, {10, 128}, {10}}, mlp_logits},
    {"lenet",
     0.05,
     {{6, 1, 5, 5}, {6}, {16, 6, 5, 5}, {16}, {120, 400}, {120}, {84, 120}, {84}, {10, 84}, {10}},
     lenet_logits},
}};

std::size_t elements(const Shape& shape) {
  std::int64_t n = 1;
  for (const std::int64_t size : shape) n *= size;
  return static_cast<std::size_t>(n);
}

/// Workers are the parallelism, so each computes on one thread. OpenMP counts threads for each
/// calling thread, and a simulated worker computes now on one and now on another.
void use_one_thread() {
  thread_local const bool done = [] {
    at::set_num_threads(1);
    if (openblas_set_num_threads != nullptr) openblas_set_num_threads(1);
    return true;
  }();
  static_cast<void>(done);
}

class TorchModel : public Model {
 public:
  explicit TorchModel(const Architecture& architecture) : architecture_(architecture) {
    for (const Shape& shape : architecture_.shapes) count_ += elements(shape);
  }

  std::size_t parameter_count() const override { return count_; }

  void initialise(std::span<float> parameters, std::uint64_t seed) const override {
    Random random(seed);
    std::size_t at = 0;
    for (const Shape& shape : architecture_.shapes) {
      const std::span<float> part = parameters.subspan(at, elements(shape));
      at += part.size();
      const bool is_bias = shape.size() == 1;
      const double inputs = static_cast<double>(part.size()) / static_cast<double>(shape[0]);
      const double bound = is_bias ? 0 : std::sqrt(3 / inputs);
      for (float& x : part) x = static_cast<float>(random.uniform(-bound, bound));
    }
  }

  double gradient(std::span<const float> parameters, const ImageBatch& batch,
                  std::span<float> gradient) override {
    use_one_thread();
    bind(parameters.data(), gradient.data());
    std::ranges::fill(gradient, 0.0f);  // backward() adds to what is there
    const at::Tensor loss = at::cross_entropy_loss(logits(batch, bound_), labels(batch));
    loss.backward();
    return loss.item<float>();
  }

  Score score(std::span<const float> parameters, const ImageBatch& batch) override {
    use_one_thread();
    const at::NoGradGuard no_grad;
    const at::Tensor output = logits(batch, views(parameters.data()));
    const at::Tensor expected = labels(batch);
    const at::Tensor loss = at::cross_entropy_loss(output, expected, {}, at::Reduction::Sum);
    const at::Tensor correct = output.argmax(1).eq(expected).sum();
    return {loss.item<float>(), static_cast<std::size_t>(correct.item<std::int64_t>())};
  }

  double default_learning_rate() const override { return architecture_.learning_rate; }

 private:
  /// Tensors on the flat vector's memory. LibTorch has no read-only tensors; nothing here writes
  /// through those of parameters, pixels and labels.
  Tensors views(const float* flat) const {
    Tensors tensors;
    for (const Shape& shape : architecture_.shapes) {
      tensors.push_back(at::from_blob(const_cast<float*>(flat), shape));
      flat += elements(shape);
    }
    return tensors;
  }

  /// Makes autograd read `parameters` and add to `gradient` in place.
  void bind(const float* parameters, float* gradient) {
    if (parameters == parameters_ && gradient == gradient_) return;
    bound_ = views(parameters);
    const Tensors gradients = views(gradient);
    for (std::size_t i = 0; i < bound_.size(); ++i) {
      bound_[i].set_requires_grad(true);
      bound_[i].mutable_grad() = gradients[i];
    }
    parameters_ = parameters;
    gradient_ = gradient;
  }

  at::Tensor logits(const ImageBatch& batch, const Tensors& parameters) const {
    const auto n = static_cast<std::int64_t>(batch.labels.size());
    const at::Tensor images =
        at::from_blob(const_cast<float*>(batch.pixels.data()), {n, 1, side, side});
    return architecture_.logits(images, parameters);
  }

  static at::Tensor labels(const ImageBatch& batch) {
    return at::from_blob(const_cast<std::int64_t*>(batch.labels.data()),
                         {static_cast<std::int64_t>(batch.labels.size())}, at::kLong);
  }

  const Architecture& architecture_;
  std::size_t count_ = 0;
  const float* parameters_ = nullptr;  // what `bound_` stands on
  const float* gradient_ = nullptr;
  Tensors bound_;
};

}  // namespace
}  // namespace slip

/// Found by model.cc under make_torch_model_symbol.
extern "C" slip::Model* slip_make_torch_model(std::string_view name) {
  using namespace slip;
  return new TorchModel(*std::ranges::find(architectures, name, &Architecture::name));
}
