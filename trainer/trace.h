#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "slipstream/base/time.h"
#include "slipstream/base/word.h"

namespace slip {

/// What a worker was doing.
enum class SpanKind : std::int32_t { compute, wait, apply, send, evaluate };

/// How many there are.
constexpr int span_kinds = 5;

/// "compute", "wait", ...
std::string_view to_string(SpanKind kind);

/// What one worker did from `begin` to `end`. Plain bytes, so that workers can send theirs to rank
/// 0.
struct Span {
  std::int32_t rank = 0;
  SpanKind kind = SpanKind::compute;
  Iteration iteration = 0;
  Time begin{0};
  Time end{0};
};

/// One worker's timeline. Allocates once; `record` neither allocates nor locks, and when it is full
/// it counts what it leaves out. Belongs to the worker's thread.
class Timeline {
 public:
  explicit Timeline(int rank, std::size_t capacity);

  /// The time on the worker's clock that counts as 0: the workers' clocks began at different
  /// moments, their runs at one.
  void start_at(Time origin) { origin_ = origin; }

  void record(SpanKind kind, Iteration iteration, Time begin, Time end) {
    if (spans_.size() == spans_.capacity()) {
      ++dropped_;
      return;
    }
    spans_.push_back({rank_, kind, iteration, begin - origin_, end - origin_});
  }

  std::span<const Span> spans() const { return spans_; }
  std::uint64_t dropped() const { return dropped_; }

 private:
  std::int32_t rank_;
  Time origin_{0};
  std::vector<Span> spans_;
  std::uint64_t dropped_ = 0;
};

/// The trace event format that chrome://tracing and ui.perfetto.dev read: one process, one track
/// per worker, times in microseconds of the run's clock. Spans that came from a peer and make no
/// sense (a kind that is none, an end before its begin) are left out.
std::string chrome_trace(std::span<const Span> spans, std::string_view process);

/// The spans of a trace that `chrome_trace` wrote. Throws Error(bad_data), one line that names
/// `source` (a file); events of other kinds are passed over.
std::vector<Span> spans_from_chrome_trace(std::string_view json, std::string_view source);

/// A span whose fields hold what they may hold.
bool is_valid(const Span& span);

}  // namespace slip
