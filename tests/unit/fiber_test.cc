#include <gtest/gtest.h>

#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "slipstream/runtime/fiber_internal.h"

namespace slip {
namespace {

constexpr std::size_t stack_bytes = 256 * 1024;

TEST(Fiber, runs_when_resumed_and_rests_where_it_yields) {
  std::string trace;
  Fiber* self = nullptr;
  Fiber fiber(stack_bytes, [&] {
    trace += "b";
    self->yield();
    trace += "d";
  });
  self = &fiber;
  trace += "a";
  fiber.resume();
  trace += "c";
  EXPECT_FALSE(fiber.done());
  fiber.resume();
  EXPECT_TRUE(fiber.done());
  EXPECT_EQ(trace, "abcd");
}

TEST(Fiber, may_be_resumed_from_inside_another_and_by_another_thread) {
  std::string trace;
  Fiber* self = nullptr;
  Fiber inner(stack_bytes, [&] {
    trace += "b";
    self->yield();
    trace += "d";
    self->yield();
    trace += "f";
  });
  self = &inner;
  Fiber outer(stack_bytes, [&] {
    trace += "a";
    inner.resume();
    trace += "c";
  });
  outer.resume();
  EXPECT_TRUE(outer.done());
  std::thread([&] { inner.resume(); }).join();
  trace += "e";
  inner.resume();
  EXPECT_TRUE(inner.done());
  EXPECT_EQ(trace, "abcdef");
}

TEST(Fiber, may_be_destroyed_before_it_began) {
  const auto token = std::make_shared<int>(1);
  {
    Fiber fiber(stack_bytes, [token] {});
    EXPECT_EQ(token.use_count(), 2);
  }
  EXPECT_EQ(token.use_count(), 1);
}

TEST(Fiber, each_has_its_stack) {
  constexpr int depth = 100;
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<int> sums(8);
  struct Recursion {
    static int sum(Fiber& fiber, int n) {
      if (n == 0) return 0;
      volatile int own = n;
      fiber.yield();
      return own + sum(fiber, n - 1);
    }
  };
  for (std::size_t i = 0; i < sums.size(); ++i) {
    fibers.push_back(std::make_unique<Fiber>(stack_bytes, [&, i] {
      sums[i] = Recursion::sum(*fibers[i], depth + static_cast<int>(i));
    }));
  }
  for (bool any = true; any;) {
    any = false;
    for (auto& fiber : fibers) {
      if (fiber->done()) continue;
      fiber->resume();
      any = true;
    }
  }
  for (std::size_t i = 0; i < sums.size(); ++i) {
    const int n = depth + static_cast<int>(i);
    EXPECT_EQ(sums[i], n * (n + 1) / 2);
  }
}

TEST(Fiber, keeps_its_own_exception_while_others_run) {
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<std::string> caught(4);
  for (std::size_t i = 0; i < caught.size(); ++i) {
    fibers.push_back(std::make_unique<Fiber>(stack_bytes, [&, i] {
      try {
        try {
          throw std::runtime_error("of fiber " + std::to_string(i));
        } catch (...) {
          fibers[i]->yield();  // others throw and catch meanwhile
          throw;               // must be this fiber's
        }
      } catch (const std::exception& error) {
        fibers[i]->yield();
        caught[i] = error.what();
      }
    }));
  }
  for (int round = 0; round < 3; ++round) {
    for (auto& fiber : fibers) {
      fiber->resume();
      EXPECT_EQ(std::current_exception(), nullptr) << "the resumer has none";
    }
  }
  for (std::size_t i = 0; i < caught.size(); ++i) {
    EXPECT_TRUE(fibers[i]->done());
    EXPECT_EQ(caught[i], "of fiber " + std::to_string(i));
  }
}

TEST(Fiber, counts_its_own_exceptions_that_pass_through) {
  struct YieldsWhenDestroyed {
    Fiber& fiber;
    int& uncaught;
    ~YieldsWhenDestroyed() {
      fiber.yield();
      uncaught = std::uncaught_exceptions();
    }
  };
  int uncaught = -1;
  Fiber* self = nullptr;
  Fiber fiber(stack_bytes, [&] {
    try {
      const YieldsWhenDestroyed guard{*self, uncaught};
      throw std::runtime_error("passing through");
    } catch (const std::exception&) {
    }
  });
  self = &fiber;
  fiber.resume();
  EXPECT_EQ(std::uncaught_exceptions(), 0);
  fiber.resume();
  EXPECT_TRUE(fiber.done());
  EXPECT_EQ(uncaught, 1);
}

TEST(Fiber, thousands_come_and_go) {
  int ran = 0;
  for (int i = 0; i < 5000; ++i) {
    Fiber* self = nullptr;
    Fiber fiber(64 * 1024, [&] {
      self->yield();
      ++ran;
    });
    self = &fiber;
    fiber.resume();
    fiber.resume();
  }
  EXPECT_EQ(ran, 5000);
}

}  // namespace
}  // namespace slip
