#include "slip_program.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <atomic>
#include <fstream>
#include <sstream>
#include <string_view>
#include <thread>

extern char** environ;

namespace slip {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

constexpr Duration pause = 10ms;

/// Our environment without settings of slip.
std::vector<std::string> environment() {
  std::vector<std::string> entries;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (!std::string_view(*entry).starts_with("SLIP_")) entries.emplace_back(*entry);
  }
  return entries;
}

std::string content(const FileDescriptor& file) {
  std::string text;
  char buffer[4096];
  ssize_t count = 0;
  while ((count = pread(file.get(), buffer, sizeof buffer, static_cast<off_t>(text.size()))) > 0) {
    text.append(buffer, static_cast<std::size_t>(count));
  }
  return text;
}

/// A process's environment, each entry between zeros; empty if it has ended.
std::string environment_of(const fs::path& process) {
  std::ifstream file(process / "environ", std::ios::binary);
  std::ostringstream text;
  text << '\0' << file.rdbuf();
  return text.str();
}

bool has(const std::string& environment, const std::string& variable) {
  return environment.find('\0' + variable + '\0') != environment.npos;
}

}  // namespace

SlipProgram::SlipProgram(const std::vector<std::string>& before,
                         const std::vector<std::string>& arguments)
    : output_(checked(memfd_create("output", MFD_CLOEXEC), "memfd_create")),
      error_(checked(memfd_create("error", MFD_CLOEXEC), "memfd_create")) {
  static std::atomic<int> count{0};
  mark_ = fmt::format("TEST_OF_SLIP={}.{}", getpid(), ++count);
  std::string folder = testing::TempDir() + "slip-test-XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) throw_errno("mkdtemp");
  folder_ = folder;
  ChildOptions options{.argv = before,
                       .environment = environment(),
                       .input = 0,
                       .output = output_.get(),
                       .error = error_.get(),
                       .signal_mask = {}};
  std::erase_if(options.environment,
                [](const std::string& entry) { return entry.starts_with("TMPDIR="); });
  options.environment.push_back(mark_);
  options.environment.push_back("TMPDIR=" + folder);
  options.argv.insert(options.argv.end(), {"env", "--chdir=" + folder, SLIP_BINARY});
  options.argv.insert(options.argv.end(), arguments.begin(), arguments.end());
  sigemptyset(&options.signal_mask);
  process_ = std::make_unique<ChildProcess>(options);
}

SlipProgram::~SlipProgram() {
  process_.reset();
  for (const pid_t process : processes()) kill(process, SIGKILL);
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

std::vector<pid_t> SlipProgram::processes(const std::optional<int>& rank) const {
  std::vector<pid_t> found;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != name.npos) continue;
    const std::string variables = environment_of(entry.path());
    if (!has(variables, mark_)) continue;
    if (rank && !has(variables, fmt::format("SLIP_RANK={}", *rank))) continue;
    found.push_back(std::stoi(name));
  }
  return found;
}

pid_t SlipProgram::worker(int rank) const {
  const Time deadline = deadline_after(hang);
  while (steady_now() < deadline) {
    if (const auto found = processes(rank); !found.empty()) return found.front();
    std::this_thread::sleep_for(pause);
  }
  throw std::runtime_error(fmt::format("rank {} has not started: {}", rank, content(error_)));
}

bool SlipProgram::wait_for_output(const std::string& text) const {
  const Time deadline = deadline_after(hang);
  const auto is_there = [&] { return content(output_).find(text) != std::string::npos; };
  while (!is_there()) {
    const bool ended = wait_ready(pidfd(), POLLIN, deadline_after(pause));
    if (ended && is_there()) break;  // its last words
    if (ended || steady_now() >= deadline) {
      ADD_FAILURE() << (ended ? "ended" : "hangs") << " without '" << text
                    << "': " << content(output_) << content(error_);
      return false;
    }
  }
  return true;
}

Outcome SlipProgram::wait(Duration patience) {
  if (!wait_ready(pidfd(), POLLIN, deadline_after(patience))) {
    ADD_FAILURE() << "hangs: " << content(output_) << content(error_);
    process_->signal(SIGKILL);
  }
  const ProcessEnd end = process_->reap();
  return {end, content(output_), content(error_)};
}

std::vector<pid_t> SlipProgram::processes_left() const {
  const Time deadline = deadline_after(hang);
  std::vector<pid_t> left = processes();
  while (!left.empty() && steady_now() < deadline) {
    std::this_thread::sleep_for(pause);
    left = processes();
  }
  return left;
}

std::vector<std::string> SlipProgram::files_left() const {
  std::vector<std::string> left;
  for (const auto& entry : fs::directory_iterator(folder_)) left.push_back(entry.path());
  for (const std::string& name : shared_memory_.left()) left.push_back("/dev/shm/" + name);
  return left;
}

Outcome run_slip(const std::vector<std::string>& arguments) {
  return SlipProgram(arguments).wait();
}

bool is_one_line(const std::string& text) {
  return text.starts_with("slip") && text.find('\n') == text.size() - 1;
}

}  // namespace slip
