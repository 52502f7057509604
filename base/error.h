#pragma once

#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

namespace slip {

/// What went wrong, grouped by what is damaged. The hundreds digit is the group: 1 this operation
/// (the caller may go on), 2 one peer, 3 the group that was averaging, 4 the whole world.
enum class Code : int {
  ok = 0,
  // Operation.
  invalid_argument = 100,
  timeout = 101,
  out_of_memory = 102,
  not_supported = 103,
  not_found = 104,
  io = 105,
  bad_data = 106,
  // Peer.
  peer_lost = 200,
  peer_mismatch = 201,
  // Group.
  group_broken = 300,
  // World.
  aborted = 400,
  bootstrap_failed = 401,
  stopped = 402,
};

/// The group of a code.
enum class Damage { none = 0, operation = 1, peer = 2, group = 3, world = 4 };

/// What `code` damaged.
constexpr Damage damage(Code code) { return static_cast<Damage>(static_cast<int>(code) / 100); }

/// "peer_lost", "timeout", ...
std::string_view to_string(Code code);

/// The outcome of an operation on a hot path: success is one null pointer, so returning it costs
/// nothing; a failure carries its code, the peer it concerns (-1: none) and a message that says
/// what happened, where, and what to do. Copies share the message.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message, int peer = -1);

  bool ok() const { return detail_ == nullptr; }
  explicit operator bool() const { return ok(); }

  Code code() const { return detail_ ? detail_->code : Code::ok; }
  int peer() const { return detail_ ? detail_->peer : -1; }
  const std::string& message() const;

  /// Throws Error if this is a failure.
  void throw_if_failed() const;

 private:
  struct Detail {
    Code code;
    int peer;
    std::string message;
  };
  std::shared_ptr<const Detail> detail_;
};

/// Thrown at set-up only. `what()` is the one line that a user sees.
class Error : public std::runtime_error {
 public:
  explicit Error(Status status);
  Error(Code code, const std::string& message, int peer = -1);

  Code code() const { return status_.code(); }
  int peer() const { return status_.peer(); }
  const Status& status() const { return status_; }

 private:
  Status status_;
};

/// `what: strerror(errno)` as an Error, for system calls that failed at set-up.
[[noreturn]] void throw_errno(const std::string& what);

}  // namespace slip
