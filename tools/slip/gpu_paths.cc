#include "slipstream/tools/slip/gpu_paths.h"

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <utility>

#include "slipstream/gpu/device.h"
#include "slipstream/gpu/ipc.h"
#include "slipstream/gpu/memory.h"
#include "slipstream/gpu/rdma.h"
#include "slipstream/transport/ucx/ucx_transport.h"
#include "slipstream/transport/verbs/verbs_transport.h"

namespace slip::cli {
namespace {

constexpr std::size_t bytes = std::size_t{1} << 20;

/// What one process tells another, in pieces of one size.
struct Note {
  gpu::IpcKey key{};
  char name[64] = "";
  char text[1024] = "";
};

void say(char* to, std::size_t room, const std::string& text) {
  std::memcpy(to, text.data(), std::min(text.size(), room - 1));
}

class Pipe {
 public:
  Pipe() {
    if (pipe(ends_) != 0) throw_errno("pipe");
  }
  ~Pipe() { close_all(); }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;

  bool receive(Note* note) const { return read(ends_[0], note, sizeof *note) == sizeof *note; }
  void send(const Note& note) const {
    [[maybe_unused]] const auto sent = write(ends_[1], &note, sizeof note);
  }
  void only_receive() { close_end(1); }
  void only_send() { close_end(0); }
  void close_all() {
    close_end(0);
    close_end(1);
  }

 private:
  void close_end(int end) {
    if (ends_[end] >= 0) close(std::exchange(ends_[end], -1));
  }
  int ends_[2] = {-1, -1};
};

pid_t start(const std::function<void()>& work) {
  const pid_t child = fork();
  if (child < 0) throw_errno("fork");
  if (child > 0) return child;
  try {
    work();
  } catch (const Error&) {
    _exit(1);
  }
  _exit(0);
}

std::vector<std::byte> pattern(int device) {
  std::vector<std::byte> data(bytes);
  for (std::size_t i = 0; i < bytes; ++i) {
    data[i] = static_cast<std::byte>(i * 131 + static_cast<std::size_t>(device) + 1);
  }
  return data;
}

/// "" if it worked.
std::string error_of(const std::function<void()>& work) {
  try {
    work();
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

void transfer(int device, void* to, const void* from) {
  const gpu::Stream stream(device);
  gpu::copy(to, from, bytes, stream).throw_if_failed();
  stream.synchronize().throw_if_failed();
}

bool holds(int device, const std::byte* memory) {
  std::vector<std::byte> found(bytes);
  transfer(device, found.data(), memory);
  return found == pattern(device);
}

std::string place_of(int device, const Machine& machine) {
  const std::string address = gpu::pci_address(device);
  const auto known = std::find_if(machine.gpus.begin(), machine.gpus.end(), [&](const Gpu& gpu) {
    return address.ends_with(gpu.name) || gpu.name.ends_with(address);
  });
  std::string text = fmt::format("{}, {}", gpu::device_name(device), address);
  if (known == machine.gpus.end()) return text;
  const std::vector<int> nearest = machine.nearest_rails(known->place);
  if (nearest.empty()) return text + ", no NIC near it";
  const Nic& nic = machine.nics[static_cast<std::size_t>(nearest.front())];
  const Distance far = distance(known->place, nic.place);
  text += fmt::format(", nearest NIC {} ({})", nic.name, to_string(far));
  return far >= Distance::package ? text + ": on another socket, which costs bandwidth" : text;
}

/// To other hosts; the memory's staging is tried, too.
std::string network_path(int device) {
  const VerbsSettings settings = verbs_settings_from_environment();
  const VerbsStatus verbs = verbs_status(settings);
  if (verbs.unusable.empty()) return "verbs: " + verbs_gpu_path(settings, device);
  const std::string error = error_of([&] {
    const auto pinned = gpu::allocate_pinned(device, bytes);
    const auto memory = gpu::allocate(device, bytes);
    const std::vector<std::byte> data = pattern(device);
    std::copy(data.begin(), data.end(), pinned.get());
    transfer(device, memory.get(), pinned.get());
    if (!holds(device, memory.get())) throw Error(Code::bad_data, "other bytes came back");
  });
  if (!error.empty()) return "none: " + error;
  if (!ucx_unavailable().empty()) return "none: neither verbs nor ucx";
  return "ucx: staged through the host's memory, proven (ucx knows no memory of GPUs here; "
         "verbs: " +
         verbs.unusable + ")";
}

/// Owns memory, has the other process write it, and reports.
void own(const Machine& machine, const Pipe& to_writer, const Pipe& from_writer,
         const Pipe& report) {
  const auto tell = [&](const std::string& name, const std::string& text) {
    Note note;
    say(note.name, sizeof note.name, name);
    say(note.text, sizeof note.text, text);
    report.send(note);
  };
  if (const Status s = gpu::usable(); !s) return tell("", s.message());
  for (int device = 0; device < gpu::device_count(); ++device) {
    tell(fmt::format("GPU {}", device), place_of(device, machine));
    const std::string error = error_of([&] {
      const auto memory = gpu::allocate(device, bytes);
      Note note;
      note.key = gpu::ipc_key(device, memory.get());
      to_writer.send(note);
      if (!from_writer.receive(&note)) throw Error(Code::io, "the other process has ended");
      if (note.text[0] != 0) throw Error(Code::io, note.text);
      if (!holds(device, memory.get())) throw Error(Code::bad_data, "other bytes came back");
    });
    tell("  same host",
         error.empty() ? "cuda_ipc: proven by a transfer between two processes" : "none: " + error);
    tell("  other hosts", network_path(device));
  }
}

/// Writes memory of the process that owns it, of each GPU in turn.
void serve(const Pipe& from_owner, const Pipe& to_owner) {
  Note note;
  for (int device = 0; from_owner.receive(&note); ++device) {
    const std::string error = error_of([&] {
      const auto memory = gpu::open_ipc(device, note.key, bytes);
      const std::vector<std::byte> data = pattern(device);
      transfer(device, memory.get(), data.data());
    });
    Note answer;
    say(answer.text, sizeof answer.text, error);
    to_owner.send(answer);
  }
}

}  // namespace

GpuPaths try_gpu_paths(const Machine& machine) {
  Pipe to_writer, from_writer, report;
  const pid_t writer = start([&] {
    to_writer.only_receive();
    from_writer.only_send();
    serve(to_writer, from_writer);
  });
  const pid_t owner = start([&] {
    to_writer.only_send();
    from_writer.only_receive();
    own(machine, to_writer, from_writer, report);
  });
  to_writer.close_all();
  from_writer.close_all();
  report.only_receive();
  GpuPaths paths;
  for (Note note; report.receive(&note); note = {}) {
    if (note.name[0] == 0) {
      paths.unusable = note.text;
    } else {
      paths.lines.emplace_back(note.name, note.text);
    }
  }
  for (const pid_t child : {owner, writer}) waitpid(child, nullptr, 0);
  return paths;
}

}  // namespace slip::cli
