#include "slipstream/tools/slip/gpu_trials.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "slipstream/gpu/device.h"
#include "slipstream/gpu/ipc.h"
#include "slipstream/gpu/memory.h"
#include "slipstream/gpu/rdma.h"
#include "slipstream/runtime/progress.h"
#include "slipstream/transport/staged_transport.h"
#include "slipstream/transport/ucx/ucx_transport.h"
#include "slipstream/transport/verbs/verbs_transport.h"

namespace slip::cli {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t bytes = std::size_t{1} << 20;
constexpr Duration network_limit = 5s;  // within which its ends find each other

std::vector<std::byte> pattern() {
  std::vector<std::byte> data(bytes);
  for (std::size_t i = 0; i < bytes; ++i) data[i] = static_cast<std::byte>(i * 131 + i / 509 + 1);
  return data;
}

void transfer(int device, void* to, const void* from) {
  const gpu::Stream stream(device);
  gpu::copy(to, from, bytes, stream).throw_if_failed();
  stream.synchronize().throw_if_failed();
}

void write(int device, std::byte* memory) {
  const std::vector<std::byte> data = pattern();
  transfer(device, memory, data.data());
}

void check(int device, const std::byte* memory) {
  std::vector<std::byte> found(bytes);
  transfer(device, found.data(), memory);
  if (found != pattern()) throw Error(Code::bad_data, "other bytes came than were sent");
}

std::shared_ptr<std::byte> share_pages() {
  void* const memory =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw_errno("mmap");
  return {static_cast<std::byte*>(memory), [](std::byte* pages) { munmap(pages, bytes); }};
}

/// From one worker to another, as if they were on two hosts. Throws Error.
void carry(int device, std::unique_ptr<NetworkTransport> to,
           std::unique_ptr<NetworkTransport> from) {
  StagedTransport receiver(std::move(to));
  const Region memory = receiver.allocate(bytes + sizeof(Word), Bell::worker, device);
  const auto progress = progress_thread();
  const auto driving = progress->serve(receiver, [] { return false; });
  StagedTransport sender(std::move(from));
  const RemoteRegion there = sender.attach(0, memory.key());
  const Region source = sender.allocate(bytes, Bell::worker, device);
  write(device, source.data());
  sender.put_signal(there, 0, source.data(), bytes, bytes, 1).throw_if_failed();
  const auto deadline = std::chrono::steady_clock::now() + network_limit;
  while (memory.word(bytes) != 1) {
    gpu::current_stream(device).status().throw_if_failed();
    if (std::chrono::steady_clock::now() >= deadline) {
      throw Error(Code::timeout, fmt::format("{}: what was put has not come within {:g} s",
                                             sender.name(), to_seconds(network_limit)));
    }
    sender.drive();
    std::this_thread::sleep_for(20us);
  }
  check(device, memory.data());
}

std::string over_verbs(int device, VerbsOptions options) {
  const auto end = [&](int rank) {
    options.rank = rank;
    return make_verbs_transport(options);
  };
  auto to = end(0);
  const std::string description = to->description();
  const std::string port = description.substr(0, description.find(','));
  const std::string way = verbs_gpu_path(options, device);
  try {
    carry(device, std::move(to), end(1));
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{} by {}: {}; transport ucx goes by way of the host",
                                          port, way, error.what()));
  }
  return fmt::format("verbs: {}: proven by a transfer over {} to itself", way, port);
}

std::string over_ucx(int device, const std::string& why_not_verbs) {
  const auto end = [](int rank) {
    UcxOptions options;
    options.rank = rank;
    options.connect_timeout = network_limit;
    return make_ucx_transport(options);
  };
  carry(device, end(0), end(1));
  return fmt::format(
      "ucx: staged through the host's memory: proven by a transfer to itself (ucx knows no memory "
      "of GPUs here; {})",
      why_not_verbs);
}

/// As transport auto chooses it where all hosts are as this one.
std::string over_network(int device, const std::string& near) {
  VerbsOptions options;
  options.connect_timeout = network_limit;
  options.settings = verbs_settings_from_environment();
  options.nearest = [near] { return near; };
  const std::string why_not = verbs_status(options.settings).unusable;
  return why_not.empty() ? over_verbs(device, options) : over_ucx(device, why_not);
}

}  // namespace

std::string GpuQuestion::packed() const {
  return fmt::format("{}{} {}", static_cast<char>(work), device, text);
}

GpuQuestion GpuQuestion::of(const std::string& packed) {
  return {static_cast<Work>(packed[0]), std::atoi(packed.c_str() + 1),
          packed.substr(packed.find(' ') + 1)};
}

GpuTrials::GpuTrials() : pages_(share_pages()) {}

std::string GpuTrials::answer(const GpuQuestion& question) {
  using Work = GpuQuestion::Work;
  const int device = question.device;
  switch (question.work) {
    case Work::count:
      gpu::usable().throw_if_failed();
      return std::to_string(gpu::device_count());
    case Work::name:
      return gpu::device_name(device);
    case Work::address:
      return gpu::pci_address(device);
    case Work::own:
      return own(device);
    case Work::own_on_host:
      std::memset(pages_.get(), 0, bytes);
      owned_ = gpu::lend(device, pages_.get(), bytes);
      return "";
    case Work::write: {
      gpu::IpcKey key{};
      std::memcpy(&key, question.text.data(), std::min(sizeof key, question.text.size()));
      write(device, gpu::open_ipc(device, key, bytes).get());
      return "";
    }
    case Work::write_on_host:
      write(device, gpu::lend(device, pages_.get(), bytes).get());
      return "";
    case Work::has_access:
      return gpu::has_peer_access(device, std::stoi(question.text)) ? "yes" : "no";
    case Work::check:
      check(device, std::exchange(owned_, nullptr).get());
      return "";
    case Work::network:
      return over_network(device, question.text);
  }
  return "";
}

std::string GpuTrials::own(int device) {
  owned_ = gpu::allocate(device, bytes);
  std::string why;
  const auto key = gpu::ipc_key(device, owned_.get(), &why);
  if (!key) throw Error(Code::not_supported, why);
  return {reinterpret_cast<const char*>(&*key), sizeof *key};
}

}  // namespace slip::cli
