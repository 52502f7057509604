#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "slipstream/base/error.h"
#include "slipstream/base/time.h"
#include "slipstream/runtime/rendezvous_wire_internal.h"

#pragma GCC visibility push(hidden)

namespace slip {

/// What a rendezvous knows: who has joined, which names are published, and who waits for what. It
/// has no sockets and no clock; answers leave through a function. Not thread-safe.
class RendezvousBook {
 public:
  using Send = std::function<void(int rank, std::string frame)>;

  RendezvousBook(int size, Send send);

  /// A failure says why this worker may not join; peer_lost if the world has failed already.
  Status join(const rendezvous_wire::Hello& hello, const std::string& address);
  /// A worker was refused before it was a member: told to those who wait for it in vain.
  void turn_away(std::string why) { turned_away_ = std::move(why); }
  /// Error(bad_data) if `rank` may not ask this now.
  void request(int rank, const rendezvous_wire::Request& request, Time now);
  /// The rank's connection has ended; `why` counts if it has not said goodbye.
  void disconnect(int rank, const std::string& why);
  /// Fails the world because of this rank; the first failure stays. A rank that has said goodbye
  /// owes nothing any more.
  void lose(int rank, const std::string& message);

  /// Refuses what has waited too long.
  void expire(Time now);
  /// "rank 2", "ranks 2, 5": who has not joined although others have waited for a good while. Once
  /// for each meeting.
  std::string overdue(Time now);
  /// When expire() or overdue() has something to do next.
  Time next_deadline() const;

  /// Workers with a connection.
  int connected() const { return connected_; }
  const Status& failure() const { return failure_; }

 private:
  enum class Life { absent, present, left };

  struct Wait {
    rendezvous_wire::Kind kind;
    std::string name;
    Duration timeout;
    Time deadline;
  };

  struct Member {
    Life life = Life::absent;
    std::string address;
    std::optional<Wait> wait{};
    std::string gathered{};  // what it gave to the gather that it waits in
  };

  struct Value {
    std::string bytes;
    int publisher;
  };

  void put(int rank, const rendezvous_wire::Request& request);
  void get(int rank, const rendezvous_wire::Request& request, Time deadline);
  /// A fence, or a gather, which is a fence that carries values.
  void meet(int rank, const rendezvous_wire::Request& request, Time deadline);
  void goodbye(int rank);
  void fail(int rank, std::string_view reason);

  void answer(int rank, const rendezvous_wire::Answer& answer);
  void refuse(int rank, Code code, const std::string& message);
  void refuse_meeting(Code code, const std::string& message);
  void fail(Status failure);
  bool in_meeting(int rank) const;
  std::string timeout_message(const Wait& wait) const;
  /// "rank 2", "ranks 2, 5": those for which `holds`.
  std::string ranks_that(const std::function<bool(int)>& holds) const;
  std::string absent_ranks() const;

  Send send_;
  std::vector<Member> members_;
  std::map<std::string, Value, std::less<>> values_;
  std::size_t stored_bytes_ = 0;
  int connected_ = 0;
  int arrivals_ = 0;         // at the fence or gather of now
  Time overdue_at_ = never;  // who has not joined until then
  Status failure_;
  std::string turned_away_;  // why the last worker was that did not get in
};

}  // namespace slip

#pragma GCC visibility pop
