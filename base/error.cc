#include "slipstream/base/error.h"

#include <cerrno>
#include <cstring>
#include <utility>

namespace slip {

std::string_view to_string(Code code) {
  switch (code) {
    case Code::ok:
      return "ok";
    case Code::invalid_argument:
      return "invalid_argument";
    case Code::timeout:
      return "timeout";
    case Code::out_of_memory:
      return "out_of_memory";
    case Code::not_supported:
      return "not_supported";
    case Code::not_found:
      return "not_found";
    case Code::io:
      return "io";
    case Code::bad_data:
      return "bad_data";
    case Code::peer_lost:
      return "peer_lost";
    case Code::peer_mismatch:
      return "peer_mismatch";
    case Code::group_broken:
      return "group_broken";
    case Code::aborted:
      return "aborted";
    case Code::bootstrap_failed:
      return "bootstrap_failed";
    case Code::stopped:
      return "stopped";
  }
  return "unknown";
}

Status::Status(Code code, std::string message, int peer)
    : detail_(code == Code::ok ? nullptr
                               : std::make_shared<const Detail>(code, peer, std::move(message))) {}

const std::string& Status::message() const {
  static const std::string none;
  return detail_ ? detail_->message : none;
}

void Status::throw_if_failed() const {
  if (!ok()) throw Error(*this);
}

Error::Error(Status status) : std::runtime_error(status.message()), status_(std::move(status)) {}

Error::Error(Code code, const std::string& message, int peer)
    : Error(Status(code, message, peer)) {}

void throw_errno(const std::string& what) {
  const int error = errno;
  const Code code = error == ENOMEM || error == ENOSPC ? Code::out_of_memory : Code::io;
  throw Error(code, what + ": " + std::strerror(error));
}

}  // namespace slip
