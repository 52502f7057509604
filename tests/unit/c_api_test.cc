#include <gmock/gmock.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "slipstream.h"
#include "slipstream/c_api/bridge.h"

namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// Runs `work(world)` as so many workers; a lambda without captures shares through `context`.
template <class Work>
slip_status launch(int workers, Work work) {
  return slip_launch(
      workers,
      [](slip_world* world, void* context) { return (*static_cast<Work*>(context))(world); },
      &work);
}

/// For the middle of a worker: what it returns where a call failed.
#define SLIP_TRY(call)                                    \
  do {                                                    \
    const slip_status status_of_call = (call);            \
    if (status_of_call != SLIP_OK) return status_of_call; \
  } while (false)

slip_trainer_options trainer_options() {
  slip_trainer_options options;
  slip_trainer_options_init(&options, sizeof options);
  return options;
}

slip_parameter part(double* data, std::size_t count) {
  return {sizeof(slip_parameter), data, count, SLIP_FLOAT64, 0};
}

/// f_i(x) = (x - i)^2 / 2 for rank i: the mean's minimum is the mean of the ranks.
slip_status train(slip_world* world, const slip_trainer_options& options, double* x,
                  std::uint64_t* done = nullptr) {
  const slip_parameter parameter = part(x, 1);
  slip_trainer* trainer = nullptr;
  SLIP_TRY(slip_trainer_create(world, &parameter, 1, &options, &trainer));
  auto* gradient = static_cast<double*>(slip_trainer_gradient(trainer));
  while (slip_trainer_running(trainer) != 0) {
    gradient[0] = *static_cast<double*>(slip_trainer_parameters(trainer)) - slip_world_rank(world);
    if (slip_trainer_step(trainer, gradient) != SLIP_OK) break;
  }
  slip_status status = slip_trainer_status(trainer);
  if (status == SLIP_OK) status = slip_trainer_average(trainer);
  if (done != nullptr) *done = slip_trainer_done(trainer);
  slip_trainer_free(trainer);
  return status;
}

TEST(CStatus, codes_are_those_of_cpp_and_grouped_by_what_is_damaged) {
  EXPECT_EQ(slip_damage(SLIP_OK), SLIP_DAMAGE_NONE);
  EXPECT_EQ(slip_damage(SLIP_TIMEOUT), SLIP_DAMAGE_OPERATION);
  EXPECT_EQ(slip_damage(SLIP_PEER_LOST), SLIP_DAMAGE_PEER);
  EXPECT_EQ(slip_damage(SLIP_GROUP_BROKEN), SLIP_DAMAGE_GROUP);
  EXPECT_EQ(slip_damage(SLIP_ABORTED), SLIP_DAMAGE_WORLD);
  for (const auto& [code, name] : {std::pair{SLIP_OK, "ok"},
                                   {SLIP_INVALID_ARGUMENT, "invalid_argument"},
                                   {SLIP_TIMEOUT, "timeout"},
                                   {SLIP_OUT_OF_MEMORY, "out_of_memory"},
                                   {SLIP_NOT_SUPPORTED, "not_supported"},
                                   {SLIP_NOT_FOUND, "not_found"},
                                   {SLIP_IO, "io"},
                                   {SLIP_BAD_DATA, "bad_data"},
                                   {SLIP_PEER_LOST, "peer_lost"},
                                   {SLIP_PEER_MISMATCH, "peer_mismatch"},
                                   {SLIP_GROUP_BROKEN, "group_broken"},
                                   {SLIP_ABORTED, "aborted"},
                                   {SLIP_BOOTSTRAP_FAILED, "bootstrap_failed"},
                                   {SLIP_STOPPED, "stopped"}}) {
    EXPECT_STREQ(slip_status_name(code), name);
  }
  EXPECT_STREQ(slip_status_name(static_cast<slip_status>(409)), "unknown");
}

TEST(CStatus, the_library_is_as_new_as_its_header) {
  EXPECT_STREQ(slip_version(), SLIP_VERSION);
  EXPECT_EQ(std::string(SLIP_VERSION), std::to_string(SLIP_VERSION_MAJOR) + "." +
                                           std::to_string(SLIP_VERSION_MINOR) + "." +
                                           std::to_string(SLIP_VERSION_PATCH));
}

