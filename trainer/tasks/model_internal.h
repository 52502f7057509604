#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "slipstream/trainer/tasks/images_internal.h"

namespace slip {

/// Images as a model takes them: `labels.size()` times its shape of normalised pixels, labels 0..9.
struct ImageBatch {
  std::span<const float> pixels;
  std::span<const std::int64_t> labels;
};

struct Score {
  double loss = 0;  // cross-entropy, summed over the batch
  std::size_t correct = 0;
};

/// A classifier whose parameters live in the caller's flat vector. Belongs to one thread.
class Model {
 public:
  virtual ~Model() = default;

  virtual std::size_t parameter_count() const = 0;

  /// A pure function of the seed: weights uniform in +-sqrt(3 / inputs), so that each layer's
  /// outputs keep the variance of its inputs (vgg11: +-sqrt(6 / inputs)); biases zero, the factors
  /// of normalisations one.
  virtual void initialise(std::span<float> parameters, std::uint64_t seed) const = 0;

  /// Writes the gradient of the batch's mean cross-entropy, and returns that mean. Cheapest when
  /// `parameters` and `gradient` stay where they were in the call before.
  virtual double gradient(std::span<const float> parameters, const ImageBatch& batch,
                          std::span<float> gradient) = 0;

  /// The loss and the hits of `batch`.
  virtual Score score(std::span<const float> parameters, const ImageBatch& batch) = 0;

  /// For plain SGD on mini-batches of 32 from 8 or so workers.
  virtual double default_learning_rate() const = 0;
};

/// softmax (pixels-10), mlp (pixels-128-10, ReLU), lenet (LeNet-5: two 5x5 convolutions with 6 and
/// 16 maps, each ReLU and 2x2 max-pooling, then 120-84-10), gn_lenet (three 5x5 convolutions with
/// 32, 32 and 64 maps, each group normalisation of two groups, ReLU and 2x2 max-pooling, then 10;
/// 89,834 parameters for colour images), vgg11 (eight 3x3 convolutions and five poolings, then
/// 512-512-512-10; no batch normalisation, no dropout; 9,750,922 parameters, for colour images
/// only).
inline constexpr std::array<std::string_view, 5> image_models{"softmax", "mlp", "lenet", "gn_lenet",
                                                              "vgg11"};
/// Those that take images of that shape.
std::span<const std::string_view> models_for(ImageShape shape);

/// `name` is one of them. Throws Error(not_supported) where built without LibTorch.
std::unique_ptr<Model> make_model(std::string_view name, ImageShape shape);

/// Whether models can be made: the module libslip_models.so, which alone is linked to LibTorch, was
/// built and loads. The first call loads it (half a second).
bool have_models();

/// What the module exports: a new model of one of image_models.
using MakeTorchModel = Model*(std::string_view name, ImageShape shape);
constexpr const char* make_torch_model_symbol = "slip_make_torch_model";

}  // namespace slip
