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

ProgressView::ProgressView(int workers, std::optional<Iteration> total)
    : workers_(workers),
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
  Iteration first = board.at(0), last = first;
  for (int rank = 1; rank < workers_; ++rank) {
    const Iteration iteration = board.at(rank);
    if (iteration < last) slowest = rank;
    last = std::min(last, iteration);
    first = std::max(first, iteration);
  }
  const double seconds = to_seconds(elapsed);
  const std::string line = fmt::format(
      "iteration {}{}  {}  loss {:.4g}  gap {}  slowest rank {}", iterations,
      total_ ? fmt::format("/{}", *total_) : "",
      seconds > 0 ? fmt::format("{:.4g}/s", static_cast<double>(iterations) / seconds) : "-", loss,
      first - last, slowest);
  drawn_ = terminal_;
  fmt::print("{}", terminal_ ? clear_line + line : line + "\n");
  std::fflush(stdout);
}

}  // namespace slip::cli