TEST(CStatus, the_last_error_stays_until_another_call_fails) {
  slip_graph* graph = nullptr;
  EXPECT_EQ(slip_graph_create("rink", 4, &graph), SLIP_INVALID_ARGUMENT);
  EXPECT_EQ(graph, nullptr);
  const std::string message = slip_last_error();
  EXPECT_THAT(message, HasSubstr("rink"));
  ASSERT_EQ(slip_graph_create("ring", 4, &graph), SLIP_OK);
  EXPECT_EQ(slip_last_error(), message);
  EXPECT_EQ(slip_last_error_peer(), -1);
  slip_graph_free(graph);
}

TEST(CStatus, a_null_handle_is_an_invalid_argument_and_never_a_crash) {
  EXPECT_EQ(slip_world_status(nullptr), SLIP_INVALID_ARGUMENT);
  EXPECT_STREQ(slip_last_error(), "world is NULL");
  EXPECT_EQ(slip_world_connect(nullptr, nullptr), SLIP_INVALID_ARGUMENT);
  EXPECT_EQ(slip_world_rank(nullptr), -1);
  EXPECT_EQ(slip_world_size(nullptr), 0);
  slip_trainer* trainer = nullptr;
  EXPECT_EQ(slip_trainer_create(nullptr, nullptr, 0, nullptr, &trainer), SLIP_INVALID_ARGUMENT);
  EXPECT_EQ(slip_trainer_step(nullptr, nullptr), SLIP_INVALID_ARGUMENT);
  EXPECT_EQ(slip_trainer_running(nullptr), 0);
  EXPECT_EQ(slip_trainer_parameters(nullptr), nullptr);
  EXPECT_EQ(slip_partial_all_reduce_mean(nullptr, 1, nullptr, 0, nullptr), SLIP_INVALID_ARGUMENT);
  EXPECT_EQ(slip_tokens_announce(nullptr, 0), SLIP_INVALID_ARGUMENT);
  EXPECT_EQ(slip_update_queue_enqueue(nullptr, 0, 0, nullptr), SLIP_INVALID_ARGUMENT);
  EXPECT_EQ(slip_update_queue_arrived(nullptr, 0, 0), 0);
  slip_world_free(nullptr);
  slip_trainer_free(nullptr);
  slip_graph_free(nullptr);
  slip_tokens_free(nullptr);
  slip_update_queue_free(nullptr);
  slip_partial_all_reduce_free(nullptr);
}

TEST(CStatus, an_exception_of_a_callback_becomes_a_status) {
  const auto thrower = [](void*) { throw std::runtime_error("from the callback"); };
  EXPECT_EQ(launch(1,
                   [&](slip_world* world) {
                     EXPECT_EQ(slip_world_compute(world, thrower, nullptr), SLIP_ABORTED);
                     EXPECT_STREQ(slip_last_error(), "from the callback");
                     EXPECT_EQ(slip_world_compute(
                                   world, [](void*) { throw 1; }, nullptr),
                               SLIP_ABORTED);
                     return SLIP_OK;
                   }),
            SLIP_OK);
}

// An older program's struct is shorter, a newer one's longer.
TEST(CStructs, the_defaults_are_written_as_far_as_the_struct_reaches) {
  slip_world_options options;
  std::memset(&options, 0x55, sizeof options);
  slip_world_options_init(&options, offsetof(slip_world_options, wait_timeout));
  EXPECT_EQ(options.size, offsetof(slip_world_options, wait_timeout));
  EXPECT_DOUBLE_EQ(options.join_timeout, 30);
  double untouched;
  std::memset(&untouched, 0x55, sizeof untouched);
  EXPECT_EQ(options.wait_timeout, untouched);

  slip_world* world = nullptr;
  ASSERT_EQ(slip_world_connect(&options, &world), SLIP_OK) << slip_last_error();
  EXPECT_EQ(slip_world_size(world), 1);
  slip_world_free(world);
}

