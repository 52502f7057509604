#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "slipstream/trainer/tasks/cifar_internal.h"
#include "slipstream/trainer/tasks/digits_internal.h"
#include "slipstream/trainer/tasks/idx_internal.h"
#include "slipstream/trainer/tasks/image_task_internal.h"
#include "slipstream/trainer/tasks/mini_batches_internal.h"
#include "slipstream/trainer/tasks/model_internal.h"
#include "slipstream/trainer/tasks/process_cache_internal.h"
#include "slipstream/trainer/tasks/settings_internal.h"

namespace slip {
namespace {

constexpr std::size_t test_batch = 256;

/// Pixels as the models see them: mean 0 and variance 1 over the training set.
struct Scaling {
  float factor = 1;
  float offset = 0;
};

Scaling scaling_of(const ImageSet& set) {
  std::uint64_t sum = 0, squares = 0;
  for (const std::uint64_t pixel : set.pixels) {
    sum += pixel;
    squares += pixel * pixel;
  }
  const auto n = static_cast<double>(set.pixels.size());
  const double mean = static_cast<double>(sum) / n;
  const double variance = static_cast<double>(squares) / n - mean * mean;
  const double factor = variance > 0 ? 1 / std::sqrt(variance) : 1;
  return {static_cast<float>(factor), static_cast<float>(-mean * factor)};
}

/// What all workers of a process hold once.
struct Problem {
  ImageData images;
  Scaling scaling;
};

ProcessCache<Problem> problems;

/// Where images come from.
struct Source {
  std::string_view prefix;  // of --task; what follows is a folder, if anything
  ImageShape shape;
  std::string_view model;  // where the user names none
  ImageData (*read)(const std::string& folder);
};

constexpr std::array<Source, 3> sources{{
    // One set of digits for all seeds, as with files: a seed changes the run and not the data.
    {"digits", grey_images, "mlp", [](const std::string&) { return make_digits(); }},
    {"mnist:", grey_images, "mlp", [](const std::string& folder) { return read_mnist(folder); }},
    {"cifar10:", colour_images, "gn_lenet",
     [](const std::string& folder) { return read_cifar10(folder); }},
}};

const Source* source_of(std::string_view task) {
  const auto is_it = [&](const Source& source) {
    return source.prefix.ends_with(':') ? task.starts_with(source.prefix) : task == source.prefix;
  };
  const auto found = std::ranges::find_if(sources, is_it);
  return found == sources.end() ? nullptr : &*found;
}

class ImageTask : public Task {
 public:
  ImageTask(std::string_view model_name, std::unique_ptr<Model> model,
            std::shared_ptr<const Problem> problem, MiniBatches batches, const TaskOptions& options)
      : model_name_(model_name),
        model_(std::move(model)),
        problem_(std::move(problem)),
        batches_(std::move(batches)),
        seed_(options.seed),
        tested_(problem_->images.test.size()) {
    if (!options.evaluate_samples) return;
    tested_ = std::min(tested_, static_cast<std::size_t>(*options.evaluate_samples));
  }

  std::size_t parameter_count() const override { return model_->parameter_count(); }

  void initialise(VectorView parameters) override {
    model_->initialise(parameters.as<float>(), seed_);
  }

  double gradient(ConstVectorView parameters, Iteration iteration, VectorView gradient) override {
    begin_batch();
    for (const std::uint32_t sample : batches_.at(iteration)) add(problem_->images.train, sample);
    return model_->gradient(parameters.as<float>(), batch(), gradient.as<float>());
  }

  Evaluation evaluate(ConstVectorView parameters) override {
    const ImageSet& test = problem_->images.test;
    Score total;
    for (std::size_t first = 0; first < tested_; first += test_batch) {
      begin_batch();
      const std::size_t end = std::min(first + test_batch, tested_);
      for (std::size_t i = first; i < end; ++i) add(test, i);
      const Score score = model_->score(parameters.as<float>(), batch());
      total.loss += score.loss;
      total.correct += score.correct;
    }
    const auto n = static_cast<double>(tested_);
    return {.loss = total.loss / n, .accuracy = static_cast<double>(total.correct) / n};
  }

  double iterations_per_epoch() const override { return batches_.iterations_per_epoch(); }
  std::string_view model() const override { return model_name_; }
  double default_learning_rate() const override { return model_->default_learning_rate(); }

 private:
  void begin_batch() {
    pixels_.clear();
    labels_.clear();
  }

  void add(const ImageSet& set, std::size_t sample) {
    const auto [factor, offset] = problem_->scaling;
    const std::size_t size = problem_->images.shape.pixels();
    const auto image = std::span(set.pixels).subspan(sample * size, size);
    const std::size_t before = pixels_.size();
    pixels_.resize(before + size);
    for (std::size_t i = 0; i < size; ++i) {
      pixels_[before + i] = static_cast<float>(image[i]) * factor + offset;
    }
    labels_.push_back(set.labels[sample]);
  }

  ImageBatch batch() const { return {pixels_, labels_}; }

  std::string_view model_name_;
  std::unique_ptr<Model> model_;
  std::shared_ptr<const Problem> problem_;
  MiniBatches batches_;
  std::uint64_t seed_;
  std::size_t tested_;         // images
  std::vector<float> pixels_;  // the batch being assembled
  std::vector<std::int64_t> labels_;
};

}  // namespace

std::unique_ptr<Task> make_image_task(const TaskOptions& options) {
  const Source* source = source_of(options.task);
  if (source == nullptr) return nullptr;

  const std::string_view model_name =
      choose_model(options, models_for(source->shape), source->model);
  std::unique_ptr<Model> model = make_model(model_name, source->shape);
  const auto problem = problems.get(options.task, [&] {
    ImageData images = source->read(options.task.substr(source->prefix.size()));
    const Scaling scaling = scaling_of(images.train);
    return Problem{std::move(images), scaling};
  });
  return std::make_unique<ImageTask>(model_name, std::move(model), problem,
                                     make_mini_batches(options, problem->images.train.labels),
                                     options);
}

}  // namespace slip
