#include "slipstream/runtime/tcp_bootstrap.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <initializer_list>
#include <thread>
#include <type_traits>
#include <utility>

#include "slipstream/runtime/log_internal.h"
#include "slipstream/runtime/rendezvous_wire_internal.h"
#include "slipstream/runtime/secret_internal.h"
#include "slipstream/runtime/socket_internal.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
namespace wire = rendezvous_wire;
using wire::Kind;

// The server times requests out, and knows why; this much later, it is the server that does not
// answer. Generous, since its host may be busy: one that has ended shows at once. As long may it
// take to hear a failure.
constexpr Duration server_slack = 20s;
constexpr Duration first_pause = 10ms;
constexpr Duration longest_pause = 500ms;
// Who has had no answer for this part of its time says so, once.
constexpr int complaint_after = 6;

void check(const TcpBootstrap::Options& options) {
  const auto require = [](bool holds, const std::string& message) {
    if (!holds) throw Error(Code::invalid_argument, message);
  };
  require(options.size >= 1, fmt::format("a world of {} workers; at least 1", options.size));
  require(options.rank >= 0 && options.rank < options.size,
          fmt::format("rank {} of {} workers; ranks are 0 to {}", options.rank, options.size,
                      options.size - 1));
  require(!options.host.empty(), "the rendezvous has no host; give HOST:PORT");
  require(options.port >= (options.serve ? 0 : 1) && options.port <= 65535,
          fmt::format("rendezvous port {}; 1 to 65535 are allowed", options.port));
  require(options.incarnation >= 1, "incarnations start at 1");
  require(!options.serve || options.rank == 0, "only rank 0 can serve the rendezvous");
}

std::optional<int> parse_int(std::string_view text, int low, int high) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  if (value < low || value > high) return std::nullopt;
  return value;
}

/// The first of the names that is set; Slipstream's own comes first.
int environment_int(std::initializer_list<const char*> names, int low, int high) {
  const char* name = *std::find_if(names.begin(), names.end() - 1,
                                   [](const char* one) { return std::getenv(one) != nullptr; });
  const char* text = std::getenv(name);
  if (text == nullptr) {
    throw Error(
        Code::invalid_argument,
        fmt::format("SLIP_RENDEZVOUS is set, but {} is not; set both or neither", *names.begin()));
  }
  const auto value = parse_int(text, low, high);
  if (!value) {
    throw Error(Code::invalid_argument,
                fmt::format("{} is '{}'; allowed are {} to {}", name, text, low, high));
  }
  return *value;
}

void check_name(std::string_view name) {
  if (name.empty() || name.size() > wire::max_name_bytes) {
    throw Error(Code::bootstrap_failed,
                fmt::format("'{}' is a name of {} bytes; 1 to {} are allowed", printable(name),
                            name.size(), wire::max_name_bytes));
  }
}

}  // namespace

/// The connection to the server.
class __attribute__((visibility("hidden"))) TcpBootstrap::Wire {
 public:
  explicit Wire(const Options& options)
      : options_(options), where_(endpoint_name(options.host, options.port)) {
    join();
  }

  const std::string& where() const { return where_; }

  /// Asks, and returns what was answered.
  std::string request(const wire::Request& request) {
    failure_.throw_if_failed();
    const Time deadline = deadline_after(
        request.timeout > never - server_slack ? never : request.timeout + server_slack);
    // A server that has told us of a loss may be gone: what it said still counts, so read anyhow.
    send(wire::encode(request), deadline);
    if (const Got got = receive_frame(deadline); got != Got::frame) {
      failure_ = got == Got::end ? server_is_gone() : server_is_silent(request.timeout);
      failure_.throw_if_failed();
    }
    const wire::Answer answer = decode([&] { return wire::decode_answer(frame_); });
    if (answer.kind == Kind::lost) failure_ = located(answer.status);
    located(answer.status).throw_if_failed();
    return std::string(answer.value);
  }

