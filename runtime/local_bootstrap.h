#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "slipstream/runtime/bootstrap.h"
#include "slipstream/runtime/clock.h"
#include "slipstream/runtime/wait.h"

namespace slip {

/// The store that the workers of one process share: threads, simulated workers, a world of one.
class LocalStore {
 public:
  explicit LocalStore(int size) : size_(size) {}

 private:
  friend class LocalBootstrap;

  struct Value {
    std::string bytes;
    int publisher;
  };

  const int size_;
  std::mutex mutex_;  // guards all below
  std::map<std::string, Value, std::less<>> values_;
  int arrived_ = 0;
  std::uint64_t generation_ = 0;
  std::optional<int> left_;  // the first worker that has left: no further fence can complete
  /// Who waits for which name ("": for the fence), by rank: woken in the same order every time.
  std::map<std::string, std::map<int, Waiter*>, std::less<>> waiting_;

  void wake(std::string_view name);
};

/// One worker's access to it. Waits in the worker's own time. A worker that leaves ends the others'
/// fences, unless an exception is passing through: then whoever catches it tells them.
class LocalBootstrap final : public Bootstrap {
 public:
  LocalBootstrap(std::shared_ptr<LocalStore> store, int rank, Waiter& waiter, const Clock& clock);

  ~LocalBootstrap() override;

  int rank() const override { return rank_; }
  int size() const override { return store_->size_; }
  std::string describe() const override { return "local"; }
  void put(std::string_view name, std::string_view value) override;
  std::string get(std::string_view name, Duration timeout) override;
  void fence(Duration timeout) override;

 private:
  void wait(std::string_view name, FunctionRef<bool()> condition, Duration timeout,
            const std::string& what);

  std::shared_ptr<LocalStore> store_;
  const int rank_;
  Waiter& waiter_;
  const Clock& clock_;
};

}  // namespace slip
