#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "slipstream/base/function_ref.h"

namespace slip {

/// Shares what is equal for all workers of a process (data sets, partitions), so that a thousand
/// simulated workers hold one copy. An object lives as long as somebody holds it, and the last one
/// until another is made: the next run may want the same. Thread-safe.
template <class T>
class ProcessCache {
 public:
  /// The object of `key`, made by `make` if nobody holds one; others wait while it is made.
  std::shared_ptr<const T> get(const std::string& key, FunctionRef<T()> make) {
    const std::lock_guard lock(mutex_);
    std::erase_if(objects_, [](const auto& entry) { return entry.second.expired(); });
    std::weak_ptr<const T>& object = objects_[key];
    if (auto held = object.lock()) return held;
    last_.reset();  // not two large ones at a time
    auto made = std::make_shared<const T>(make());
    object = made;
    last_ = made;
    return made;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, std::weak_ptr<const T>> objects_;
  std::shared_ptr<const T> last_;
};

}  // namespace slip
