#include <fmt/format.h>

#include <cstddef>
#include <utility>

#include "slipstream/c_api/handles_internal.h"
#include "slipstream/runtime/tokens.h"
#include "slipstream/runtime/update_queue.h"

using slip::guarded;
using slip::c_api::given;

struct slip_tokens {
  slip::Tokens tokens;
  std::size_t out;  // neighbours
};

struct slip_update_queue {
  slip::UpdateQueue queue;
  std::size_t in;  // neighbours
  std::size_t out;
};

namespace {

slip::Neighbourhood neighbourhood(const slip::World& world, const slip_graph* graph) {
  const slip::Graph& g = given(graph, "graph").graph;
  if (g.size() != world.size()) {
    throw slip::Error(slip::Code::invalid_argument,
                      fmt::format("rank {}: a graph of {} workers in a world of {}", world.rank(),
                                  g.size(), world.size()));
  }
  return g.neighbourhood(world.rank());
}

slip::Status no_neighbour(std::size_t index, std::size_t count) {
  return {slip::Code::invalid_argument, fmt::format("neighbour {} of {}", index, count)};
}

bool holds(const slip_update_queue* queue, std::size_t in, uint64_t iteration) {
  return queue != nullptr && in < queue->in && queue->queue.arrived(in, iteration);
}

}  // namespace

slip_status slip_tokens_create(slip_world* world, const char* name, const slip_graph* graph,
                               int max_gap, slip_tokens** tokens) {
  return guarded([&] {
    given(tokens, "tokens") = nullptr;
    const slip::World& w = *given(world, "world").world;
    if (max_gap < 1) {
      throw slip::Error(slip::Code::invalid_argument,
                        fmt::format("max_gap is {}; allowed are integers from 1", max_gap));
    }
    const slip::Neighbourhood n = neighbourhood(w, graph);
    *tokens = new slip_tokens{slip::Tokens(w, &given(name, "name"), n, max_gap), n.out.size()};
  });
}

void slip_tokens_free(slip_tokens* tokens) { delete tokens; }

slip_status slip_tokens_announce(slip_tokens* tokens, uint64_t iteration) {
  return guarded([&] { return given(tokens, "tokens").tokens.announce(iteration); });
}

slip_status slip_tokens_announce_finished(slip_tokens* tokens) {
  return guarded([&] { return given(tokens, "tokens").tokens.announce_finished(); });
}

int slip_tokens_may_enter(const slip_tokens* tokens, uint64_t next) {
  return tokens != nullptr && tokens->tokens.may_enter(next) ? 1 : 0;
}

int64_t slip_tokens_count(const slip_tokens* tokens, size_t out, uint64_t own) {
  return tokens != nullptr && out < tokens->out ? tokens->tokens.count(out, own) : 0;
}

uint64_t slip_tokens_lag(const slip_tokens* tokens, uint64_t own) {
  return tokens != nullptr ? tokens->tokens.lag(own) : 0;
}

int slip_tokens_passed(const slip_tokens* tokens, size_t out, uint64_t iteration) {
  return tokens != nullptr && out < tokens->out && tokens->tokens.passed(out, iteration) ? 1 : 0;
}

void slip_update_queue_options_init(slip_update_queue_options* options, size_t size) {
  const slip::UpdateQueueOptions defaults;
  slip::c_api::write({.size = size,
                      .chunk_bytes = defaults.chunk_bytes,
                      .checksums = defaults.checksums ? 1 : 0,
                      .reserved = 0},
                     options, size);
}

slip_status slip_update_queue_create(slip_world* world, const char* name, const slip_graph* graph,
                                     size_t bytes, int depth,
                                     const slip_update_queue_options* options,
                                     slip_update_queue** queue) {
  return guarded([&] {
    given(queue, "queue") = nullptr;
    const slip_update_queue_options o =
        slip::c_api::read(options, slip_update_queue_options_init, "slip_update_queue_options");
    if (bytes == 0 || depth < 1 || o.chunk_bytes == 0) {
      throw slip::Error(slip::Code::invalid_argument,
                        fmt::format("an update queue of {} bytes in chunks of {}, depth {}; "
                                    "allowed are numbers from 1",
                                    bytes, o.chunk_bytes, depth));
    }
    const slip::World& w = *given(world, "world").world;
    const slip::Neighbourhood n = neighbourhood(w, graph);
    *queue = new slip_update_queue{slip::UpdateQueue(w, &given(name, "name"), n,
                                                     {.bytes = bytes,
                                                      .depth = depth,
                                                      .chunk_bytes = o.chunk_bytes,
                                                      .checksums = o.checksums != 0}),
                                   n.in.size(), n.out.size()};
  });
}

void slip_update_queue_free(slip_update_queue* queue) { delete queue; }

slip_status slip_update_queue_enqueue(slip_update_queue* queue, size_t out, uint64_t iteration,
                                      const void* update) {
  return guarded([&]() -> slip::Status {
    slip_update_queue& q = given(queue, "queue");
    if (out >= q.out) return no_neighbour(out, q.out);
    return q.queue.enqueue(out, iteration, &given(static_cast<const std::byte*>(update), "update"));
  });
}

int slip_update_queue_arrived(const slip_update_queue* queue, size_t in, uint64_t iteration) {
  return holds(queue, in, iteration) ? 1 : 0;
}

int slip_update_queue_size(const slip_update_queue* queue, uint64_t iteration) {
  return queue != nullptr ? queue->queue.size(iteration) : 0;
}

const void* slip_update_queue_update(const slip_update_queue* queue, size_t in,
                                     uint64_t iteration) {
  return holds(queue, in, iteration) ? queue->queue.update(in, iteration) : nullptr;
}

slip_status slip_update_queue_verify(const slip_update_queue* queue, size_t in,
                                     uint64_t iteration) {
  return guarded([&]() -> slip::Status {
    const slip_update_queue& q = given(queue, "queue");
    if (in >= q.in) return no_neighbour(in, q.in);
    if (!q.queue.arrived(in, iteration)) {
      return {slip::Code::invalid_argument,
              fmt::format("the update of iteration {} of neighbour {} is not here", iteration, in)};
    }
    return q.queue.verify(in, iteration);
  });
}