  std::vector<std::string> gather(const wire::Request& request) {
    const std::string answer = this->request(request);
    auto values = decode([&] { return wire::decode_values(answer); });
    if (values.size() == static_cast<std::size_t>(options_.size)) return values;
    throw Error(Code::bad_data, fmt::format("rendezvous {}: {} values of {} workers", where_,
                                            values.size(), options_.size));
  }

  void goodbye() {
    if (failure_.ok()) send(wire::encode(wire::Request{Kind::goodbye}), deadline_after(1s));
  }

  void fail(std::string_view reason) {
    if (!failure_.ok()) return;
    const Time deadline = deadline_after(server_slack);
    send(wire::encode({Kind::failed, {}, {}, reason}), deadline);
    try {
      receive_frame(deadline);  // the loss that everybody is told of now
    } catch (const Error&) {
      // Nobody is there to be told.
    }
    failure_ = Status(Code::aborted, std::string(reason), options_.rank);
  }

 private:
  enum class Got { frame, end, nothing };

  void join() {
    const Time deadline = deadline_after(options_.timeout);
    complaint_ = deadline_after(options_.timeout / complaint_after);
    for (Duration pause = first_pause;; pause = std::min(2 * pause, longest_pause)) {
      const std::string failure = try_to_join(deadline);
      if (failure.empty()) return;
      const Duration left = deadline - steady_now();
      if (left > Duration(0)) std::this_thread::sleep_for(std::min(pause, left));
      const Time now = steady_now();
      if (now >= complaint_) complain(failure);
      // Without a last attempt, which could only fail for want of time and hide this reason.
      if (now >= deadline) {
        throw Error(Code::timeout,
                    fmt::format("rendezvous {}: nobody answered within {:g} s ({}); start rank 0 "
                                "there, or check host, port and firewall",
                                where_, to_seconds(options_.timeout), failure));
      }
    }
  }

  void complain(const std::string& failure) {
    complaint_ = never;
    log()->info("rendezvous {}: rank {} still waits for an answer ({}), {:g} s in all", where_,
                options_.rank, failure, to_seconds(options_.timeout));
  }

  /// Empty, or why it did not work this time; throws where trying again would not help.
  std::string try_to_join(Time deadline) {
    ConnectAttempt attempt = connect_to(options_.host, options_.port, deadline);
    if (!attempt.socket) return attempt.failure;
    socket_ = std::move(attempt.socket);
    in_.clear();
    frame_ = {};
    const std::string hello =
        wire::encode(wire::Hello{options_.rank, options_.size, options_.incarnation});
    send(hello, deadline);
    while (in_.size() < wire::preamble_bytes) {
      const Got got = receive(std::min(deadline, complaint_));
      if (got == Got::nothing && steady_now() < deadline) {
        complain(silence(got));
      } else if (got != Got::frame) {
        return silence(got);
      }
    }
    const auto version = decode([&] { return wire::decode_preamble(in_); });
    if (version != wire::version) {
      throw Error(Code::bootstrap_failed,
                  fmt::format("rendezvous {}: it speaks wire version {} and rank {} version {}; "
                              "install the same Slipstream everywhere",
                              where_, version, options_.rank, wire::version));
    }
    in_.erase(0, wire::preamble_bytes);
    if (const Got got = receive_frame(deadline); got != Got::frame) return silence(got);
    const std::string challenge = decode([&] { return wire::decode_challenge(frame_); });
    const std::string nonce = new_nonce();
    const std::string& secret = options_.secret;
    send(wire::encode(wire::Proof{nonce, wire::worker_proof(secret, challenge, nonce, hello)}),
         deadline);
    if (const Got got = receive_frame(deadline); got != Got::frame) return silence(got);
    const wire::Answer answer = decode([&] { return wire::decode_answer(frame_); });
    located(answer.status).throw_if_failed();
    const wire::Welcome welcome = decode([&] { return wire::decode_welcome(answer.value); });
    if (!is_same_proof(welcome.proof, wire::rendezvous_proof(secret, challenge, nonce))) {
      throw Error(Code::bootstrap_failed,
                  fmt::format("rendezvous {}: it let rank {} in without knowing its secret; check "
                              "host, port and SLIP_SECRET",
                              where_, options_.rank));
    }
    served_by_ = welcome.served_by;
    return "";
  }

