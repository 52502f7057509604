#include "slipstream/runtime/rendezvous_server.h"

#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "slipstream/runtime/log_internal.h"
#include "slipstream/runtime/posix_internal.h"
#include "slipstream/runtime/rendezvous_book_internal.h"
#include "slipstream/runtime/rendezvous_wire_internal.h"
#include "slipstream/runtime/secret_internal.h"
#include "slipstream/runtime/socket_internal.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
namespace wire = rendezvous_wire;

constexpr int max_world_size = 1 << 20;
// Strangers may not use up our descriptors: few at a time, and none for long.
constexpr std::size_t max_strangers = 256;
constexpr Duration hello_timeout = 10s;

constexpr std::uint64_t listener_id = 0;
constexpr std::uint64_t wake_id = 1;

struct Connection {
  FileDescriptor socket;
  std::string address;
  Time hello_deadline;
  int rank = -1;            // until it is accepted
  std::string hello{};      // as it came
  std::string challenge{};  // what it must answer
  std::string in{};
  std::string out{};
  std::size_t sent = 0;  // of `out`
  bool closing = false;  // once `out` is sent
};

// The thread must not take the signals of the program that we are a guest in.
std::thread start_without_signals(auto run) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread thread(run);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return thread;
}

}  // namespace

class __attribute__((visibility("hidden"))) RendezvousServer::Impl {
 public:
  Impl(const std::string& address, int port, int size, int served_by, std::string secret)
      : size_(size),
        served_by_(served_by),
        secret_(std::move(secret)),
        listener_(listen_on(address, port)),
        port_(port_of(listener_)),
        name_(endpoint_name(address, port_)),
        book_(size,
              [this](int rank, std::string frame) {
                Connection& connection = connections_.at(connection_of_rank_[rank]);
                connection.out += frame;
                outgoing_.push_back(connection_of_rank_[rank]);
              }),
        connection_of_rank_(static_cast<std::size_t>(size)) {
    watch(EPOLL_CTL_ADD, listener_.get(), EPOLLIN, listener_id);
    watch(EPOLL_CTL_ADD, wake_.get(), EPOLLIN, wake_id);
    thread_ = start_without_signals([this] { run(); });
  }

