#include "slipstream/runtime/local_bootstrap.h"

#include <fmt/format.h>

#include <exception>
#include <optional>
#include <utility>

#include "slipstream/runtime/bootstrap_internal.h"

namespace slip {

void LocalStore::wake(std::string_view name) {
  const auto waiting = waiting_.find(name);
  if (waiting == waiting_.end()) return;
  for (const auto& [rank, waiter] : waiting->second) waiter->wake();
}

LocalBootstrap::LocalBootstrap(std::shared_ptr<LocalStore> store, int rank, Waiter& waiter,
                               const Clock& clock)
    : store_(std::move(store)), rank_(rank), waiter_(waiter), clock_(clock) {}

LocalBootstrap::~LocalBootstrap() {
  if (std::uncaught_exceptions() > 0) return;
  const std::lock_guard lock(store_->mutex_);
  if (store_->left_) return;  // whoever waits knows
  store_->left_ = rank_;
  store_->wake("");
}

void LocalBootstrap::put(std::string_view name, std::string_view value) {
  const std::lock_guard lock(store_->mutex_);
  if (const auto found = store_->values_.find(name); found != store_->values_.end()) {
    throw Error(Code::bootstrap_failed, published_twice(rank_, name, found->second.publisher));
  }
  store_->values_.emplace(name, LocalStore::Value{std::string(value), rank_});
  store_->wake(name);
}

std::string LocalBootstrap::get(std::string_view name, Duration timeout) {
  std::string value;
  const auto published = [&] {
    const std::lock_guard lock(store_->mutex_);
    const auto found = store_->values_.find(name);
    if (found == store_->values_.end()) return false;
    value = found->second.bytes;
    return true;
  };
  wait(name, published, timeout, fmt::format("'{}' to be published", name));
  return value;
}

void LocalBootstrap::fence(Duration timeout) {
  std::uint64_t generation = 0;
  {
    const std::lock_guard lock(store_->mutex_);
    generation = store_->generation_;
    if (++store_->arrived_ == store_->size_) {
      store_->arrived_ = 0;
      ++store_->generation_;
      store_->wake("");
      return;
    }
  }
  std::optional<int> left;
  wait(
      "",
      [&] {
        const std::lock_guard lock(store_->mutex_);
        if (store_->generation_ != generation) return true;
        left = store_->left_;
        return left.has_value();
      },
      timeout, "all workers to arrive");
  if (left) {
    throw Error(Code::bootstrap_failed,
                fmt::format("rank {} left before this fence of rank {}", *left, rank_), *left);
  }
}

void LocalBootstrap::wait(std::string_view name, FunctionRef<bool()> condition, Duration timeout,
                          const std::string& what) {
  if (condition()) return;
  {
    const std::lock_guard lock(store_->mutex_);
    store_->waiting_[std::string(name)].emplace(rank_, &waiter_);
  }
  const Time now = clock_.now();
  const Status status = waiter_.wait(condition, timeout < never - now ? now + timeout : never);
  {
    const std::lock_guard lock(store_->mutex_);
    const auto waiting = store_->waiting_.find(name);
    waiting->second.erase(rank_);
    if (waiting->second.empty()) store_->waiting_.erase(waiting);
  }
  if (status) return;
  if (status.code() != Code::timeout) {
    throw Error(status.code(),
                fmt::format("{}; rank {} waited for {}", status.message(), rank_, what),
                status.peer());
  }
  throw Error(Code::timeout,
              fmt::format("rank {}: waited {:g} s for {}", rank_, to_seconds(timeout), what));
}

}  // namespace slip
