#include "slipstream/runtime/launcher.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>

#include "slipstream/base/error.h"
#include "slipstream/runtime/log_internal.h"
#include "slipstream/runtime/pmix_launcher_internal.h"
#include "slipstream/runtime/posix_internal.h"
#include "slipstream/runtime/tcp_bootstrap.h"

namespace slip {
namespace {

/// Whether only processes of this host can reach it.
bool is_loopback(std::string_view host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

class RendezvousLauncher final : public Launcher {
 public:
  explicit RendezvousLauncher(TcpBootstrap::Options options) : options_(std::move(options)) {}

  int rank() const override { return options_.rank; }
  int size() const override { return options_.size; }
  std::string describe() const override {
    return fmt::format("SLIP_RENDEZVOUS={}:{}", options_.host, options_.port);
  }
  bool reports_failures() const override {
    const char* server = std::getenv("SLIP_RENDEZVOUS_SERVER");
    return server != nullptr && std::string_view(server) == "launcher";
  }
  std::unique_ptr<Bootstrap> join(Duration timeout) override {
    TcpBootstrap::Options options = options_;
    options.timeout = timeout;
    if (options.serve && options.secret.empty() && !is_loopback(options.host)) {
      log()->warn("rendezvous {}:{}: whoever reaches it may join; give all workers one SLIP_SECRET",
                  options.host, options.port);
    }
    return std::make_unique<TcpBootstrap>(options);
  }

 private:
  TcpBootstrap::Options options_;
};

/// `srun` tells its tasks apart, but only PMIx carries words between them.
void refuse_tasks_that_cannot_meet() {
  const char* tasks = std::getenv("SLURM_STEP_NUM_TASKS");
  if (tasks == nullptr || std::string_view(tasks) == "1") return;
  throw Error(Code::bootstrap_failed,
              fmt::format("srun has started {} tasks that do not know how to meet; give it "
                          "--mpi=pmix, or set SLIP_RENDEZVOUS=HOST:PORT with the host of task 0",
                          tasks));
}

}  // namespace

Duration join_timeout(Duration of_the_program) {
  const char* const text = std::getenv("SLIP_JOIN_TIMEOUT");
  if (text == nullptr || *text == '\0') return of_the_program;
  double seconds = 0;
  const char* const end = text + std::strlen(text);
  const auto [rest, error] = std::from_chars(text, end, seconds);
  if (error != std::errc() || rest != end || !(seconds > 0 && seconds <= 86400)) {
    throw Error(Code::invalid_argument,
                fmt::format("SLIP_JOIN_TIMEOUT is '{}'; allowed are seconds above 0, up to 86400",
                            printable(text)));
  }
  return from_seconds(seconds);
}

std::shared_ptr<Launcher> find_launcher() {
  if (auto options = tcp_options_from_environment()) {
    return std::make_shared<RendezvousLauncher>(std::move(*options));
  }
  if (std::getenv("PMIX_NAMESPACE") != nullptr) return pmix_launcher();
  refuse_tasks_that_cannot_meet();
  return nullptr;
}

}  // namespace slip
