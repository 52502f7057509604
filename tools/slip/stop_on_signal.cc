#include "slipstream/tools/slip/stop_on_signal.h"

#include <atomic>
#include <thread>

namespace slip::cli {
namespace {

// Lock-free, so a handler may read it. Sequentially consistent: it is for once in a run.
std::atomic<Trainer*> running{nullptr};
std::atomic<bool> stopped{false};
std::atomic<int> inside{0};  // handlers that may use the trainer

void stop(int signal) {
  if (stopped.exchange(true)) {  // the second, of whichever kind
    ::signal(signal, SIG_DFL);
    raise(signal);
    return;
  }
  inside.fetch_add(1);
  if (Trainer* trainer = running.load()) trainer->stop();
  inside.fetch_sub(1);
}

}  // namespace

bool stopped_by_signal() { return stopped.load(); }
void note_stop_by_signal() { stopped.store(true); }

StopOnSignal::StopOnSignal(Trainer& trainer) {
  running.store(&trainer);
  struct sigaction action {};
  action.sa_handler = stop;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (std::size_t i = 0; i < signals.size(); ++i) {
    sigaction(signals[i], nullptr, &before_[i]);
    // What the program was started to ignore stays ignored.
    if (before_[i].sa_handler != SIG_IGN) sigaction(signals[i], &action, nullptr);
  }
}

StopOnSignal::~StopOnSignal() {
  running.store(nullptr);
  while (inside.load() > 0) std::this_thread::yield();  // a handler on another thread
  for (std::size_t i = 0; i < signals.size(); ++i) sigaction(signals[i], &before_[i], nullptr);
}

}  // namespace slip::cli
