#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>

#include "slipstream/base/error.h"
#include "slipstream/trainer/tasks/model_internal.h"

namespace slip {
namespace {

constexpr std::array<std::string_view, 3> names{"softmax", "mlp", "lenet"};

/// The module with LibTorch in it, loaded when first asked for and never unloaded.
struct Module {
  MakeTorchModel* make = nullptr;
  std::string error;
};

const Module& module() {
  static const Module loaded = [] {
    Module m;
    if (void* library = dlopen("libslip_models.so", RTLD_NOW | RTLD_LOCAL)) {
      m.make = reinterpret_cast<MakeTorchModel*>(dlsym(library, make_torch_model_symbol));
    }
    if (m.make == nullptr) m.error = dlerror();
    return m;
  }();
  return loaded;
}

}  // namespace

std::unique_ptr<Model> make_model(std::string_view name) {
  if (std::ranges::find(names, name) == names.end()) {
    throw Error(Code::invalid_argument, fmt::format("--model: '{}' is unknown; allowed are {}",
                                                    name, fmt::join(names, ", ")));
  }
  if (!have_models()) {
    throw Error(
        Code::not_supported,
        fmt::format("models need LibTorch, which this build lacks ({}); install the package "
                    "libtorch-dev and build again, or take a toy task (none, targets, "
                    "quadratic, consensus)",
                    module().error));
  }
  return std::unique_ptr<Model>(module().make(name));
}

bool have_models() { return module().make != nullptr; }

}  // namespace slip
