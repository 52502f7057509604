#pragma once

#include <infiniband/verbs.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>

#undef ibv_reg_mr

/// Queues of completions and receives. Their device's lock guards them.
namespace fake_verbs {

struct CompletionQueue;

struct CompletionChannel : ibv_comp_channel {
  std::deque<CompletionQueue*> events;  // as often as `fd` can be read
};

struct CompletionQueue : ibv_cq {
  struct Entry {
    ibv_wc completion;
    std::uint32_t released;  // requests of its queue pair's send queue that it stands for
  };
  enum class Armed { no, for_solicited, for_any };

  void push(const ibv_wc& completion, std::uint32_t released, bool is_solicited);

  std::deque<Entry> entries;
  Armed armed = Armed::no;
  unsigned unacknowledged = 0;  // events that were read
};

/// Receives that wait for messages.
struct Receives {
  struct Receive {
    std::uint64_t id;
    ibv_sge part;
  };

  /// As ibv_post_recv.
  int post(ibv_recv_wr* works, ibv_recv_wr** bad);
  std::optional<Receive> take();

  std::size_t most = 0;
  std::deque<Receive> waiting;
};

struct SharedReceives : ibv_srq {
  Receives receives;
};

}  // namespace fake_verbs
