#include "slipstream/tools/slip/progress_view.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

namespace slip::cli {
namespace {

constexpr auto redraw = std::chrono::milliseconds(100);
constexpr Duration line_pause = std::chrono::seconds(5);
constexpr const char* clear_line = "\r\x1b[K";

}  // namespace

ProgressView::ProgressView(int workers, Iteration before, std::optional<Iteration> total)
    : workers_(workers),
      before_(before),
      total_(total),
      terminal_(isatty(STDOUT_FILENO) == 1),
      next_line_(line_pause) {}

ProgressView::~ProgressView() {
  if (drawn_) fmt::print("{}", clear_line), std::fflush(stdout);
}

bool ProgressView::due(Iteration iterations, Duration elapsed) {
  if (terminal_) {
    const auto now = std::chrono::steady_clock::now();
    if (now < next_draw_) return false;
    next_draw_ = now + redraw;
    return true;
  }
  if (total_) {
    const Iteration tenths = iterations * 10 / std::max<Iteration>(*total_, 1);
    return std::exchange(tenths_, tenths) != tenths;
  }
  if (elapsed < next_line_) return false;
  next_line_ = elapsed + line_pause;
  return true;
}

void ProgressView::update(Iteration iterations, Duration elapsed, double loss, const Board& board) {
  if (!due(iterations, elapsed)) return;
  int slowest = 0;
  Iteration most = board.at(0), fewest = most;
  for (int rank = 1; rank < workers_; ++rank) {
    const Iteration done = board.at(rank);
    if (done < fewest) slowest = rank;
    fewest = std::min(fewest, done);
    most = std::max(most, done);
  }
  const double seconds = to_seconds(elapsed);
  const auto of_this_run = static_cast<double>(iterations - before_);
  const std::string line = fmt::format(
      "iteration {}{}  {}  loss {:.4g}  {}", iterations, total_ ? fmt::format("/{}", *total_) : "",
      seconds > 0 ? fmt::format("{:.4g}/s", of_this_run / seconds) : "-", loss,
      most > fewest ? fmt::format("slowest rank {}, {} behind", slowest, most - fewest)
                    : "nobody behind");
  drawn_ = terminal_;
  fmt::print("{}", terminal_ ? clear_line + line : line + "\n");
  std::fflush(stdout);
}

}  // namespace slip::cli
