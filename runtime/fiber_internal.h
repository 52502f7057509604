#pragma once

#include <cstddef>
#include <functional>
#include <memory>

#pragma GCC visibility push(hidden)

namespace slip {

/// A stack of its own that gives way only where it says so. Each switch saves the C++ exception
/// state (or fibers that give way inside a catch block would see each other's exceptions) and
/// tells the sanitizers. The body must have ended, or never begun, when the fiber is destroyed.
class Fiber {
 public:
  Fiber(std::size_t stack_bytes, std::function<void()> body);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Runs the body until it yields or ends. From any thread, one at a time, and from inside another
  /// fiber, too.
  void resume();
  /// Back to whoever resumed; from inside the body.
  void yield();
  bool done() const { return done_; }

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
  bool done_ = false;
};

}  // namespace slip

#pragma GCC visibility pop