TEST(CStructs, a_device_that_is_none_is_refused) {
  slip_world_options options;
  slip_world_options_init(&options, sizeof options);
  EXPECT_EQ(options.device, SLIP_HOST);
  options.device = -1;
  slip_world* world = nullptr;
  EXPECT_EQ(slip_world_connect(&options, &world), SLIP_INVALID_ARGUMENT);
  EXPECT_THAT(slip_last_error(), HasSubstr("slip_world_options.device is -1; allowed are"));
}

TEST(CStructs, a_field_that_the_library_does_not_know_is_refused_unless_it_is_zero) {
  struct {
    slip_world_options known;
    double newer;
  } options;
  slip_world_options_init(&options.known, sizeof options);
  EXPECT_EQ(options.newer, 0);
  slip_world* world = nullptr;
  ASSERT_EQ(slip_world_connect(&options.known, &world), SLIP_OK) << slip_last_error();
  slip_world_free(world);
  options.newer = 1;
  EXPECT_EQ(slip_world_connect(&options.known, &world), SLIP_NOT_SUPPORTED);
  EXPECT_EQ(world, nullptr);
  EXPECT_THAT(slip_last_error(), HasSubstr("slip_world_options has fields"));
}

TEST(CStructs, one_that_was_not_initialised_is_told_of) {
  slip_world_options options = {};
  slip_world* world = nullptr;
  EXPECT_EQ(slip_world_connect(&options, &world), SLIP_INVALID_ARGUMENT);
  EXPECT_THAT(slip_last_error(), HasSubstr("slip_world_options_init"));
}

TEST(CWorld, a_worker_that_fails_ends_the_others_waits_and_its_error_is_returned) {
  std::atomic<int> ended = 0;
  EXPECT_EQ(launch(3,
                   [&](slip_world* world) -> slip_status {
                     EXPECT_EQ(slip_world_size(world), 3);
                     if (slip_world_rank(world) == 1) {
                       slip_graph* graph = nullptr;
                       return slip_graph_create("rink", 3, &graph);
                     }
                     const slip_status status = slip_world_wait_until(
                         world, [](void*) { return 0; }, nullptr, -1, "what never comes");
                     ended += slip_damage(status) == SLIP_DAMAGE_OPERATION ? 0 : 1;
                     return status;
                   }),
            SLIP_INVALID_ARGUMENT);
  EXPECT_THAT(slip_last_error(), HasSubstr("rink"));
  EXPECT_EQ(ended, 2);
}

TEST(CWorld, a_wait_ends_at_its_deadline_and_says_what_for) {
  EXPECT_EQ(launch(1,
                   [](slip_world* world) {
                     EXPECT_EQ(slip_world_wait_until(
                                   world, [](void*) { return 0; }, nullptr, 0.01, "rain"),
                               SLIP_TIMEOUT);
                     EXPECT_THAT(slip_last_error(), HasSubstr("rain"));
                     return SLIP_OK;
                   }),
            SLIP_OK);
}

TEST(CWorld, an_aborted_world_says_why) {
  EXPECT_EQ(launch(1,
                   [](slip_world* world) {
                     EXPECT_EQ(slip_world_status(world), SLIP_OK);
                     EXPECT_EQ(slip_world_fail(world, "no disk"), SLIP_OK);
                     EXPECT_EQ(slip_world_status(world), SLIP_STOPPED);
                     EXPECT_STREQ(slip_last_error(), "no disk");
                     return SLIP_OK;
                   }),
            SLIP_OK);
}

TEST(CWorld, counters_fill_the_callers_struct) {
  EXPECT_EQ(launch(2,
                   [](slip_world* world) {
                     double x = 0;
                     slip_trainer_options options = trainer_options();
                     options.iterations = 10;
                     SLIP_TRY(train(world, options, &x));
                     slip_counters counters = {};
                     EXPECT_EQ(slip_world_counters(world, &counters), SLIP_INVALID_ARGUMENT);
                     counters.size = sizeof counters;
                     EXPECT_EQ(slip_world_counters(world, &counters), SLIP_OK);
                     EXPECT_EQ(counters.iteration, 9u);
                     EXPECT_EQ(counters.updates_sent, 10u);
                     return SLIP_OK;
                   }),
            SLIP_OK)
      << slip_last_error();
}

