#include "slipstream/gpu/nccl_communicator_internal.h"

#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstring>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>

#include "slipstream/gpu/driver_internal.h"
#include "slipstream/gpu/nccl_library_internal.h"

namespace slip::gpu {
namespace {

using namespace std::chrono_literals;
using SteadyClock = std::chrono::steady_clock;

static_assert(sizeof(NcclId) == sizeof(ncclUniqueId));

/// Between two looks at what NCCL does, which tells nobody when it is done.
class Nap {
 public:
  void operator()() const {
    if (lasted() < 1ms) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(100us);
    }
  }
  Duration lasted() const { return SteadyClock::now() - begin_; }

 private:
  const SteadyClock::time_point begin_ = SteadyClock::now();
};

Status failure(ncclResult_t result, ncclComm_t communicator, std::string_view what) {
  if (result == ncclSuccess || result == ncclInProgress) return {};
  const NcclLibrary& nccl = nccl_library();
  return {result == ncclRemoteError ? Code::group_broken : Code::io,
          fmt::format("NCCL: {}: {}: {}; NCCL_DEBUG=WARN says more", what,
                      nccl.ncclGetErrorString(result), nccl.ncclGetLastError(communicator))};
}

}  // namespace

NcclId make_nccl_id() {
  nccl_library().usable.throw_if_failed();
  ncclUniqueId unique{};
  failure(nccl_library().ncclGetUniqueId(&unique), nullptr, "making an id").throw_if_failed();
  NcclId id;
  std::memcpy(id.data(), &unique, sizeof unique);
  return id;
}

/// The thread's work, and what it is told.
class NcclCommunicator::Calls {
 public:
  Calls(int device, const NcclId& id, int size, int rank, Duration patience,
        std::function<void()> on_settled)
      : device_(device),
        size_(size),
        rank_(rank),
        patience_(patience),
        on_settled_(std::move(on_settled)) {
    std::memcpy(&id_, id.data(), sizeof id_);
  }

  // ---- Of the worker.

  /// Acquire, pairs with the release in `settle`: the status and the mean are there.
  bool settled() const { return order_.load(std::memory_order_acquire) == Order::none || gone(); }
  Status status() const { return status_; }
  /// Acquire, pairs with the release in `run`: the thread makes no more calls.
  bool gone() const { return gone_.load(std::memory_order_acquire); }

  struct Mean {
    const void* from;
    void* to;
    std::size_t count;
    ncclDataType_t type;
    Stream stream;
  };
  void order_mean(Mean mean) {
    mean_.emplace(std::move(mean));
    order(Order::mean);
  }
  void order_close() { order(Order::close); }
  void order_abort() { order(Order::abort); }
  bool is_ending() const { return order_.load(std::memory_order_relaxed) >= Order::close; }

  /// The worker does not wait any longer.
  void forget_worker() {
    const std::lock_guard lock(mutex_);
    on_settled_ = nullptr;
  }

  // ---- The thread.

