#pragma once

// What tests of the rendezvous share.

#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "slipstream/base/error.h"
#include "slipstream/runtime/tcp_bootstrap.h"

namespace slip {

constexpr Duration patience = std::chrono::seconds(120);

inline Status failure_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.status();
  }
  return {};
}

inline void in_threads(int count, const std::function<void(int)>& run) {
  std::vector<std::jthread> threads;
  for (int i = 0; i < count; ++i) threads.emplace_back([&run, i] { run(i); });
}

inline TcpBootstrap::Options options_for(int port, int rank, int size,
                                         Duration timeout = patience) {
  return {.host = "127.0.0.1", .port = port, .rank = rank, .size = size, .timeout = timeout};
}

/// Keeps what is logged.
class TcpTest : public testing::Test {
 protected:
  TcpTest() {
    auto logger = std::make_shared<spdlog::logger>(
        "slipstream", std::make_shared<spdlog::sinks::ostream_sink_mt>(log_));
    logger->set_pattern("%v");
    spdlog::register_logger(std::move(logger));
  }
  ~TcpTest() override { spdlog::drop("slipstream"); }

  /// What the server has logged; it must have ended, or have answered what it logged before.
  std::string log() const { return log_.str(); }

 private:
  std::ostringstream log_;
};

}  // namespace slip