TEST(CTrainer, hop_trains_to_the_mean_of_the_targets) {
  std::array<double, 4> x = {};
  EXPECT_EQ(launch(4,
                   [&](slip_world* world) {
                     slip_trainer_options options = trainer_options();
                     options.settings = "max_gap=3";
                     options.learning_rate = 0.05;
                     options.iterations = 400;
                     return train(world, options, &x[slip_world_rank(world)]);
                   }),
            SLIP_OK)
      << slip_last_error();
  for (const double value : x) {
    EXPECT_NEAR(value, 1.5, 1e-6);
    EXPECT_EQ(value, x[0]);
  }
}

TEST(CTrainer, the_callers_own_optimizer_changes_the_parameters) {
  EXPECT_EQ(launch(2,
                   [](slip_world* world) {
                     double x[2] = {1, 2};
                     const slip_parameter parts[] = {part(x, 1), part(x + 1, 1)};
                     slip_trainer_options options = trainer_options();
                     options.iterations = 3;
                     slip_trainer* trainer = nullptr;
                     SLIP_TRY(slip_trainer_create(world, parts, 2, &options, &trainer));
                     EXPECT_EQ(slip_trainer_count(trainer), 2u);
                     while (slip_trainer_running(trainer) != 0) {
                       SLIP_TRY(slip_trainer_step_with(
                           trainer,
                           [](void* parameters, std::size_t count, void* context) {
                             for (std::size_t i = 0; i < count; ++i) {
                               static_cast<double*>(parameters)[i] += *static_cast<int*>(context);
                             }
                           },
                           std::array{10}.data()));
                     }
                     SLIP_TRY(slip_trainer_status(trainer));
                     EXPECT_THAT(x, ElementsAre(31, 32));
                     slip_trainer_free(trainer);
                     return SLIP_OK;
                   }),
            SLIP_OK)
      << slip_last_error();
}

TEST(CTrainer, a_wrong_option_names_what_is_allowed) {
  const auto refused = [](slip_trainer_options options) {
    std::string message;
    launch(1, [&](slip_world* world) {
      double x = 0;
      EXPECT_EQ(train(world, options, &x), SLIP_INVALID_ARGUMENT);
      message = slip_last_error();
      return SLIP_OK;
    });
    return message;
  };
  slip_trainer_options options = trainer_options();
  options.protocol = "hopp";
  EXPECT_THAT(refused(options), AllOf(HasSubstr("hopp"), HasSubstr("hop")));
  options = trainer_options();
  options.settings = "max_gap=3 backups=1";
  EXPECT_THAT(refused(options), AllOf(HasSubstr("backups"), HasSubstr("'backup'")));
  options.settings = "max_gap=0";
  EXPECT_THAT(refused(options), HasSubstr("max_gap"));
  options.settings = "max_gap";
  EXPECT_THAT(refused(options), HasSubstr("name=value"));
  options = trainer_options();
  options.target_metric = "speed";
  EXPECT_THAT(refused(options), HasSubstr("loss, accuracy"));
  options = trainer_options();
  options.evaluate_every = 5;
  EXPECT_THAT(refused(options), HasSubstr("evaluate is NULL"));
}

TEST(CTrainer, workers_that_disagree_are_both_named) {
  EXPECT_EQ(launch(2,
                   [](slip_world* world) {
                     slip_trainer_options options = trainer_options();
                     options.iterations = 5;
                     options.agreed = slip_world_rank(world) == 0 ? "batch=32" : "batch=64";
                     double x = 0;
                     return train(world, options, &x);
                   }),
            SLIP_PEER_MISMATCH);
  EXPECT_THAT(slip_last_error(), AllOf(HasSubstr("batch=64"), HasSubstr("batch=32")));
}

