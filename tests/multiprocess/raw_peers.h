#pragma once

// The two ends of a rendezvous that say what they like.

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "slipstream/runtime/rendezvous_wire_internal.h"
#include "slipstream/runtime/secret_internal.h"
#include "slipstream/runtime/socket_internal.h"
#include "tcp_support.h"

namespace slip {

/// A connection that says what it likes.
class RawClient {
 public:
  explicit RawClient(int port)
      : socket_(connect_to("127.0.0.1", port, deadline_after(patience)).socket) {}

  void say(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t count = send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (count < 0 && errno != EAGAIN) return;
      if (count > 0) bytes.remove_prefix(static_cast<std::size_t>(count));
    }
  }

  /// At least `count` bytes, or all there is until the connection is closed.
  std::string hear(std::size_t count) {
    std::string heard;
    char buffer[4096];
    while (heard.size() < count) {
      EXPECT_TRUE(wait_ready(socket_.get(), POLLIN, deadline_after(patience)));
      const ssize_t got = recv(socket_.get(), buffer, sizeof buffer, 0);
      if (got <= 0) break;
      heard.append(buffer, static_cast<std::size_t>(got));
    }
    return heard;
  }

  std::string hear_all() { return hear(std::string::npos); }

  /// Says who it is, and that it knows the secret; then `more`. Returns the answer to the proof, or
  /// all that it heard in place of a challenge.
  std::string join(const rendezvous_wire::Hello& hello, const std::string& secret = "",
                   const std::string& more = "") {
    const std::string said = rendezvous_wire::encode(hello);
    say(said);
    const std::string greeting = hear(rendezvous_wire::preamble_bytes +
                                      rendezvous_wire::encode_challenge(new_nonce()).size());
    const auto frame = rendezvous_wire::first_frame(
        std::string_view(greeting).substr(rendezvous_wire::preamble_bytes));
    if (!frame || frame->kind != rendezvous_wire::Kind::challenge) return greeting + hear_all();
    const std::string nonce = new_nonce();
    const std::string challenge = rendezvous_wire::decode_challenge(*frame);
    say(rendezvous_wire::encode(rendezvous_wire::Proof{
            nonce, rendezvous_wire::worker_proof(secret, challenge, nonce, said)}) +
        more);
    const std::string answer = hear(
        rendezvous_wire::encode(rendezvous_wire::Welcome{0, std::string(proof_bytes, 0)}).size());
    const bool is_welcome = !answer.empty() && static_cast<rendezvous_wire::Kind>(answer[0]) ==
                                                   rendezvous_wire::Kind::done;
    return is_welcome ? answer : answer + hear_all();
  }

 private:
  FileDescriptor socket_;
};

/// A server of our own that answers each connection with `bytes`.
class FakeServer {
 public:
  explicit FakeServer(std::string bytes)
      : thread_([this, bytes](std::stop_token stop) {
          std::vector<FileDescriptor> connections;
          while (!stop.stop_requested()) {
            FileDescriptor socket(accept(listener_.get(), nullptr, nullptr));
            if (socket) {
              send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
              connections.push_back(std::move(socket));
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
          }
        }) {}

  int port() const { return port_of(listener_); }

 private:
  FileDescriptor listener_ = listen_on("127.0.0.1", 0);
  std::jthread thread_;
};

}  // namespace slip
