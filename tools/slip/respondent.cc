#include "slipstream/tools/slip/respondent.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <thread>
#include <utility>

#include "slipstream/tools/slip/command.h"

namespace slip::cli {
namespace {

using std::chrono::steady_clock;
using namespace std::chrono_literals;

void send(int socket, const std::string& message) {
  // That nobody is there is found by who waits for an answer.
  (void)!::send(socket, message.data(), message.size(), MSG_NOSIGNAL);
}

/// False: nobody is there any more.
bool receive(int socket, std::string* message) {
  constexpr std::size_t most = std::size_t{64} << 10;
  message->resize(most);
  const ssize_t bytes = recv(socket, message->data(), most, 0);
  message->resize(bytes > 0 ? static_cast<std::size_t>(bytes) : 0);
  return bytes > 0;
}

bool is_readable(int socket, Duration limit) {
  const auto deadline = steady_clock::now() + limit;
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - steady_clock::now());
    pollfd entry{socket, POLLIN, 0};
    const int ready = poll(&entry, 1, static_cast<int>(std::max(left, 0ms).count()));
    if (ready >= 0 || errno != EINTR) return ready > 0;
  }
}

/// An answer as it is sent: a code, and the text or why there is none.
std::string packed(Code code, const std::string& text) {
  std::string message(sizeof code, '\0');
  std::memcpy(message.data(), &code, sizeof code);
  return message + text;
}

}  // namespace

Respondent::Respondent(std::string name, Answer answer, Duration limit)
    : name_(std::move(name)), answer_(std::move(answer)), limit_(limit) {
  start();
}

Respondent::~Respondent() {
  if (process_ > 0) end();
}

void Respondent::start() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) throw_errno("socketpair");
  const pid_t parent = getpid();
  process_ = fork();
  if (process_ == 0) {
    close(ends[0]);
    // Whoever reads what the program prints does not wait for one that cannot be killed.
    const int nowhere = open("/dev/null", O_RDWR);
    for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) dup2(nowhere, standard);
    // Its parent may have ended before it could be asked for.
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent) _exit(failed);
    serve(ends[1]);
  }
  close(ends[1]);
  if (process_ < 0) {
    close(ends[0]);
    throw_errno("fork");
  }
  socket_ = ends[0];
}

void Respondent::serve(int questions) const {
  for (std::string question; receive(questions, &question);) {
    try {
      send(questions, packed(Code::ok, answer_(question)));
    } catch (const std::exception& exception) {
      const Status status = status_of(exception);
      send(questions, packed(status.code(), status.message()));
    }
  }
  _exit(done);
}

std::string Respondent::ask(const std::string& question) {
  if (process_ < 0) start();
  send(socket_, question);
  if (!is_readable(socket_, limit_)) {
    throw Error(Code::timeout,
                fmt::format("{} did not answer for {:g} s and {}; look for the driver's messages "
                            "(dmesg), or give it longer (--timeout)",
                            name_, to_seconds(limit_), end()));
  }
  std::string message;
  if (!receive(socket_, &message)) {
    throw Error(Code::io,
                fmt::format("{} {}; look for the driver's messages (dmesg)", name_, end()));
  }
  Code code{};
  std::memcpy(&code, message.data(), sizeof code);
  message.erase(0, sizeof code);
  if (code != Code::ok) throw Error(code, message);
  return message;
}

/// How it has ended; it is killed where it has not.
std::string Respondent::end() {
  const pid_t process = std::exchange(process_, -1);
  close(std::exchange(socket_, -1));
  kill(process, SIGKILL);
  int status = 0;
  // What hangs within the kernel does not end.
  const auto deadline = steady_clock::now() + 10s;
  while (waitpid(process, &status, WNOHANG) == 0) {
    if (steady_clock::now() >= deadline) {
      return fmt::format("cannot be killed (process {})", process);
    }
    std::this_thread::sleep_for(1ms);
  }
  if (WIFEXITED(status)) return fmt::format("exited with status {}", WEXITSTATUS(status));
  const int signal = WTERMSIG(status);
  if (signal == SIGKILL) return "was killed";
  return fmt::format("crashed ({})", strsignal(signal));
}

}  // namespace slip::cli
