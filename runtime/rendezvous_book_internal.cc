#include "slipstream/runtime/rendezvous_book_internal.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "slipstream/runtime/bootstrap_internal.h"
#include "slipstream/runtime/posix_internal.h"

namespace slip {
namespace {

using rendezvous_wire::Answer;
using rendezvous_wire::Hello;
using rendezvous_wire::Kind;
using rendezvous_wire::Request;

constexpr std::size_t max_stored_bytes = std::size_t{1} << 30;
constexpr std::size_t max_listed_ranks = 16;
// Who keeps the first of a meeting waiting for this part of its patience is overdue.
constexpr int overdue_after = 6;

const char* name_of(Kind meeting) { return meeting == Kind::gather ? "gather" : "fence"; }

}  // namespace

RendezvousBook::RendezvousBook(int size, Send send)
    : send_(std::move(send)), members_(static_cast<std::size_t>(size)) {}

Status RendezvousBook::join(const Hello& hello, const std::string& address) {
  if (!failure_.ok()) return failure_;
  const int size = static_cast<int>(members_.size());
  const auto refused = [](std::string message) {
    return Status(Code::bootstrap_failed, std::move(message));
  };
  if (hello.size != size) {
    return refused(fmt::format("rank {} wants a world of {} workers, but this one has {}",
                               hello.rank, hello.size, size));
  }
  if (hello.rank < 0 || hello.rank >= size) {
    return refused(fmt::format("there is no rank {} in this world; its ranks are 0 to {}",
                               hello.rank, size - 1));
  }
  Member& member = members_[hello.rank];
  if (member.life != Life::absent) {
    return refused(fmt::format("rank {} {}; give every worker a rank of its own", hello.rank,
                               member.life == Life::present
                                   ? fmt::format("has joined already, from {}", member.address)
                                   : "has joined and left already"));
  }
  member.life = Life::present;
  member.address = address;
  ++connected_;
  return {};
}

void RendezvousBook::request(int rank, const Request& request, Time now) {
  if (!failure_.ok()) return;  // has been told
  Member& member = members_[rank];
  if (member.life != Life::present) throw Error(Code::bad_data, "a request after the goodbye");
  if (request.kind == Kind::goodbye) return goodbye(rank);
  if (request.kind == Kind::failed) return fail(rank, request.value);
  if (member.wait) throw Error(Code::bad_data, "a second request before the first was answered");
  const Time deadline = request.timeout >= never - now ? never : now + request.timeout;
  switch (request.kind) {
    case Kind::put:
      return put(rank, request);
    case Kind::get:
      return get(rank, request, deadline);
    default:
      return meet(rank, request, deadline);
  }
}

void RendezvousBook::put(int rank, const Request& request) {
  if (const auto found = values_.find(request.name); found != values_.end()) {
    return refuse(rank, Code::bootstrap_failed,
                  published_twice(rank, request.name, found->second.publisher));
  }
  const std::size_t bytes = request.name.size() + request.value.size();
  if (bytes > max_stored_bytes - stored_bytes_) {
    return refuse(rank, Code::bootstrap_failed,
                  fmt::format("rank {} published '{}' when {} bytes were stored; {} are allowed",
                              rank, printable(request.name), stored_bytes_, max_stored_bytes));
  }
  stored_bytes_ += bytes;
  values_.emplace(request.name, Value{std::string(request.value), rank});
  answer(rank, {Kind::done});
  for (int r = 0; r < static_cast<int>(members_.size()); ++r) {
    const auto& wait = members_[r].wait;
    if (wait && wait->kind == Kind::get && wait->name == request.name) {
      answer(r, {Kind::done, request.value});
    }
  }
}

void RendezvousBook::get(int rank, const Request& request, Time deadline) {
  if (const auto found = values_.find(request.name); found != values_.end()) {
    return answer(rank, {Kind::done, found->second.bytes});
  }
  members_[rank].wait = Wait{Kind::get, std::string(request.name), request.timeout, deadline};
}

void RendezvousBook::meet(int rank, const Request& request, Time deadline) {
  const auto has_left = [this](int r) { return members_[r].life == Life::left; };
  if (const std::string left = ranks_that(has_left); !left.empty()) {
    return refuse(rank, Code::bootstrap_failed,
                  fmt::format("{} said goodbye before this {} of rank {}", left,
                              name_of(request.kind), rank));
  }
  const std::string name(request.name);
  const auto is_elsewhere = [&](int r) {
    return in_meeting(r) &&
           (members_[r].wait->kind != request.kind || members_[r].wait->name != name);
  };
  if (const std::string others = ranks_that(is_elsewhere); !others.empty()) {
    return refuse(rank, Code::bootstrap_failed,
                  fmt::format("rank {} came to the {} '{}' while {} waited in another", rank,
                              name_of(request.kind), printable(name), others));
  }
  members_[rank].wait = Wait{request.kind, name, request.timeout, deadline};
  members_[rank].gathered = request.value;
  if (arrivals_ == 0 && deadline != never) {
    overdue_at_ = deadline - request.timeout + request.timeout / overdue_after;
  }
  if (++arrivals_ < static_cast<int>(members_.size())) return;
  std::vector<std::string> values;
  std::size_t bytes = 0;
  if (request.kind == Kind::gather) {
    for (Member& member : members_) {
      bytes += member.gathered.size();
      values.push_back(std::exchange(member.gathered, {}));
    }
  }
  if (bytes > rendezvous_wire::max_value_bytes) {
    return refuse_meeting(Code::bootstrap_failed,
                          fmt::format("the values of '{}' have {} bytes together; {} are allowed",
                                      printable(name), bytes, rendezvous_wire::max_value_bytes));
  }
  const std::string all = values.empty() ? "" : rendezvous_wire::encode_values(values);
  for (int r = 0; r < static_cast<int>(members_.size()); ++r) answer(r, {Kind::done, all});
}

void RendezvousBook::goodbye(int rank) {
  if (in_meeting(rank)) --arrivals_;
  members_[rank].wait.reset();
  members_[rank].life = Life::left;
  refuse_meeting(Code::bootstrap_failed,
                 fmt::format("rank {} said goodbye while others wait for it", rank));
}

void RendezvousBook::fail(int rank, std::string_view reason) {
  const std::string who = fmt::format("rank {}: ", rank);
  fail(Status(Code::aborted, (reason.starts_with(who) ? "" : who) + printable(reason), rank));
}

void RendezvousBook::disconnect(int rank, const std::string& why) {
  Member& member = members_[rank];
  --connected_;
  if (member.life == Life::left) return;
  if (in_meeting(rank)) --arrivals_;
  member.wait.reset();
  member.life = Life::left;
  fail(Status(Code::peer_lost,
              fmt::format("rank {} ({}) left the rendezvous before it said goodbye: {}", rank,
                          member.address, why),
              rank));
}

void RendezvousBook::lose(int rank, const std::string& message) {
  if (members_[rank].life == Life::left) return;
  fail(Status(Code::peer_lost, message, rank));
}

void RendezvousBook::expire(Time now) {
  for (int r = 0; r < static_cast<int>(members_.size()); ++r) {
    const auto& wait = members_[r].wait;
    if (!wait || wait->deadline > now) continue;
    const std::string message = timeout_message(*wait);
    if (wait->kind == Kind::get) {
      refuse(r, Code::timeout, message);
    } else {
      // For all who wait in it, so that each learns who was missing and none blames another.
      refuse_meeting(Code::timeout, message);
    }
  }
}

std::string RendezvousBook::overdue(Time now) {
  if (now < overdue_at_) return "";
  overdue_at_ = never;
  return failure_.ok() ? absent_ranks() : "";
}

Time RendezvousBook::next_deadline() const {
  Time next = overdue_at_;
  for (const Member& member : members_) {
    if (member.wait) next = std::min(next, member.wait->deadline);
  }
  return next;
}

void RendezvousBook::answer(int rank, const Answer& answer) {
  if (in_meeting(rank)) --arrivals_;
  members_[rank].wait.reset();
  send_(rank, rendezvous_wire::encode(answer));
}

void RendezvousBook::refuse(int rank, Code code, const std::string& message) {
  answer(rank, {Kind::refused, {}, Status(code, message)});
}

void RendezvousBook::refuse_meeting(Code code, const std::string& message) {
  for (int r = 0; r < static_cast<int>(members_.size()); ++r) {
    if (in_meeting(r)) refuse(r, code, message);
  }
}

void RendezvousBook::fail(Status failure) {
  if (!failure_.ok()) return;
  failure_ = std::move(failure);
  for (int r = 0; r < static_cast<int>(members_.size()); ++r) {
    if (members_[r].life == Life::present) answer(r, {Kind::lost, {}, failure_});
  }
}

bool RendezvousBook::in_meeting(int rank) const {
  return members_[rank].wait && members_[rank].wait->kind != Kind::get;
}

std::string RendezvousBook::timeout_message(const Wait& wait) const {
  const std::string absent = absent_ranks();
  std::string never_joined = absent.empty() ? "" : fmt::format("; {} never joined", absent);
  if (!absent.empty() && !turned_away_.empty()) {
    never_joined += fmt::format("; a worker was refused: {}", turned_away_);
  }
  if (wait.kind != Kind::get) {
    return fmt::format("a {} waited {:g} s for {}{}", name_of(wait.kind), to_seconds(wait.timeout),
                       ranks_that([this](int r) { return !in_meeting(r); }), never_joined);
  }
  return fmt::format("waited {:g} s for '{}', which no rank published{}", to_seconds(wait.timeout),
                     printable(wait.name), never_joined);
}

std::string RendezvousBook::absent_ranks() const {
  return ranks_that([this](int r) { return members_[r].life == Life::absent; });
}

std::string RendezvousBook::ranks_that(const std::function<bool(int)>& holds) const {
  std::vector<int> ranks;
  for (int r = 0; r < static_cast<int>(members_.size()); ++r) {
    if (holds(r)) ranks.push_back(r);
  }
  if (ranks.empty()) return "";
  const std::size_t listed = std::min(ranks.size(), max_listed_ranks);
  const std::size_t others = ranks.size() - listed;
  ranks.resize(listed);
  return fmt::format("{} {}{}", listed + others == 1 ? "rank" : "ranks", fmt::join(ranks, ", "),
                     others == 0 ? "" : fmt::format(" and {} more", others));
}

}  // namespace slip