TEST(CTrainer, stop_ends_all_at_one_iteration) {
  std::array<std::uint64_t, 3> done = {};
  EXPECT_EQ(launch(3,
                   [&](slip_world* world) {
                     double x = 0;
                     const slip_parameter parameter = part(&x, 1);
                     slip_trainer_options options = trainer_options();
                     slip_trainer* trainer = nullptr;
                     SLIP_TRY(slip_trainer_create(world, &parameter, 1, &options, &trainer));
                     while (slip_trainer_running(trainer) != 0) {
                       if (slip_world_rank(world) == 1 && slip_trainer_iteration(trainer) == 7) {
                         slip_trainer_stop(trainer);
                       }
                       double gradient = 0;
                       SLIP_TRY(slip_trainer_step(trainer, &gradient));
                     }
                     done[slip_world_rank(world)] = slip_trainer_done(trainer);
                     slip_trainer_free(trainer);
                     return SLIP_OK;
                   }),
            SLIP_OK)
      << slip_last_error();
  EXPECT_GE(done[0], 7u);
  EXPECT_THAT(done, ElementsAre(done[0], done[0], done[0]));
}

TEST(CTrainer, a_target_of_the_callers_evaluation_ends_the_run) {
  std::uint64_t done = 0;
  EXPECT_EQ(
      launch(2,
             [&](slip_world* world) {
               slip_trainer_options options = trainer_options();
               options.evaluate_every = 5;
               options.target_metric = "loss";
               options.target_value = 1e-3;
               options.evaluate = [](const void* x, slip_evaluation* result, void* goal) {
                 const double error = *static_cast<const double*>(x) - *static_cast<double*>(goal);
                 result->loss = error * error;
               };
               double goal = 0.5;
               options.context = &goal;
               double x = 4;
               return train(world, options, &x, slip_world_rank(world) == 0 ? &done : nullptr);
             }),
      SLIP_OK)
      << slip_last_error();
  EXPECT_GE(done, 5u);
}

TEST(CTrainer, a_saved_run_goes_on) {
  const std::string path =
      ::testing::TempDir() + "/c_api_test." + std::to_string(::getpid()) + ".model";
  EXPECT_EQ(launch(1,
                   [&](slip_world* world) {
                     for (const std::uint64_t until : {5, 8}) {
                       double x = 0;
                       const slip_parameter parameter = part(&x, 1);
                       slip_trainer_options options = trainer_options();
                       options.iterations = until;
                       slip_trainer* trainer = nullptr;
                       SLIP_TRY(slip_trainer_create(world, &parameter, 1, &options, &trainer));
                       if (until == 8) {
                         SLIP_TRY(slip_trainer_load(trainer, path.c_str()));
                         EXPECT_EQ(slip_trainer_iteration(trainer), 5u);
                         EXPECT_EQ(x, 5);
                       }
                       while (slip_trainer_running(trainer) != 0) {
                         double gradient = -10;  // times the learning rate
                         SLIP_TRY(slip_trainer_step(trainer, &gradient));
                       }
                       EXPECT_EQ(x, static_cast<double>(until));
                       SLIP_TRY(slip_trainer_save(trainer, path.c_str()));
                       EXPECT_EQ(slip_trainer_load(trainer, "/nowhere/model"), SLIP_NOT_FOUND);
                       slip_trainer_free(trainer);
                     }
                     return SLIP_OK;
                   }),
            SLIP_OK)
      << slip_last_error();
  std::remove(path.c_str());
}