  void run() {
    // Signals are for the user's threads, and not for this or those that NCCL starts from here.
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, nullptr);
    bool closed = false;
    try {
      const OnDevice here(device_);
      event_.emplace(device_);
      Status status = connect();
      settle(Order::connect, status);
      while (status) {
        order_.wait(Order::none, std::memory_order_acquire);
        if (is_ending()) break;
        status = mean();
        settle(Order::mean, status);
      }
      closed = status && close();
      event_.reset();
    } catch (const Error& error) {  // the GPU is lost
      settle(order_.load(std::memory_order_relaxed), error.status());
    }
    if (!closed) nccl_.ncclCommAbort(communicator_);
    gone_.store(true, std::memory_order_release);
  }

 private:
  enum class Order { none, connect, mean, close, abort };

  /// Release, pairs with the acquire of the thread's wait: what is ordered is there.
  void order(Order order) {
    order_.store(order, std::memory_order_release);
    order_.notify_one();
  }
  bool is_aborted() const { return order_.load(std::memory_order_relaxed) == Order::abort; }

  /// What was ordered is over, unless the worker has given up meanwhile.
  void settle(Order done, const Status& status) {
    status_ = status;
    order_.compare_exchange_strong(done, Order::none, std::memory_order_release,
                                   std::memory_order_relaxed);
    const std::lock_guard lock(mutex_);
    if (on_settled_) on_settled_();
  }

  Status aborted() const { return {Code::aborted, "NCCL: given up"}; }

  Status connect() {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    return await(nccl_.ncclCommInitRankConfig(&communicator_, size_, id_, rank_, &config),
                 "connecting");
  }

  Status mean() {
    const Mean& m = *mean_;
    const auto stream = static_cast<CUstream>(m.stream.handle());
    if (Status s = await(
            nccl_.ncclAllReduce(m.from, m.to, m.count, m.type, ncclAvg, communicator_, stream),
            "averaging");
        !s) {
      return s;
    }
    if (Status s = event_->record(m.stream); !s) return s;
    for (const Nap nap; !event_->done(); nap()) {
      if (is_aborted()) return aborted();
      if (Status s = failure(state(), communicator_, "averaging"); !s) return s;
    }
    return m.stream.status();
  }

  /// False: members take too long, or it has failed.
  bool close() {
    if (is_aborted()) return false;
    const Nap nap;
    ncclResult_t result = nccl_.ncclCommFinalize(communicator_);
    for (; result == ncclInProgress; result = state()) {
      if (is_aborted() || nap.lasted() > patience_) return false;
      nap();
    }
    if (result != ncclSuccess) return false;
    nccl_.ncclCommDestroy(communicator_);  // gone, whatever it returns
    return true;
  }

  ncclResult_t state() const {
    ncclResult_t now = ncclSuccess;
    const ncclResult_t asked = nccl_.ncclCommGetAsyncError(communicator_, &now);
    return asked == ncclSuccess ? now : asked;
  }

  /// Until NCCL has done what it was asked for, with this result so far. What has not connected yet
  /// has nothing to close.
  Status await(ncclResult_t result, std::string_view what) {
    for (const Nap nap; result == ncclInProgress; result = state()) {
      if (is_ending()) return aborted();
      nap();
    }
    return failure(result, communicator_, what);
  }

  const NcclLibrary& nccl_ = nccl_library();
  const int device_;
  ncclUniqueId id_;
  const int size_;
  const int rank_;
  const Duration patience_;
  std::optional<Mean> mean_;  // the worker's where `order_` is none, else the thread's
  Status status_;             // likewise
  std::atomic<Order> order_{Order::connect};
  std::atomic<bool> gone_{false};
  // The thread's alone.
  ncclComm_t communicator_ = nullptr;
  std::optional<Event> event_;

  std::mutex mutex_;  // guards the following
  std::function<void()> on_settled_;
};

NcclCommunicator::NcclCommunicator(int device, const NcclId& id, int size, int rank,
                                   Duration patience, std::function<void()> on_settled)
    : calls_(std::make_shared<Calls>(device, id, size, rank, patience, std::move(on_settled))),
      patience_(patience),
      thread_([calls = calls_] { calls->run(); }) {}

NcclCommunicator::~NcclCommunicator() {
  if (!calls_->is_ending()) abort();
  await_gone();
  calls_->forget_worker();
  if (gone()) {
    thread_.join();
  } else {
    thread_.detach();
  }
}

bool NcclCommunicator::settled() const { return calls_->settled(); }
Status NcclCommunicator::status() const { return calls_->status(); }

void NcclCommunicator::mean(const void* from, void* to, std::size_t count,
                            std::size_t element_bytes, const Stream& stream) {
  calls_->order_mean(
      {from, to, count, element_bytes == sizeof(float) ? ncclFloat32 : ncclFloat64, stream});
}

void NcclCommunicator::close() { calls_->order_close(); }
void NcclCommunicator::abort() { calls_->order_abort(); }
bool NcclCommunicator::gone() const { return calls_->gone(); }
void NcclCommunicator::await_gone() const {
  for (const Nap nap; !gone() && nap.lasted() < 2 * patience_;) nap();
}

}  // namespace slip::gpu
