#include <utility>

#include "slipstream/runtime/background_internal.h"

namespace slip {
namespace {

constexpr std::size_t stack_bytes = 256 * 1024;  // only touched pages cost memory

}  // namespace

Background::Background(const World& world, int device)
    : world_(world),
      side_(device),
      fiber_(stack_bytes, [this] { work_on_request(); }),
      serving_(world.progress().serve(world.transport(), [this] { return poll(); })) {}

Background::~Background() {
  // Peers are told why, and others learn of a loss from who noticed it first.
  (void)cancel(world_.aborted() ? world_.status()
                                : Status{Code::aborted, "what went on in the background is over"});
}

Status Background::begin(std::function<Status()> work) {
  if (Status s = side_.follow(); !s) return s;
  work_ = std::move(work);
  working_.store(true, std::memory_order_release);
  world_.progress().serve_soon();
  return {};
}

Status Background::result() {
  if (Status s = side_.lead(); !s) return s;
  return result_;
}

Status Background::cancel(const Status& why) {
  serving_.reset();  // the fiber is this thread's now
  const bool had_ended = ended();
  if (cancelled_) cancelled_ = why;
  const gpu::CurrentStream enqueuing(side_.stream());
  while (!fiber_.done()) fiber_.resume();
  return had_ended || result_ ? why : result_;
}

Status Background::wait(FunctionRef<bool()> condition) {
  while (!condition()) {
    if (!cancelled_) return cancelled_;
    if (world_.aborted()) return world_.status();
    awaited_ = &condition;
    fiber_.yield();
    awaited_ = nullptr;
  }
  return {};
}

/// The fiber.
void Background::work_on_request() {
  while (cancelled_) {
    result_ = work_();
    working_.store(false, std::memory_order_release);
    world_.wake();
    fiber_.yield();
  }
}

/// On the progress thread. True if there may be more to do.
bool Background::poll() {
  if (ended()) return false;
  const gpu::CurrentStream enqueuing(side_.stream());
  if (awaited_ != nullptr && !(*awaited_)()) return false;
  fiber_.resume();
  return true;
}

}  // namespace slip