TEST(CPartialAllReduce, any_group_averages_in_the_buffer_and_in_the_callers_memory) {
  EXPECT_EQ(launch(3,
                   [](slip_world* world) {
                     const int rank = slip_world_rank(world);
                     slip_partial_all_reduce* reduce = nullptr;
                     SLIP_TRY(slip_partial_all_reduce_create(world, "mean", 2, SLIP_FLOAT32,
                                                             nullptr, &reduce));
                     auto* buffer = static_cast<float*>(slip_partial_all_reduce_buffer(reduce));
                     buffer[0] = static_cast<float>(rank);
                     buffer[1] = 1;
                     const int all[] = {0, 1, 2};
                     SLIP_TRY(slip_partial_all_reduce_mean(reduce, 1, all, 3, nullptr));
                     buffer = static_cast<float*>(slip_partial_all_reduce_buffer(reduce));
                     EXPECT_EQ(buffer[0], 1);
                     const int some[] = {0, 2};
                     if (rank != 1) {
                       float mine[] = {static_cast<float>(10 * rank), 0};
                       SLIP_TRY(slip_partial_all_reduce_announce(reduce, 2, some, 2));
                       SLIP_TRY(slip_partial_all_reduce_mean(reduce, 2, some, 2, mine));
                       EXPECT_THAT(mine, ElementsAre(10, 0));
                     } else {
                       EXPECT_EQ(slip_partial_all_reduce_mean(reduce, 2, some, 2, nullptr),
                                 SLIP_INVALID_ARGUMENT);
                     }
                     slip_partial_all_reduce_free(reduce);
                     return SLIP_OK;
                   }),
            SLIP_OK)
      << slip_last_error();
}

TEST(CPartialAllReduce, an_unknown_algorithm_or_type_is_refused) {
  EXPECT_EQ(launch(1,
                   [](slip_world* world) {
                     slip_partial_all_reduce_options options;
                     slip_partial_all_reduce_options_init(&options, sizeof options);
                     options.algorithm = "magic";
                     slip_partial_all_reduce* reduce = nullptr;
                     EXPECT_EQ(slip_partial_all_reduce_create(world, "mean", 2, SLIP_FLOAT32,
                                                              &options, &reduce),
                               SLIP_INVALID_ARGUMENT);
                     EXPECT_THAT(slip_last_error(), HasSubstr("hierarchical"));
                     EXPECT_EQ(slip_partial_all_reduce_create(
                                   world, "mean", 2, static_cast<slip_dtype>(1 + SLIP_FLOAT64),
                                   nullptr, &reduce),
                               SLIP_INVALID_ARGUMENT);
                     EXPECT_EQ(reduce, nullptr);
                     return SLIP_OK;
                   }),
            SLIP_OK);
}

TEST(CGraph, lists_neighbours_in_order_and_knows_its_ranks) {
  slip_graph* graph = nullptr;
  ASSERT_EQ(slip_graph_create("ring", 4, &graph), SLIP_OK);
  const int* ranks = nullptr;
  ASSERT_EQ(slip_graph_in(graph, 0, &ranks), 2);
  EXPECT_THAT(std::vector<int>(ranks, ranks + 2), ElementsAre(1, 3));
  EXPECT_EQ(slip_graph_out(graph, 3, nullptr), 2);
  EXPECT_EQ(slip_graph_in(graph, 4, &ranks), -1);
  EXPECT_EQ(slip_graph_in(nullptr, 0, &ranks), -1);
  slip_graph_free(graph);
}

struct Hop {
  slip_update_queue* queue;
  slip_tokens* tokens;
  std::uint64_t iteration;
  int neighbours;
};

