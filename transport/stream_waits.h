#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "slipstream/gpu/stream.h"
#include "slipstream/transport/region.h"

namespace slip {

/// Streams of a GPU that wait for words of regions, so that the host need not. An abort would leave
/// them waiting for ever; `release` puts a word that ends every wait in place of those awaited.
/// Thread-safe.
class StreamWaits {
 public:
  /// Throws Error(not_supported) where streams of that GPU cannot.
  explicit StreamWaits(int device);
  /// Releases, and waits for the GPU's work.
  ~StreamWaits();
  StreamWaits(const StreamWaits&) = delete;
  StreamWaits& operator=(const StreamWaits&) = delete;

  /// What is enqueued from now on begins once the word at `offset` is `word` or a later one of the
  /// same incarnation. Pins the word's page when first asked for it, unless it is.
  Status wait(const Region& region, std::size_t offset, Word word, const gpu::Stream& stream);

  /// Ends all waits, and those to come. Words of these regions mean nothing from then on.
  void release();

 private:
  /// Memory in which there are words; what is pinned goes before what it is in.
  struct Page {
    Region region;
    std::shared_ptr<std::byte> pinned;
  };
  void poison();

  const int device_;
  std::mutex pinning_;  // guards the following
  std::map<std::byte*, Page> pages_;
  std::mutex mutex_;            // guards the following; the driver is not called while it is held
  std::vector<Word*> awaited_;  // once each
  bool released_ = false;
};

}  // namespace slip