  static std::string silence(Got got) {
    return got == Got::end ? "a connection was closed without an answer"
                           : "a connection was accepted but not answered";
  }

  void send(std::string_view bytes, Time deadline) {
    while (!bytes.empty()) {
      const ssize_t count = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (count > 0) {
        bytes.remove_prefix(static_cast<std::size_t>(count));
      } else if (errno != EINTR) {
        // A broken connection shows when the answer is read.
        if (errno != EAGAIN || !wait_ready(socket_.get(), POLLOUT, deadline)) return;
      }
    }
  }

  Got receive(Time deadline) {
    std::array<char, 65536> buffer;
    for (;;) {
      const ssize_t count = recv(socket_.get(), buffer.data(), buffer.size(), 0);
      if (count > 0) {
        in_.append(buffer.data(), static_cast<std::size_t>(count));
        return Got::frame;
      }
      if (count < 0 && errno == EINTR) continue;
      if (count == 0 || errno != EAGAIN) return Got::end;
      if (!wait_ready(socket_.get(), POLLIN, deadline)) return Got::nothing;
    }
  }

  /// Reads until `frame_` is the next frame; it lives until the next call.
  Got receive_frame(Time deadline) {
    in_.erase(0, frame_.bytes);
    frame_ = {};
    for (;;) {
      if (const auto frame = decode([&] { return wire::first_frame(in_); })) {
        frame_ = *frame;
        return Got::frame;
      }
      if (const Got got = receive(deadline); got != Got::frame) return got;
    }
  }

  /// What comes from something that is no rendezvous of ours is that, and not a mere decoding
  /// error.
  template <class Read>
  std::invoke_result_t<Read> decode(Read read) {
    try {
      return read();
    } catch (const Error& error) {
      failure_ = Status(Code::bootstrap_failed,
                        fmt::format("rendezvous {}: what answers there is no rendezvous ({}); "
                                    "check host and port",
                                    where_, error.what()));
      throw Error(failure_);
    }
  }

  Status located(const Status& status) const {
    if (status.ok()) return status;
    const int peer = status.peer() >= 0 && status.peer() < options_.size ? status.peer() : -1;
    return Status(status.code(), fmt::format("rendezvous {}: {}", where_, status.message()), peer);
  }

  Status server_is_gone() const {
    if (served_by_ < 0 || served_by_ >= options_.size) {
      return Status(Code::bootstrap_failed,
                    fmt::format("rendezvous {}: the launcher, which serves it, is gone", where_));
    }
    return Status(Code::peer_lost,
                  fmt::format("rendezvous {}: rank {}, which serves it, is gone; see its output",
                              where_, served_by_),
                  served_by_);
  }

  Status server_is_silent(Duration timeout) const {
    return Status(Code::timeout,
                  fmt::format("rendezvous {}: no answer within {:g} s; is its host alive and not "
                              "overloaded?",
                              where_, to_seconds(timeout + server_slack)));
  }

  const Options options_;
  const std::string where_;
  FileDescriptor socket_;
  std::string in_;
  wire::Frame frame_{};  // a view of the front of in_
  int served_by_ = -1;
  Time complaint_ = never;  // of a worker that joins
  Status failure_;          // every later call fails in the same way
};

Endpoint parse_endpoint(std::string_view text) {
  if (const std::size_t colon = text.rfind(':'); colon != std::string_view::npos) {
    std::string_view host = text.substr(0, colon);
    const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
    if (bracketed) host = host.substr(1, host.size() - 2);
    const bool good_host =
        !host.empty() && host.find_first_of(bracketed ? "[]" : ":[]") == host.npos;
    const auto port = parse_int(text.substr(colon + 1), 1, 65535);
    if (good_host && port) return {std::string(host), *port};
  }
  throw Error(Code::invalid_argument,
              fmt::format("'{}' is not HOST:PORT; e.g. 10.0.0.1:4000, node7:4000 or [::1]:4000",
                          printable(text)));
}

