#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace slip::cli {

/// What is asked of a process that has GPUs.
struct GpuQuestion {
  enum class Work : char {
    count,          // how many there are
    name,           // of that GPU
    address,        // on the PCI bus
    own,            // memory of it from now on: the key by which other processes find that
    own_on_host,    // the same on pages of the host that the processes share
    write,          // another process's memory: `text` is its key
    write_on_host,  // those pages
    has_access,     // whether it reaches memory of GPU `text`: "yes", "no"
    check,          // that what is owned has been written
    network,        // from memory of it to memory of it by a network, and which: near NIC `text`
  } work;
  int device = 0;
  std::string text = {};

  std::string packed() const;
  /// Of what `packed` has returned.
  static GpuQuestion of(const std::string& packed);
};

/// Does what is asked, in a process of its own (Respondent).
class GpuTrials {
 public:
  /// Processes that are forked afterwards share pages of the host. Throws Error.
  GpuTrials();

  /// Throws Error where it does not work; not_supported where a GPU does not share its memory.
  std::string answer(const GpuQuestion& question);

 private:
  std::string own(int device);

  const std::shared_ptr<std::byte> pages_;
  std::shared_ptr<std::byte> owned_;
};

}  // namespace slip::cli
