#include "slipstream/trainer/graph.h"

#include <span>
#include <utility>

#include "slipstream/c_api/handles_internal.h"

using slip::guarded;
using slip::c_api::given;

namespace {

int list(const slip_graph* graph, int rank, const int** ranks,
         std::span<const int> (slip::Graph::*neighbours)(int) const) {
  if (graph == nullptr || rank < 0 || rank >= graph->graph.size()) return -1;
  const std::span<const int> found = (graph->graph.*neighbours)(rank);
  if (ranks != nullptr) *ranks = found.data();
  return static_cast<int>(found.size());
}

}  // namespace

slip_status slip_graph_create(const char* name_or_file, int workers, slip_graph** graph) {
  return guarded([&] {
    given(graph, "graph") = nullptr;
    *graph = new slip_graph{slip::Graph::make(&given(name_or_file, "name_or_file"), workers)};
  });
}

void slip_graph_free(slip_graph* graph) { delete graph; }

int slip_graph_in(const slip_graph* graph, int rank, const int** ranks) {
  return list(graph, rank, ranks, &slip::Graph::neighbours_in);
}

int slip_graph_out(const slip_graph* graph, int rank, const int** ranks) {
  return list(graph, rank, ranks, &slip::Graph::neighbours_out);
}
