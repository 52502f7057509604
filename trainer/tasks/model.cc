#include <dlfcn.h>
#include <fmt/format.h>

#include <string>

#include "slipstream/base/error.h"
#include "slipstream/trainer/tasks/model_internal.h"

namespace slip {
namespace {

/// The module with LibTorch in it, loaded when first asked for and never unloaded.
struct Module {
  MakeTorchModel* make = nullptr;
  std::string error;
};

const Module& module() {
  static const Module loaded = [] {
    Module m;
    void* library = dlopen("libslip_models.so", RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr) {
      m.make = reinterpret_cast<MakeTorchModel*>(dlsym(library, make_torch_model_symbol));
    }
    if (m.make == nullptr) {
      m.error = dlerror();
      return m;
    }
    // Several workers of a process compute at once, for which a serial OpenBLAS is no good: it
    // returns wrong products now and then.
    using Parallel = int();
    const auto parallel = reinterpret_cast<Parallel*>(dlsym(library, "openblas_get_parallel"));
    if (parallel != nullptr && parallel() == 0) {
      m = {nullptr, "its OpenBLAS is not thread-safe; install libopenblas0-pthread"};
    }
    return m;
  }();
  return loaded;
}

}  // namespace

std::span<const std::string_view> models_for(ImageShape shape) {
  // Five poolings leave nothing of the smaller ones.
  return std::span(image_models).first(image_models.size() - (shape == grey_images ? 1 : 0));
}

std::unique_ptr<Model> make_model(std::string_view name, ImageShape shape) {
  if (!have_models()) {
    throw Error(
        Code::not_supported,
        fmt::format("models of images need LibTorch, which this build lacks ({}); install the "
                    "package libtorch-dev and build again, or take a task without images "
                    "(libsvm:FILE, none, targets, quadratic, consensus)",
                    module().error));
  }
  return std::unique_ptr<Model>(module().make(name, shape));
}

bool have_models() { return module().make != nullptr; }

}  // namespace slip
