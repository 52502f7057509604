#pragma once

#include <chrono>
#include <filesystem>
#include <set>
#include <string>
#include <thread>
#include <utility>

namespace slip {

/// Names with `part` in the memory file system, where a segment that outlives its process would
/// lie; and which of them are new.
class SharedMemoryNames {
 public:
  explicit SharedMemoryNames(std::string part) : part_(std::move(part)), before_(now()) {}

  /// Empty if all goes within some seconds: it may be of a test that runs beside this one.
  std::set<std::string> left() const {
    using namespace std::chrono_literals;
    std::set<std::string> names;
    for (int tries = 0; tries < 100; ++tries) {
      names = now();
      std::erase_if(names, [this](const std::string& name) { return before_.contains(name); });
      if (names.empty()) break;
      std::this_thread::sleep_for(100ms);
    }
    return names;
  }

 private:
  std::set<std::string> now() const {
    std::set<std::string> names;
    std::error_code none;  // a machine without it has nothing there
    for (const auto& entry : std::filesystem::directory_iterator("/dev/shm", none)) {
      std::string name = entry.path().filename();
      if (name.find(part_) != name.npos) names.insert(std::move(name));
    }
    return names;
  }

  const std::string part_;
  const std::set<std::string> before_;
};

}  // namespace slip
