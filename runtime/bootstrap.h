#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "slipstream/base/error.h"
#include "slipstream/base/time.h"

namespace slip {

/// How workers find each other: a small store of names that every worker of the world can write and
/// read, and a barrier. Used at set-up and at the end, never on a hot path; one worker's calls come
/// from one thread. Failures throw Error(bootstrap_failed | timeout | peer_lost).
class Bootstrap {
 public:
  virtual ~Bootstrap() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// Which life of this rank this is; the first is 1.
  virtual std::uint16_t incarnation() const { return 1; }
  /// "tcp 127.0.0.1:4000", "local", ...: for `slip info` and messages.
  virtual std::string describe() const = 0;

  /// Publishes a value of this world under a name. A name is written once; its second value is
  /// refused.
  virtual void put(std::string_view name, std::string_view value) = 0;
  /// Waits for the name to be published. Times out after `timeout` with an Error that names it.
  virtual std::string get(std::string_view name, Duration timeout) = 0;
  /// Every worker gives a value and gets those of all, by rank; all call it with the same name,
  /// once. At most 16 MiB together.
  virtual std::vector<std::string> all_gather(std::string_view name, std::string_view value,
                                              Duration timeout);
  /// Returns once every worker has called it as often as this one.
  virtual void fence(Duration timeout) = 0;

  /// This worker gives up: whoever can be told hears why. Its last call; never throws. Workers of
  /// one process learn it from `launch`.
  virtual void fail(std::string_view /*reason*/) {}
};

}  // namespace slip
