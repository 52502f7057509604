#pragma once

#include <poll.h>

#include <array>
#include <cstddef>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "slipstream/base/time.h"
#include "slipstream/runtime/posix_internal.h"

#pragma GCC visibility push(hidden)

namespace slip {

/// Copies what workers write to our own standard output and error, line by line, each with its
/// worker's prefix. What has not been read yet waits in bounded memory, so that a slow reader slows
/// the workers down, and never the caller: it polls.
class LineRelay {
 public:
  /// The descriptor for a child to write to, for our standard output (1) or error (2).
  FileDescriptor add(const std::string& prefix, int target);

  /// Appends what to poll for now.
  void add_to(std::vector<pollfd>& entries) const;
  /// Moves what the entries say is ready. They are those of add_to().
  void handle(const std::vector<pollfd>& entries);

  /// Ends sources that are still open, once what has been written to them by now is read.
  void end_sources();
  /// Gives up everything, as if nobody read our output any more.
  void discard();
  bool has_sources() const { return !sources_.empty(); }
  /// Nothing is left to write.
  bool flushed() const;
  /// Our standard output or error can no longer be written.
  bool broken() const;

 private:
  struct Source {
    FileDescriptor fd;
    std::string prefix;
    std::size_t sink;
    std::string line{};                                          // begun, not ended
    std::size_t left = std::numeric_limits<std::size_t>::max();  // bytes to read before its end
  };

  struct Sink {
    int fd;
    std::string pending{};
    bool broken = false;
  };

  /// False at the end of the source.
  bool read_from(Source& source);
  void end(Source& source);
  void emit_line(Source& source);
  static void write_to(Sink& sink);

  std::vector<std::unique_ptr<Source>> sources_;
  std::array<Sink, 2> sinks_{Sink{1}, Sink{2}};
};

}  // namespace slip

#pragma GCC visibility pop
