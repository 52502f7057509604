#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "slipstream/gpu/device.h"
#include "slipstream/gpu/memory.h"
#include "slipstream/gpu/stream.h"

namespace slip::gpu {
namespace {

using ::testing::ExitedWithCode;
using ::testing::HasSubstr;

/// Runs `body` in a process whose driver is the fake one, with these settings; it is a failure that
/// the body throws. What is printed last must match `expected`.
template <class Body>
void with_driver(const std::vector<std::pair<std::string, std::string>>& settings, Body body,
                 const std::string& expected = "done") {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        setenv("SLIP_CUDA_LIBRARY", SLIP_FAKE_CUDA, 0);
        for (const auto& [name, value] : settings) setenv(name.c_str(), value.c_str(), 1);
        try {
          body();
          std::fputs("done", stderr);
        } catch (const Error& error) {
          std::fputs(error.what(), stderr);
        }
        std::fflush(nullptr);
        _exit(0);
      },
      ExitedWithCode(0), HasSubstr(expected));
}

/// Ends the process where `what` does not hold.
void demand(bool what, const char* message) {
  if (what) return;
  std::fprintf(stderr, "not so: %s\n", message);
  std::fflush(nullptr);
  _exit(1);
}

#define DEMAND(condition) demand(condition, #condition)

TEST(Gpu, CopiesGoThroughTheStreamInOrder) {
  with_driver({{"FAKE_CUDA_DELAY_US", "2000"}}, [] {
    const Stream stream(0);
    const auto a = allocate(0, 4000), b = allocate(0, 4000);
    const auto pinned = allocate_pinned(0, 4000);
    std::memset(pinned.get(), 7, 4000);
    DEMAND(copy(a.get(), pinned.get(), 4000, stream).ok());
    DEMAND(copy(b.get(), a.get(), 4000, stream).ok());
    DEMAND(copy(pinned.get() + 2000, b.get() + 1, 1, stream).ok());
    DEMAND(stream.synchronize().ok());
    std::vector<unsigned char> back(4000);
    DEMAND(copy(back.data(), b.get(), 4000, stream).ok());
    DEMAND(std::accumulate(back.begin(), back.end(), 0) == 7 * 4000);
  });
}

TEST(Gpu, MemoryOfTheGpuIsZeroedAndKnownAsItsOwn) {
  with_driver({{"FAKE_CUDA_DEVICES", "2"}}, [] {
    const auto memory = allocate(1, 999);
    const auto pinned = allocate_pinned(1, 10);
    int local = 0;
    DEMAND(device_of(memory.get()) == 1 && device_of(memory.get() + 998) == 1);
    DEMAND(device_of(pinned.get()) == host && device_of(&local) == host);
    std::vector<unsigned char> back(999, 1);
    DEMAND(copy(back.data(), memory.get(), 999, Stream(1, nullptr)).ok());
    DEMAND(std::accumulate(back.begin(), back.end(), 0) == 0);
    DEMAND(device_count() == 2 && device_name(1) == "Fake GPU 1");
  });
}

TEST(Gpu, EventsOrderTwoStreams) {
  with_driver({{"FAKE_CUDA_DELAY_US", "3000"}}, [] {
    for (int round = 0; round < 20; ++round) {
      const Stream first(0), second(0);
      std::atomic<int> value{0};
      int seen = -1;
      Event event(0);
      DEMAND(event.done());
      struct Read {
        std::atomic<int>* value;
        int* seen;
      } read{&value, &seen};
      DEMAND(first.then([](void* v) { *static_cast<std::atomic<int>*>(v) = 1; }, &value).ok());
      DEMAND(event.record(first).ok());
      DEMAND(second.wait_for(event).ok());
      DEMAND(
          second
              .then([](void* r) { *static_cast<Read*>(r)->seen = *static_cast<Read*>(r)->value; },
                    &read)
              .ok());
      DEMAND(second.synchronize().ok());
      DEMAND(seen == 1 && event.done());
    }
  });
}

TEST(Gpu, TheCurrentStreamIsTheThreadsOwnAndOfItsGpu) {
  with_driver({{"FAKE_CUDA_DEVICES", "2"}}, [] {
    const Stream outer(0), inner(0);
    DEMAND(current_stream(0).handle() == nullptr);
    const CurrentStream bound(outer);
    {
      const CurrentStream within(inner);
      DEMAND(current_stream(0).handle() == inner.handle());
    }
    DEMAND(current_stream(0).handle() == outer.handle());
    DEMAND(current_stream(1).handle() == nullptr);
    std::thread([] { DEMAND(current_stream(0).handle() == nullptr); }).join();
  });
}

TEST(Gpu, AProcessWithoutADriverIsToldWhatToInstall) {
  with_driver(
      {{"SLIP_CUDA_LIBRARY", "/nowhere/libcuda.so.1"}},
      [] {
        DEMAND(device_count() == 0);
        int local = 0;
        DEMAND(device_of(&local) == host);
        const Stream stream(0);
      },
      "install NVIDIA's driver");
}

TEST(Gpu, ADriverThatIsTooOldIsToldToBe) {
  with_driver(
      {{"FAKE_CUDA_VERSION", "11040"}}, [] { usable().throw_if_failed(); },
      "NVIDIA's driver is too old: it serves CUDA 11.4, and this was built with CUDA");
}

TEST(Gpu, WhereNoGpuIsHereItSaysSo) {
  with_driver(
      {{"FAKE_CUDA_DEVICES", "0"}}, [] { allocate(0, 1); }, "no GPU is here");
}

TEST(Gpu, AnIndexBeyondTheLastGpuIsNamedWithHowManyThereAre) {
  with_driver(
      {{"FAKE_CUDA_DEVICES", "2"}}, [] { allocate(2, 1); },
      "GPU 2 is not here: this process sees 2");
  with_driver(
      {}, [] { const Stream stream(-1); }, "GPU -1 is not here");
}

TEST(Gpu, TooLittleMemorySaysHowMuchIsFree) {
  with_driver(
      {{"FAKE_CUDA_MEMORY", "5000000"}},
      [] {
        const auto first = allocate(0, 2'000'000);
        allocate(0, 4'000'000);
      },
      "GPU 0: allocating 4000000 bytes: out of memory, 3 of 5 MB are free; put fewer workers");
}

TEST(Gpu, ADeviceAddressIsOutOfTheHostsReach) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        setenv("SLIP_CUDA_LIBRARY", SLIP_FAKE_CUDA, 0);
        *allocate(0, 1) = std::byte{1};
      },
      "");
}

}  // namespace
}  // namespace slip::gpu
