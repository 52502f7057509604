#include "slipstream/collectives/arbiter.h"

#include <fmt/format.h>

#include <cstring>
#include <optional>

namespace slip {
namespace {

/// What a worker says, with the iteration that it is in.
struct Report {
  enum What : std::uint64_t { begins, has_finished, slack_is_over };
  std::uint64_t what;
  Word word;
};

/// What it is told. `sealed`: behind it the members' bits. `may_end`, to the worker by whom that
/// became so: behind it the nanoseconds of slack.
struct Message {
  enum What : std::uint64_t { sealed, may_end };
  std::uint64_t what;
  Word word;
};

std::size_t message_bytes(int workers) {
  return sizeof(Message) + Dtur::words(workers) * sizeof(std::uint64_t);
}

/// A worker says one of each before it waits. It may be told of less than two iterations per edge
/// while it computes, as in two epochs no more end without it.
ServiceRingSizes ring_sizes(int workers) {
  const std::size_t seals = 2 * static_cast<std::size_t>(workers) + 4;
  return {.requests = ring_capacity(3 * ring_layout::record_bytes(sizeof(Report))),
          .told = ring_capacity(seals * ring_layout::record_bytes(message_bytes(workers)))};
}

}  // namespace

/// Rank 0's part: on its progress thread, but for the constructor.
class Arbiter::Server {
 public:
  Server(const World& world, std::string_view name, const ArbiterOptions& options,
         ServiceRings& own)
      : world_(world),
        options_(options),
        dtur_(world.size(), options.tree, options.floor),
        incarnations_(static_cast<std::size_t>(world.size())),
        desk_(world, name, ring_sizes(world.size()), own) {
    // Whose reports are here have all finished in time.
    desk_.open([this](int rank, std::span<const std::byte> report) { return note(rank, report); },
               [this] { return decide(); });
  }

 private:
  Status note(int rank, std::span<const std::byte> message) {
    Report report{};
    if (message.size() != sizeof report) return senseless(rank);
    std::memcpy(&report, message.data(), sizeof report);
    std::uint16_t& incarnation = incarnations_[static_cast<std::size_t>(rank)];
    if (incarnation == 0) incarnation = incarnation_of(report.word);
    if (incarnation_of(report.word) != incarnation) return senseless(rank);
    const Iteration k = iteration_of(report.word);
    if (!open_) {  // the first that begins
      open_ = k;
      opened_ = world_.now();
    }
    if (k > *open_) return senseless(rank);
    switch (report.what) {
      case Report::begins:
        return {};
      case Report::has_finished:
        if (k < *open_ && !options_.carry) return {};  // too late: the iteration has been sealed
        if (dtur_.has_finished(rank)) return senseless(rank);
        dtur_.finished(rank);
        last_ = rank;
        return {};
      case Report::slack_is_over:
        slack_over_ |= k == *open_;
        return {};
      default:
        return senseless(rank);
    }
  }

  /// Ends the iteration if it is time. With slack, a worker that waits anyway keeps the time.
  Status decide() {
    if (!dtur_.may_end()) return {};
    const bool at_once = options_.slack == 0 || slack_over_ || dtur_.all_finished();
    if (at_once) return seal();
    if (in_slack_) return {};
    in_slack_ = true;
    const auto slack = static_cast<std::int64_t>(
        from_seconds(to_seconds(world_.now() - opened_) * options_.slack).count());
    return tell(last_, Message::may_end, std::as_bytes(std::span(&slack, 1)));
  }

  Status seal() {
    for (int rank = 0; rank < world_.size(); ++rank) {
      const Status s = tell(rank, Message::sealed, std::as_bytes(std::span(dtur_.members())));
      if (!s) return s;
    }
    dtur_.end();
    ++*open_;
    opened_ = world_.now();
    in_slack_ = slack_over_ = false;
    return {};
  }

  Status tell(int rank, Message::What what, std::span<const std::byte> body) {
    RingSender& ring = desk_.worker(rank);
    const Message message{what, make_word(world_.incarnation(), *open_)};
    std::byte* at = ring.claim(sizeof message + body.size());
    if (at == nullptr) {
      return {Code::bad_data, fmt::format("arbiter: rank {} does not take what it is told", rank),
              rank};
    }
    std::memcpy(at, &message, sizeof message);
    std::memcpy(at + sizeof message, body.data(), body.size());
    return ring.commit();
  }

  static Status senseless(int rank) {
    return {Code::bad_data, fmt::format("arbiter: a report of rank {} makes no sense", rank), rank};
  }

  const World& world_;
  const ArbiterOptions options_;
  Dtur dtur_;
  std::vector<std::uint16_t> incarnations_;  // by rank; 0: not heard of yet
  std::optional<Iteration> open_;
  Time opened_{0};
  int last_ = 0;  // who has finished last in it
  bool in_slack_ = false;
  bool slack_over_ = false;
  ServiceDesk desk_;  // the first to go: it stops calling the rest
};

Arbiter::Arbiter(const World& world, std::string_view name, const ArbiterOptions& options)
    : world_(&world), rings_(world, name, ring_sizes(world.size())) {
  if (world.rank() == 0) server_ = std::make_unique<Server>(world, name, options, rings_);
}

Arbiter::~Arbiter() = default;

std::size_t Arbiter::memory(int workers, int rank) {
  return ServiceRings::memory(workers, rank, ring_sizes(workers));
}

Status Arbiter::begin(Iteration first) {
  open_ = first;
  return say(Report::begins, first);
}

Status Arbiter::finished(Iteration k) { return say(Report::has_finished, k); }

Status Arbiter::end_slack() {
  slack_ends_ = never;
  return say(Report::slack_is_over, open_);
}

Status Arbiter::say(std::uint64_t what, Iteration k) {
  const Report report{what, make_word(world_->incarnation(), k)};
  return rings_.say(std::as_bytes(std::span(&report, 1)));
}

Status Arbiter::take(Seal* seal, bool* sealed) {
  bool makes_sense = false;
  const auto read = [&](std::span<const std::byte> message) {
    makes_sense = parse(message, seal, sealed);
  };
  if (Status s = rings_.take(read); !s) return s;
  if (makes_sense) return {};
  return {Code::bad_data,
          fmt::format("rank {}: what rank 0 says of iteration {} makes no sense", world_->rank(),
                      open_),
          0};
}

bool Arbiter::parse(std::span<const std::byte> bytes, Seal* seal, bool* sealed) {
  Message message{};
  if (bytes.size() < sizeof message) return false;
  std::memcpy(&message, bytes.data(), sizeof message);
  const std::span<const std::byte> body = bytes.subspan(sizeof message);
  if (arbiter_ == 0) arbiter_ = incarnation_of(message.word);
  if (incarnation_of(message.word) != arbiter_ || iteration_of(message.word) != open_) return false;
  if (message.what == Message::may_end) {
    std::int64_t slack = 0;
    if (body.size() != sizeof slack) return false;
    std::memcpy(&slack, body.data(), sizeof slack);
    if (slack < 0) return false;
    slack_ends_ = add(world_->now(), Duration(slack));
    *sealed = false;
    return true;
  }
  const std::size_t words = Dtur::words(world_->size());
  if (message.what != Message::sealed || body.size() != words * sizeof(std::uint64_t)) return false;
  seal->members.resize(words);
  std::memcpy(seal->members.data(), body.data(), body.size());
  const int last = world_->size() % 64;
  if (last != 0 && seal->members.back() >> last != 0) return false;
  seal->iteration = open_++;
  slack_ends_ = never;
  *sealed = true;
  return true;
}

}  // namespace slip