  ~Impl() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake();
    thread_.join();
  }

  int port() const { return port_; }

  void report_lost(int rank, const std::string& message) {
    if (rank < 0 || rank >= size_) return;
    {
      const std::lock_guard lock(mutex_);
      reports_.emplace_back(rank, message);
    }
    wake();
  }

  Status failure() const {
    const std::lock_guard lock(mutex_);
    return failure_;
  }

  bool wait_until_empty(Duration timeout) {
    std::unique_lock lock(mutex_);
    const auto empty = [this] { return connected_ == 0; };
    return changed_.wait_for(lock, std::min<Duration>(timeout, 24h), empty);
  }

 private:
  void run() {
    try {
      serve();
    } catch (const std::exception& error) {
      log()->error("rendezvous {}: ended: {}", name_, error.what());
    }
    connections_.clear();
  }

  void serve() {
    while (take_orders()) {
      handle_events(poll_milliseconds(next_deadline()));
      expire(steady_now());
      publish();  // before the answers, so that whoever has one finds it true here, too
      send_outgoing();
      publish();
    }
  }

  int handle_events(int milliseconds) {
    std::array<epoll_event, 64> events;
    const int count = epoll_wait(epoll_.get(), events.data(), events.size(), milliseconds);
    for (int i = 0; i < count; ++i) handle(events[i]);
    return count;
  }

  // What other threads asked for; false to stop.
  bool take_orders() {
    std::vector<std::pair<int, std::string>> reports;
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) return false;
      reports.swap(reports_);
    }
    // What workers still said of themselves, and who left before, go before what others say.
    if (!reports.empty()) {
      for (int left = 16; left > 0 && handle_events(0) > 0; --left) send_outgoing();
    }
    for (const auto& [rank, message] : reports) book_.lose(rank, message);
    publish();
    send_outgoing();
    return true;
  }

  void publish() {
    const std::lock_guard lock(mutex_);
    if (failure_.ok()) failure_ = book_.failure();  // all are told
    connected_ = book_.connected();
    if (connected_ == 0) changed_.notify_all();
  }

  void handle(const epoll_event& event) {
    if (event.data.u64 == listener_id) return accept_all();
    if (event.data.u64 == wake_id) {
      std::uint64_t count;
      [[maybe_unused]] const auto bytes = read(wake_.get(), &count, sizeof count);
      return;
    }
    const auto found = connections_.find(event.data.u64);
    if (found == connections_.end()) return;
    try {
      Connection& connection = found->second;
      if (event.events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(event.data.u64, connection);
      if (event.events & EPOLLOUT) outgoing_.push_back(event.data.u64);
    } catch (const std::exception& error) {
      drop(event.data.u64, error.what());
    }
  }

  void accept_all() {
    for (;;) {
      sockaddr_storage address{};
      socklen_t length = sizeof address;
      auto* const any = reinterpret_cast<sockaddr*>(&address);
      FileDescriptor socket(accept4(listener_.get(), any, &length, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (!socket) {
        // Out of descriptors: the caller stays in the queue, and we must not spin meanwhile.
        if (errno == EMFILE || errno == ENFILE) std::this_thread::sleep_for(10ms);
        return;
      }
      if (connections_.size() - book_.connected() >= max_strangers) continue;
      try {
        set_stream_options(socket);
        const std::uint64_t id = next_id_++;
        watch(EPOLL_CTL_ADD, socket.get(), EPOLLIN, id);
        connections_.emplace(id, Connection{std::move(socket), peer_name(any, length),
                                            deadline_after(hello_timeout)});
      } catch (const std::exception& error) {
        log()->warn("rendezvous {}: cannot serve a connection: {}", name_, error.what());
      }
    }
  }

  void receive(std::uint64_t id, Connection& connection) {
    std::array<char, 65536> buffer;
    const ssize_t count = recv(connection.socket.get(), buffer.data(), buffer.size(), 0);
    if (count < 0) {
      if (errno == EAGAIN || errno == EINTR) return;
      return drop(id, std::strerror(errno));
    }
    if (count == 0) return drop(id, "its connection was closed");
    if (connection.closing) return;
    connection.in.append(buffer.data(), static_cast<std::size_t>(count));
    std::string_view rest = connection.in;
    if (connection.rank < 0 && !admit(id, connection, rest)) {
      connection.in.erase(0, connection.in.size() - rest.size());
      return;
    }
    while (const auto frame = wire::first_frame(rest)) {
      rest.remove_prefix(frame->bytes);
      book_.request(connection.rank, wire::decode_request(*frame), steady_now());
    }
    connection.in.erase(0, connection.in.size() - rest.size());
  }

  // True once the worker is a member.
  bool admit(std::uint64_t id, Connection& connection, std::string_view& rest) {
    if (connection.challenge.empty() && !take_hello(id, connection, rest)) return false;
    return take_proof(id, connection, rest);
  }

  bool take_hello(std::uint64_t id, Connection& connection, std::string_view& rest) {
    if (rest.size() < wire::preamble_bytes) return false;
    const std::uint32_t version = wire::decode_preamble(rest);
    if (rest.size() < wire::hello_bytes) return false;
    if (version != wire::version) {
      const int rank = wire::decode_hello(rest.substr(wire::preamble_bytes)).rank;
      reject(id, connection,
             Status(Code::bootstrap_failed,
                    fmt::format("rank {} speaks wire version {}, this rendezvous {}; install the "
                                "same Slipstream everywhere",
                                rank, version, wire::version)));
      return false;
    }
    connection.hello = rest.substr(0, wire::hello_bytes);
    rest.remove_prefix(wire::hello_bytes);
    connection.challenge = new_nonce();
    connection.out += wire::encode_preamble() + wire::encode_challenge(connection.challenge);
    outgoing_.push_back(id);
    return true;
  }

  bool take_proof(std::uint64_t id, Connection& connection, std::string_view& rest) {
    const auto frame = wire::first_frame(rest);
    if (!frame) return false;
    const wire::Proof proof = wire::decode_proof(*frame);
    rest.remove_prefix(frame->bytes);
    const wire::Hello hello =
        wire::decode_hello(std::string_view(connection.hello).substr(wire::preamble_bytes));
    const std::string expected =
        wire::worker_proof(secret_, connection.challenge, proof.nonce, connection.hello);
    Status status(Code::bootstrap_failed,
                  fmt::format("rank {} has another secret than this rendezvous; give all workers "
                              "the same SLIP_SECRET",
                              hello.rank));
    if (is_same_proof(proof.proof, expected)) status = book_.join(hello, connection.address);
    if (!status) {
      reject(id, connection, status);
      return false;
    }
    connection.rank = hello.rank;
    connection_of_rank_[hello.rank] = id;
    connection.out += wire::encode(wire::Welcome{
        served_by_, wire::rendezvous_proof(secret_, connection.challenge, proof.nonce)});
    outgoing_.push_back(id);
    return true;
  }

  void reject(std::uint64_t id, Connection& connection, const Status& status) {
    const bool lost = status.peer() >= 0;
    if (!lost) book_.turn_away(status.message());
    log()->log(lost ? spdlog::level::debug : spdlog::level::warn,
               "rendezvous {}: refused the worker at {}: {}", name_, connection.address,
               status.message());
    if (connection.challenge.empty()) connection.out += wire::encode_preamble();
    connection.out += wire::encode({lost ? wire::Kind::lost : wire::Kind::refused, {}, status});
    connection.closing = true;
    outgoing_.push_back(id);
  }

  void send_outgoing() {
    // Sending may find a connection broken, whose loss others are then told: the list may grow.
    while (!outgoing_.empty()) {
      const std::vector<std::uint64_t> ids = std::exchange(outgoing_, {});
      for (const std::uint64_t id : ids) {
        const auto found = connections_.find(id);
        if (found != connections_.end()) send(id, found->second);
      }
    }
  }

  void send(std::uint64_t id, Connection& connection) {
    std::string& out = connection.out;
    std::size_t& sent = connection.sent;
    while (sent < out.size()) {
      const ssize_t count =
          ::send(connection.socket.get(), out.data() + sent, out.size() - sent, MSG_NOSIGNAL);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0 && errno == EAGAIN) break;
      if (count < 0) return drop(id, std::strerror(errno));
      sent += static_cast<std::size_t>(count);
    }
    const bool all = sent == out.size();
    if (all) {
      if (connection.closing) return drop(id, "");
      out.clear();
      sent = 0;
    }
    watch(EPOLL_CTL_MOD, connection.socket.get(), all ? EPOLLIN : EPOLLIN | EPOLLOUT, id);
  }

  void drop(std::uint64_t id, const std::string& why) {
    const auto found = connections_.find(id);
    if (found == connections_.end()) return;
    const Connection connection = std::move(found->second);
    connections_.erase(found);
    if (connection.rank >= 0) {
      book_.disconnect(connection.rank, why);
    } else if (!connection.closing) {
      log()->warn("rendezvous {}: dropped {}: {}", name_, connection.address, why);
    }
  }

  void expire(Time now) {
    book_.expire(now);
    if (const std::string ranks = book_.overdue(now); !ranks.empty()) {
      log()->info("rendezvous {}: still waits for {} to join", name_, ranks);
    }
    std::vector<std::uint64_t> late;
    for (const auto& [id, connection] : connections_) {
      if (connection.rank < 0 && connection.hello_deadline <= now) late.push_back(id);
    }
    for (const std::uint64_t id : late) drop(id, "it did not say who it is");
  }

  Time next_deadline() const {
    Time next = book_.next_deadline();
    for (const auto& [id, connection] : connections_) {
      if (connection.rank < 0) next = std::min(next, connection.hello_deadline);
    }
    return next;
  }

  void watch(int operation, int fd, std::uint32_t events, std::uint64_t id) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = id;
    if (epoll_ctl(epoll_.get(), operation, fd, &event) < 0) throw_errno("epoll_ctl");
  }

  void wake() {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto bytes = write(wake_.get(), &one, sizeof one);
  }

  const int size_;
  const int served_by_;
  const std::string secret_;
  const FileDescriptor listener_;
  const int port_;
  const std::string name_;
  const FileDescriptor epoll_ = checked(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
  const FileDescriptor wake_ = checked(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd");

  // The thread's own.
  RendezvousBook book_;
  std::vector<std::uint64_t> connection_of_rank_;
  std::unordered_map<std::uint64_t, Connection> connections_;
  std::vector<std::uint64_t> outgoing_;  // connections with something to send
  std::uint64_t next_id_ = wake_id + 1;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::vector<std::pair<int, std::string>> reports_;
  Status failure_;
  int connected_ = 0;

  std::thread thread_;
};

RendezvousServer::RendezvousServer(const std::string& bind_address, int port, int size,
                                   int served_by, std::string secret) {
  if (size < 1 || size > max_world_size) {
    throw Error(Code::invalid_argument,
                fmt::format("a world of {} workers; 1 to {} are allowed", size, max_world_size));
  }
  if (port < 0 || port > 65535) {
    throw Error(Code::invalid_argument, fmt::format("port {}; 0 to 65535 are allowed", port));
  }
  impl_ = std::make_unique<Impl>(bind_address, port, size, served_by, std::move(secret));
}

RendezvousServer::~RendezvousServer() = default;

int RendezvousServer::port() const { return impl_->port(); }

void RendezvousServer::report_lost(int rank, const std::string& message) {
  impl_->report_lost(rank, message);
}

Status RendezvousServer::failure() const { return impl_->failure(); }

bool RendezvousServer::wait_until_empty(Duration timeout) {
  return impl_->wait_until_empty(timeout);
}

}  // namespace slip
