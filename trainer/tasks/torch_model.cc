#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>
#include <utility>
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

at::Tensor gn_lenet_logits(const at::Tensor& images, const Tensors& p) {
  at::Tensor x = images;
  for (std::size_t layer = 0; layer < 3; ++layer) {
    const auto* q = &p[4 * layer];
    x = at::group_norm(at::conv2d(x, q[0], q[1], 1, 2), 2, q[2], q[3]);
    x = at::max_pool2d(at::relu(x), 2);
  }
  return at::linear(x.flatten(1), p[12], p[13]);
}

at::Tensor vgg11_logits(const at::Tensor& images, const Tensors& p) {
  constexpr std::array pooled{true, true, false, true, false, true, false, true};
  at::Tensor x = images;
  for (std::size_t layer = 0; layer < pooled.size(); ++layer) {
    x = at::relu(at::conv2d(x, p[2 * layer], p[2 * layer + 1], 1, 1));
    if (pooled[layer]) x = at::max_pool2d(x, 2);
  }
  x = at::relu(at::linear(x.flatten(1), p[16], p[17]));
  x = at::relu(at::linear(x, p[18], p[19]));
  return at::linear(x, p[20], p[21]);
}

/// Of parameters: a tensor's sizes; one of one dimension is a bias, or the factors of a
/// normalisation.
struct Tensor {
  Shape shape;
  bool factors = false;
};
using Layout = std::vector<Tensor>;

Tensor tensor(Shape shape) { return {std::move(shape)}; }

Layout linear(std::initializer_list<std::int64_t> widths) {
  Layout layout;
  for (const auto* width = widths.begin(); width + 1 != widths.end(); ++width) {
    layout.push_back(tensor({width[1], width[0]}));
    layout.push_back(tensor({width[1]}));
  }
  return layout;
}

Layout operator+(Layout a, const Layout& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

Layout convolution(std::int64_t from, std::int64_t to, std::int64_t size) {
  return {tensor({to, from, size, size}), tensor({to})};
}

struct Sizes {
  std::int64_t channels;
  std::int64_t side;
  std::int64_t pixels() const { return channels * side * side; }
};

Layout softmax_layout(Sizes s) { return linear({s.pixels(), 10}); }
Layout mlp_layout(Sizes s) { return linear({s.pixels(), 128, 10}); }

Layout lenet_layout(Sizes s) {
  const std::int64_t left = (s.side / 2 - 4) / 2;
  return convolution(s.channels, 6, 5) + convolution(6, 16, 5) +
         linear({16 * left * left, 120, 84, 10});
}

Layout gn_lenet_layout(Sizes s) {
  Layout layout;
  std::int64_t from = s.channels;
  for (const std::int64_t to : {32, 32, 64}) {
    layout = layout + convolution(from, to, 5) + Layout{{{to}, true}, tensor({to})};
    from = to;
  }
  const std::int64_t left = s.side / 8;
  return layout + linear({64 * left * left, 10});
}

Layout vgg11_layout(Sizes s) {
  Layout layout;
  std::int64_t from = s.channels;
  for (const std::int64_t to : {64, 128, 256, 256, 512, 512, 512, 512}) {
    layout = layout + convolution(from, to, 3);
    from = to;
  }
  return layout + linear({512, 512, 512, 10});
}

struct Architecture {
  std::string_view name;
  double learning_rate;
  double gain;  // the square of weights' bound, times their inputs
  Layout (*layout)(Sizes images);
  at::Tensor (*logits)(const at::Tensor& images, const Tensors& parameters);
};

constexpr std::array<Architecture, 5> architectures{{
    {"softmax", 0.02, 3, softmax_layout, softmax_logits},
    {"mlp", 0.1, 3, mlp_layout, mlp_logits},
    {"lenet", 0.05, 3, lenet_layout, lenet_logits},
    {"gn_lenet", 0.05, 3, gn_lenet_layout, gn_lenet_logits},
    {"vgg11", 0.05, 6, vgg11_layout, vgg11_logits},
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
  TorchModel(const Architecture& architecture, Sizes images)
      : architecture_(architecture), images_(images), layout_(architecture.layout(images)) {
    for (const Tensor& t : layout_) count_ += elements(t.shape);
  }

  std::size_t parameter_count() const override { return count_; }

  void initialise(std::span<float> parameters, std::uint64_t seed) const override {
    Random random(seed);
    std::size_t at = 0;
    for (const auto& [shape, factors] : layout_) {
      const std::span<float> part = parameters.subspan(at, elements(shape));
      at += part.size();
      if (factors) {
        std::ranges::fill(part, 1.0F);
        continue;
      }
      const bool is_bias = shape.size() == 1;
      const double inputs = static_cast<double>(part.size()) / static_cast<double>(shape[0]);
      const double bound = is_bias ? 0 : std::sqrt(architecture_.gain / inputs);
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
    for (const Tensor& t : layout_) {
      tensors.push_back(at::from_blob(const_cast<float*>(flat), t.shape));
      flat += elements(t.shape);
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
    const at::Tensor images = at::from_blob(const_cast<float*>(batch.pixels.data()),
                                            {n, images_.channels, images_.side, images_.side});
    return architecture_.logits(images, parameters);
  }

  static at::Tensor labels(const ImageBatch& batch) {
    return at::from_blob(const_cast<std::int64_t*>(batch.labels.data()),
                         {static_cast<std::int64_t>(batch.labels.size())}, at::kLong);
  }

  const Architecture& architecture_;
  const Sizes images_;
  const Layout layout_;
  std::size_t count_ = 0;
  const float* parameters_ = nullptr;  // what `bound_` stands on
  const float* gradient_ = nullptr;
  Tensors bound_;
};

}  // namespace
}  // namespace slip

/// Found by model.cc under make_torch_model_symbol.
extern "C" slip::Model* slip_make_torch_model(std::string_view name, slip::ImageShape shape) {
  using namespace slip;
  return new TorchModel(
      *std::ranges::find(architectures, name, &Architecture::name),
      {static_cast<std::int64_t>(shape.channels), static_cast<std::int64_t>(shape.side)});
}
