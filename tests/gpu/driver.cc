#include <cstdlib>

namespace {

// Before main: the driver is chosen when it is first asked for.
[[maybe_unused]] const bool chosen = [] {
  if (std::getenv("SLIP_TEST_GPU") == nullptr) setenv("SLIP_CUDA_LIBRARY", SLIP_FAKE_CUDA, 0);
  return true;
}();

}  // namespace
