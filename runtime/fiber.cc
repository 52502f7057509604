#include <cxxabi.h>

#include <boost/context/fiber.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>
#include <cstring>
#include <utility>

#include "slipstream/runtime/fiber_internal.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace slip {
namespace {

namespace context = boost::context;

/// What __cxa_get_globals points to (Itanium C++ ABI, 2.2.2).
struct ExceptionState {
  void* caught = nullptr;
  unsigned int uncaught = 0;
};

ExceptionState exchange_exception_state(const ExceptionState& next) {
  auto* current = reinterpret_cast<ExceptionState*>(abi::__cxa_get_globals());
  return std::exchange(*current, next);
}

class Stacks {
 public:
  explicit Stacks(std::size_t bytes) : stacks_(bytes) {}
  context::stack_context allocate() { return stacks_.allocate(); }
  void deallocate(context::stack_context& stack) {
#if defined(__SANITIZE_ADDRESS__)
    // Or the sanitizer takes what is mapped there next for the frames that were left behind.
    __asan_unpoison_memory_region(static_cast<char*>(stack.sp) - stack.size, stack.size);
#endif
    stacks_.deallocate(stack);
  }

 private:
  context::protected_fixedsize_stack stacks_;
};

/// The calls under way as the thread sanitizer sees them, of one fiber. It is told on the resumer's
/// side only: the frames that a switch leaves by one way and enters by another then add up.
class CallStack {
 public:
#if defined(__SANITIZE_THREAD__)
  CallStack() : id_(__tsan_create_fiber(0)) {}
  ~CallStack() { __tsan_destroy_fiber(id_); }
  void enter() {
    resumer_ = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(id_, 0);
  }
  void leave() { __tsan_switch_to_fiber(resumer_, 0); }

 private:
  void* id_;
  void* resumer_ = nullptr;
#else
  void enter() {}
  void leave() {}
#endif
};

}  // namespace

struct __attribute__((visibility("hidden"))) Fiber::Impl {
  std::function<void()> body;
  Stacks allocator;
  context::stack_context stack;
  context::fiber fiber;   // the body, while it does not run
  context::fiber caller;  // whoever resumed it, while it runs
  ExceptionState exceptions;
#if defined(__SANITIZE_ADDRESS__)
  void* body_fake_stack = nullptr;
  const void* caller_bottom = nullptr;
  std::size_t caller_size = 0;
#endif
  CallStack calls;

  explicit Impl(std::size_t stack_bytes) : allocator(stack_bytes), stack(allocator.allocate()) {}

  void leaving_caller([[maybe_unused]] void** fake_stack) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(fake_stack, static_cast<char*>(stack.sp) - stack.size,
                                   stack.size);
#endif
  }
  void back_in_caller([[maybe_unused]] void* fake_stack) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
  }
  void leaving_body([[maybe_unused]] bool for_good) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(for_good ? nullptr : &body_fake_stack, caller_bottom,
                                   caller_size);
#endif
  }
  void in_body() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(body_fake_stack, &caller_bottom, &caller_size);
#endif
  }
};

Fiber::Fiber(std::size_t stack_bytes, std::function<void()> body)
    : impl_(std::make_unique<Impl>(stack_bytes)) {
  impl_->body = std::move(body);
  impl_->calls.enter();  // the library makes a fiber by running its first lines
  const context::preallocated where(impl_->stack.sp, impl_->stack.size, impl_->stack);
  impl_->fiber =
      context::fiber(std::allocator_arg, where, impl_->allocator, [this](context::fiber&& caller) {
        impl_->caller = std::move(caller);
        impl_->in_body();
        impl_->body();
        done_ = true;
        impl_->leaving_body(true);
        return std::move(impl_->caller);
      });
  impl_->calls.leave();
}

Fiber::~Fiber() = default;

void Fiber::resume() {
  void* fake_stack = nullptr;
  const ExceptionState mine = exchange_exception_state(impl_->exceptions);
  impl_->leaving_caller(&fake_stack);
  impl_->calls.enter();
  impl_->fiber = std::move(impl_->fiber).resume();
  impl_->calls.leave();
  impl_->back_in_caller(fake_stack);
  impl_->exceptions = exchange_exception_state(mine);
}

void Fiber::yield() {
  impl_->leaving_body(false);
  impl_->caller = std::move(impl_->caller).resume();
  impl_->in_body();
}

}  // namespace slip
