// The background sender: what a window, a flush and answers do to what is posted, on every backend;
// and that no reader ever meets a torn message, whoever is faster.

#include "slipstream/collectives/mailbox.h"

#include <gmock/gmock.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <string>
#include <vector>

#include "conformance.h"
#include "slipstream/base/random.h"

namespace slip {
namespace {

using namespace std::chrono_literals;
using testing::Backend;
using Message = Mailbox::Message;

void expect_ok(const Status& status) { EXPECT_TRUE(status.ok()) << status.message(); }

std::byte pattern(int rank, int kind, Iteration round, std::size_t at) {
  return std::byte(
      mix(key({static_cast<std::uint64_t>(rank), static_cast<std::uint64_t>(kind), round}) + at));
}

constexpr std::size_t bytes = 5000;

Mailbox::Letter letter(Mailbox& mailbox, int rank, std::size_t out, int kind, Iteration round) {
  const auto buffer = mailbox.buffer(bytes);
  for (std::size_t i = 0; i < bytes; ++i) buffer.get()[i] = pattern(rank, kind, round, i);
  return {out, kind, round, buffer, 0, bytes};
}

void expect_whole(const Message& m, int sender) {
  for (std::size_t i = 0; i < bytes; ++i) {
    ASSERT_EQ(m.data[i], pattern(sender, m.kind, m.round, i)) << "torn at " << i;
  }
}

/// Looks again and again, as those do whom no message wakes.
void until(World& world, FunctionRef<bool()> condition) {
  const Time deadline = world.deadline();
  while (!condition()) {
    ASSERT_LT(world.now(), deadline);
    world.set_compute_time(100us);
    world.compute([] {});
  }
}

class MailboxTest : public ::testing::TestWithParam<Backend> {
 protected:
  void run(int workers, const testing::Work& work) {
    GetParam().run(workers, work, GetParam().defaults);
  }
};

TEST_P(MailboxTest, everybody_gets_whole_messages_that_get_newer_until_the_last) {
  constexpr int workers = 4, kinds = 3;
  constexpr Iteration rounds = 60;
  run(workers, [](World& world) {
    const auto all = testing::neighbourhood(Graph::named("complete", workers), world.rank());
    Mailbox mailbox(world, "mail", all, {.bytes = bytes, .kinds = kinds});
    std::vector<Iteration> newest(static_cast<std::size_t>(workers * kinds), 0);
    const auto look = [&] {
      for (const Message& m : mailbox.take()) {
        const int sender = all.in[m.in].peer;
        expect_whole(m, sender);
        Iteration& last = newest[static_cast<std::size_t>(sender * kinds + m.kind)];
        EXPECT_GT(m.round, last) << "a message was taken twice, or came late";
        last = m.round;
      }
      expect_ok(mailbox.give_back());
    };
    Random random(key({static_cast<std::uint64_t>(world.rank())}));
    for (Iteration round = 1; round <= rounds; ++round) {
      std::vector<Mailbox::Letter> letters;
      for (std::size_t out = 0; out < all.out.size(); ++out) {
        for (int kind = 0; kind < kinds; ++kind) {
          letters.push_back(letter(mailbox, world.rank(), out, kind, round));
        }
      }
      shuffle(letters, random);
      expect_ok(mailbox.post(letters, true));
      world.set_compute_time(std::chrono::microseconds(random.below(300)));
      world.compute([] {});
      look();
    }
    // Nothing flushes the last round.
    until(world, [&] {
      look();
      std::size_t here = 0;
      for (const Iteration round : newest) here += round == rounds;
      return here == static_cast<std::size_t>((workers - 1) * kinds);
    });
    world.bootstrap().fence(60s);
  });
}

TEST_P(MailboxTest, a_message_may_be_answered_while_its_receiver_computes) {
  run(2, [](World& world) {
    const auto pair = testing::neighbourhood(Graph::named("complete", 2), world.rank());
    Mailbox mailbox(world, "mail", pair,
                    {.bytes = bytes,
                     .kinds = 2,
                     .lost = [](const Message& m) { return m.round == 1; },
                     .answer = [&](const Message& m) -> std::optional<Mailbox::Letter> {
                       if (m.kind != 0) return std::nullopt;
                       const auto answer = std::shared_ptr<std::byte[]>(new std::byte[bytes]);
                       for (std::size_t i = 0; i < bytes; ++i) {
                         answer[i] = pattern(world.rank(), 1, m.round, i);
                       }
                       return Mailbox::Letter{m.in, 1, m.round, {answer, answer.get()}, 0, bytes};
                     }});
    if (world.rank() == 0) {
      for (const Iteration round : {1, 2}) {  // the first is lost
        const Mailbox::Letter question = letter(mailbox, 0, 0, 0, round);
        expect_ok(mailbox.post({&question, 1}, false));
      }
      until(world, [&] {
        const auto messages = mailbox.take();
        const bool here = !messages.empty();
        if (here) {
          EXPECT_EQ(messages[0].kind, 1);
          EXPECT_EQ(messages[0].round, 2u);
          expect_whole(messages[0], 1);
        }
        expect_ok(mailbox.give_back());
        return here;
      });
    } else {
      world.set_compute_time(20ms);
      world.compute([] {});
    }
    world.bootstrap().fence(60s);
  });
}

INSTANTIATE_TEST_SUITE_P(Backends, MailboxTest, ::testing::ValuesIn(testing::backends()),
                         [](const auto& info) { return info.param.name; });

/// Rank 0 posts a round every 10 ms over a link that takes 5 ms for a message, to 8 receivers.
std::vector<Iteration> rounds_received(bool flush, std::size_t* left = nullptr) {
  std::vector<Iteration> received;
  LaunchOptions simulated;
  simulated.kind = LaunchKind::simulated;
  simulated.world.network.link = {.bytes_per_second = bytes / 5e-3, .latency = 10us};
  launch(
      9,
      [&](World& world) {
        const auto star = testing::neighbourhood(Graph::named("star", 9), world.rank());
        Mailbox mailbox(world, "mail", star, {.bytes = bytes, .kinds = 1});
        for (Iteration round = 1; round <= 20; ++round) {
          if (world.rank() == 0) {
            std::vector<Mailbox::Letter> letters;
            for (std::size_t out = 0; out < 8; ++out) {
              letters.push_back(letter(mailbox, 0, out, 0, round));
            }
            expect_ok(mailbox.post(letters, flush));
          }
          world.set_compute_time(10ms);
          world.compute([] {});
          for (const Message& m : mailbox.take()) {
            expect_whole(m, star.in[m.in].peer);
            received.push_back(round - m.round);
          }
          expect_ok(mailbox.give_back());
        }
        if (world.rank() == 0 && left != nullptr) *left = mailbox.waiting();
      },
      simulated);
  return received;
}

TEST(Mailbox, a_flush_drops_what_was_not_posted_so_that_nothing_old_is_sent) {
  std::size_t left = 0;
  const auto ages = rounds_received(true, &left);
  EXPECT_GT(ages.size(), 20u) << "the link was not used";
  EXPECT_THAT(ages, ::testing::Each(::testing::Le(1u)));
  EXPECT_LE(left, 8u);
}

TEST(Mailbox, without_a_flush_messages_wait_longer_and_longer) {
  std::size_t left = 0;
  const auto ages = rounds_received(false, &left);
  EXPECT_GT(ages.size(), 20u);
  EXPECT_GT(*std::ranges::max_element(ages), 10u);
  EXPECT_GT(left, 100u);
}

}  // namespace
}  // namespace slip