TcpBootstrap::TcpBootstrap(const Options& options)
    : options_(options), exceptions_at_start_(std::uncaught_exceptions()) {
  check(options_);
  if (options_.serve) {
    try {
      server_ = std::make_unique<RendezvousServer>(options_.host, options_.port, options_.size, 0,
                                                   options_.secret);
    } catch (const Error& error) {
      throw Error(error.code(), fmt::format("rank 0: {}", error.what()), 0);
    }
    options_.port = server_->port();
  }
  wire_ = std::make_unique<Wire>(options_);
}

TcpBootstrap::~TcpBootstrap() {
  if (std::uncaught_exceptions() > exceptions_at_start_) return;
  wire_->goodbye();
  wire_.reset();
  if (server_ && server_->failure().ok()) server_->wait_until_empty(options_.timeout);
}

std::string TcpBootstrap::describe() const { return "tcp " + wire_->where(); }

void TcpBootstrap::put(std::string_view name, std::string_view value) {
  check_name(name);
  check_value(name, value);
  wire_->request({Kind::put, options_.timeout, name, value});
}

void TcpBootstrap::check_value(std::string_view name, std::string_view value) const {
  if (value.size() <= wire::max_value_bytes) return;
  throw Error(Code::bootstrap_failed,
              fmt::format("rank {} publishes '{}' with {} bytes; at most {} are allowed", rank(),
                          printable(name), value.size(), wire::max_value_bytes));
}

std::string TcpBootstrap::get(std::string_view name, Duration timeout) {
  check_name(name);
  return wire_->request({Kind::get, std::max(timeout, Duration(0)), name});
}

std::vector<std::string> TcpBootstrap::all_gather(std::string_view name, std::string_view value,
                                                  Duration timeout) {
  check_name(name);
  check_value(name, value);
  return wire_->gather({Kind::gather, std::max(timeout, Duration(0)), name, value});
}

void TcpBootstrap::fence(Duration timeout) {
  wire_->request({Kind::fence, std::max(timeout, Duration(0))});
}

void TcpBootstrap::fail(std::string_view reason) {
  wire_->fail(reason.substr(0, wire::max_reason_bytes));
}

std::optional<TcpBootstrap::Options> tcp_options_from_environment() {
  const char* rendezvous = std::getenv("SLIP_RENDEZVOUS");
  if (rendezvous == nullptr) return std::nullopt;
  const char* server = std::getenv("SLIP_RENDEZVOUS_SERVER");
  const std::string_view served_by = server == nullptr ? "rank0" : server;
  if (served_by != "rank0" && served_by != "launcher") {
    throw Error(Code::invalid_argument,
                fmt::format("SLIP_RENDEZVOUS_SERVER is '{}'; allowed are rank0 and launcher",
                            printable(served_by)));
  }
  Endpoint endpoint;
  try {
    endpoint = parse_endpoint(rendezvous);
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("SLIP_RENDEZVOUS: {}", error.what()));
  }
  TcpBootstrap::Options options;
  options.host = endpoint.host;
  options.port = endpoint.port;
  // srun tells its tasks how many they are; a user who gives a rendezvous need not say it again.
  options.size = environment_int({"SLIP_SIZE", "SLURM_STEP_NUM_TASKS"}, 1, 1 << 20);
  options.rank = environment_int({"SLIP_RANK", "SLURM_PROCID"}, 0, options.size - 1);
  if (const char* secret = std::getenv("SLIP_SECRET")) options.secret = secret;
  options.serve = served_by == "rank0" && options.rank == 0;
  return options;
}

}  // namespace slip