// The pieces of a protocol: send, wait for all of an iteration, average, give tokens, enter.
TEST(CQueues, neighbours_average_through_queues_and_tokens) {
  std::array<double, 4> x = {};
  EXPECT_EQ(launch(4,
                   [&](slip_world* world) {
                     const int rank = slip_world_rank(world);
                     slip_graph* graph = nullptr;
                     SLIP_TRY(slip_graph_create("ring", 4, &graph));
                     Hop hop = {nullptr, nullptr, 0, slip_graph_in(graph, rank, nullptr)};
                     constexpr int max_gap = 2;
                     SLIP_TRY(slip_tokens_create(world, "tokens", graph, max_gap, &hop.tokens));
                     SLIP_TRY(slip_update_queue_create(world, "queue", graph, sizeof(double),
                                                       max_gap + 1, nullptr, &hop.queue));
                     double& mine = x[rank];
                     mine = rank;
                     for (hop.iteration = 0; hop.iteration < 60; ++hop.iteration) {
                       SLIP_TRY(slip_world_wait_until(
                           world,
                           [](void* c) {
                             auto* h = static_cast<Hop*>(c);
                             return slip_tokens_may_enter(h->tokens, h->iteration);
                           },
                           &hop, -1, "tokens"));
                       SLIP_TRY(slip_tokens_announce(hop.tokens, hop.iteration));
                       for (int out = 0; out < slip_graph_out(graph, rank, nullptr); ++out) {
                         SLIP_TRY(slip_update_queue_enqueue(hop.queue, out, hop.iteration, &mine));
                       }
                       SLIP_TRY(slip_world_wait_until(
                           world,
                           [](void* c) {
                             auto* h = static_cast<Hop*>(c);
                             return slip_update_queue_size(h->queue, h->iteration) == h->neighbours
                                        ? 1
                                        : 0;
                           },
                           &hop, -1, "updates"));
                       double sum = mine;
                       for (int in = 0; in < hop.neighbours; ++in) {
                         SLIP_TRY(slip_update_queue_verify(hop.queue, in, hop.iteration));
                         sum += *static_cast<const double*>(
                             slip_update_queue_update(hop.queue, in, hop.iteration));
                       }
                       mine = sum / (hop.neighbours + 1);
                     }
                     SLIP_TRY(slip_tokens_announce_finished(hop.tokens));
                     SLIP_TRY(slip_world_fence(world));
                     slip_update_queue_free(hop.queue);
                     slip_tokens_free(hop.tokens);
                     slip_graph_free(graph);
                     return SLIP_OK;
                   }),
            SLIP_OK)
      << slip_last_error();
  for (const double value : x) EXPECT_NEAR(value, 1.5, 1e-9);
}

TEST(CQueues, what_is_no_neighbour_or_has_not_come_is_refused) {
  EXPECT_EQ(
      launch(
          2,
          [](slip_world* world) {
            slip_graph* graph = nullptr;
            SLIP_TRY(slip_graph_create("ring", 2, &graph));
            slip_update_queue* queue = nullptr;
            EXPECT_EQ(slip_update_queue_create(world, "bad", graph, 8, 0, nullptr, &queue),
                      SLIP_INVALID_ARGUMENT);
            SLIP_TRY(slip_update_queue_create(world, "queue", graph, 8, 2, nullptr, &queue));
            slip_tokens* tokens = nullptr;
            EXPECT_EQ(slip_tokens_create(world, "bad", graph, 0, &tokens), SLIP_INVALID_ARGUMENT);
            SLIP_TRY(slip_tokens_create(world, "tokens", graph, 3, &tokens));
            const double x = 0;
            EXPECT_EQ(slip_update_queue_enqueue(queue, 1, 0, &x), SLIP_INVALID_ARGUMENT);
            EXPECT_EQ(slip_update_queue_verify(queue, 0, 5), SLIP_INVALID_ARGUMENT);
            EXPECT_EQ(slip_update_queue_update(queue, 0, 5), nullptr);
            EXPECT_EQ(slip_update_queue_arrived(queue, 1, 0), 0);
            EXPECT_EQ(slip_tokens_count(tokens, 0, 0), 2);
            EXPECT_EQ(slip_tokens_count(tokens, 1, 0), 0);
            EXPECT_EQ(slip_tokens_passed(tokens, 0, 0), 0);
            EXPECT_EQ(slip_tokens_lag(tokens, 0), 0u);
            SLIP_TRY(slip_world_fence(world));
            slip_tokens_free(tokens);
            slip_update_queue_free(queue);
            slip_graph_free(graph);
            SLIP_TRY(slip_graph_create("ring", 3, &graph));
            EXPECT_EQ(slip_tokens_create(world, "other", graph, 1, &tokens), SLIP_INVALID_ARGUMENT);
            EXPECT_THAT(slip_last_error(), HasSubstr("a graph of 3 workers"));
            slip_graph_free(graph);
            return SLIP_OK;
          }),
      SLIP_OK)
      << slip_last_error();
}

TEST(CBridge, a_cpp_world_becomes_a_handle_and_back) {
  slip_world* handle = slip::to_c(slip::World::connect());
  EXPECT_EQ(slip_world_size(handle), 1);
  EXPECT_EQ(slip::from_c(handle).rank(), 0);
  slip_world_free(handle);
}

}  // namespace
