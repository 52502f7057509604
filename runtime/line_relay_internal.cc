#include "slipstream/runtime/line_relay_internal.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <string_view>
#include <utility>

namespace slip {
namespace {

constexpr std::size_t longest_line = 64 * 1024;
constexpr std::size_t most_pending = 256 * 1024;

}  // namespace

FileDescriptor LineRelay::add(const std::string& prefix, int target) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) throw_errno("pipe");
  FileDescriptor read_end(ends[0]), write_end(ends[1]);
  if (fcntl(read_end.get(), F_SETFL, O_NONBLOCK) < 0) throw_errno("fcntl");
  const std::size_t sink = target == 1 ? 0 : 1;
  sources_.push_back(std::make_unique<Source>(Source{std::move(read_end), prefix, sink}));
  return above_standard(std::move(write_end));
}

void LineRelay::add_to(std::vector<pollfd>& entries) const {
  for (const auto& source : sources_) {
    if (sinks_[source->sink].pending.size() < most_pending) {
      entries.push_back({source->fd.get(), POLLIN, 0});
    }
  }
  for (const Sink& sink : sinks_) {
    if (!sink.pending.empty()) entries.push_back({sink.fd, POLLOUT, 0});
  }
}

void LineRelay::handle(const std::vector<pollfd>& entries) {
  const auto is_ready = [&](int fd) {
    return std::any_of(entries.begin(), entries.end(),
                       [fd](const pollfd& entry) { return entry.fd == fd && entry.revents != 0; });
  };
  for (Sink& sink : sinks_) {
    if (!sink.pending.empty() && is_ready(sink.fd)) write_to(sink);
  }
  std::erase_if(sources_, [&](const auto& source) {
    if (!is_ready(source->fd.get()) || read_from(*source)) return false;
    end(*source);
    return true;
  });
}

bool LineRelay::read_from(Source& source) {
  std::array<char, 16384> buffer;
  const ssize_t count = read(source.fd.get(), buffer.data(), buffer.size());
  if (count < 0) return errno == EAGAIN || errno == EINTR;
  std::string_view rest(buffer.data(), static_cast<std::size_t>(count));
  while (!rest.empty()) {
    const std::size_t end = rest.find('\n');
    const std::size_t room = longest_line - source.line.size();
    const std::size_t taken = std::min({end, room, rest.size()});
    source.line += rest.substr(0, taken);
    rest.remove_prefix(taken);
    if (end == taken) rest.remove_prefix(1);
    if (end == taken || source.line.size() == longest_line) emit_line(source);
  }
  source.left -= std::min(source.left, static_cast<std::size_t>(count));
  return count > 0 && source.left > 0;
}

void LineRelay::end(Source& source) {
  if (!source.line.empty()) emit_line(source);
}

void LineRelay::emit_line(Source& source) {
  Sink& sink = sinks_[source.sink];
  if (!sink.broken) sink.pending += source.prefix + source.line + '\n';
  source.line.clear();
}

void LineRelay::write_to(Sink& sink) {
  // After POLLOUT a pipe takes this much without blocking; its blocking mode is not ours to change.
  const std::size_t size = std::min<std::size_t>(sink.pending.size(), PIPE_BUF);
  const ssize_t count = write(sink.fd, sink.pending.data(), size);
  if (count > 0) {
    sink.pending.erase(0, static_cast<std::size_t>(count));
  } else if (errno != EINTR && errno != EAGAIN) {
    sink.broken = true;
    sink.pending.clear();
  }
}

void LineRelay::end_sources() {
  std::erase_if(sources_, [&](const auto& source) {
    int unread = 0;
    if (ioctl(source->fd.get(), FIONREAD, &unread) < 0) throw_errno("ioctl");
    source->left = static_cast<std::size_t>(unread);
    if (unread > 0) return false;
    end(*source);
    return true;
  });
}

void LineRelay::discard() {
  for (Sink& sink : sinks_) {
    sink.broken = true;
    sink.pending.clear();
  }
  sources_.clear();
}

bool LineRelay::flushed() const {
  return std::all_of(sinks_.begin(), sinks_.end(), [](const Sink& s) { return s.pending.empty(); });
}

bool LineRelay::broken() const {
  return std::any_of(sinks_.begin(), sinks_.end(), [](const Sink& sink) { return sink.broken; });
}

}  // namespace slip
