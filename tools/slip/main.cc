#include <fmt/format.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include "slipstream/tools/slip/command.h"
#include "slipstream/tools/slip/command_line.h"
#include "slipstream/tools/slip/sources.h"

namespace slip::cli {
namespace {

// A message is one line, whoever wrote it.
void print_error(const Command* command, std::string line, const char* hint = "") {
  std::replace(line.begin(), line.end(), '\n', ' ');
  const std::string name = command ? "slip " + command->name() : "slip";
  fmt::print(stderr, "{}: {}{}\n", name, line, *hint ? fmt::format(" ({} {})", name, hint) : "");
}

void set_up_log(const std::string& level) {
  // Spdlog's own writes to stdout, which is for results. The library logs where this name does.
  spdlog::set_default_logger(spdlog::stderr_color_mt("slipstream"));
  spdlog::set_pattern("%H:%M:%S.%e %^%l%$ %v");
  spdlog::set_level(level == "error" ? spdlog::level::err : spdlog::level::from_str(level));
}

void warn_of_unknown_variables(const Commands& commands) {
  // Workers that were started by a launcher leave it to the launcher.
  if (std::getenv("SLIP_RENDEZVOUS")) return;
  std::vector<std::string> known;
  for (const auto& command : commands) {
    for (const std::string& name : command->options().names()) known.push_back(name);
  }
  for (const std::string& line : unknown_variables(environ, known)) {
    fmt::print(stderr, "slip: warning: {}\n", line);
  }
}

int run(int argc, char** argv) {
  const Commands commands = make_commands();
  Request request;
  try {
    read_command_line(commands, argc, argv, environ, request);
    if (!request.print.empty()) {
      fmt::print("{}", request.print);
      return done;
    }
    if (request.command->log_level() != "off") warn_of_unknown_variables(commands);
    set_up_log(request.command->log_level());
    return request.command->run();
  } catch (const std::exception& error) {
    const Status status = status_of(error);
    const bool usage = status.code() == Code::invalid_argument;
    print_error(request.command, status.message(), usage ? "--help" : "");
    return usage ? bad_usage : failed;
  }
}

}  // namespace
}  // namespace slip::cli

int main(int argc, char** argv) { return slip::cli::run(argc, argv); }
