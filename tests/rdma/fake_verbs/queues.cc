#include "queues.h"

#include <unistd.h>

#include <cerrno>

#include "settings.h"

namespace fake_verbs {

void CompletionQueue::push(const ibv_wc& completion, std::uint32_t released, bool is_solicited) {
  if (entries.size() == static_cast<std::size_t>(cqe)) die("a completion queue was overrun");
  entries.push_back({completion, released});
  const bool is_awaited =
      armed == Armed::for_any ||
      (armed == Armed::for_solicited && (is_solicited || completion.status != IBV_WC_SUCCESS));
  if (!is_awaited) return;
  armed = Armed::no;
  static_cast<CompletionChannel*>(channel)->events.push_back(this);
  const std::uint64_t one = 1;
  if (write(channel->fd, &one, sizeof one) != sizeof one) die("cannot tell of an event");
}

int Receives::post(ibv_recv_wr* works, ibv_recv_wr** bad) {
  for (ibv_recv_wr* work = works; work != nullptr; work = work->next) {
    if (waiting.size() == most) {
      *bad = work;
      return ENOMEM;
    }
    waiting.push_back({work->wr_id, work->num_sge > 0 ? work->sg_list[0] : ibv_sge{}});
  }
  return 0;
}

std::optional<Receives::Receive> Receives::take() {
  if (waiting.empty()) return {};
  const Receive first = waiting.front();
  waiting.pop_front();
  return first;
}

}  // namespace fake_verbs
