// What mpi_test.py starts with mpirun: worlds out of communicators, beside MPI itself.

#include <mpi.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "slipstream/collectives/all_reduce.h"
#include "slipstream/runtime/world.h"
#include "slipstream_mpi.h"

namespace {

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "not so: %s\n", what);
  MPI_Abort(MPI_COMM_WORLD, 3);
}

/// The mean of 1 + rank over `communicator`, by MPI and by a world made of it.
void compare_means(MPI_Comm communicator) {
  int rank = 0;
  int size = 0;
  MPI_Comm_rank(communicator, &rank);
  MPI_Comm_size(communicator, &size);
  slip::World world = slip::World::from_mpi(communicator);
  require(world.rank() == rank && world.size() == size, "the world is the communicator's");
  std::vector<double> ours(1000, 1.0 + rank);
  std::vector<double> sums(ours.size());
  MPI_Allreduce(ours.data(), sums.data(), static_cast<int>(ours.size()), MPI_DOUBLE, MPI_SUM,
                communicator);
  slip::AllReduce all_reduce(world, "mean", ours.size(), slip::Dtype::float64);
  all_reduce.mean(slip::VectorView{ours.data(), ours.size(), slip::Dtype::float64})
      .throw_if_failed();
  for (std::size_t i = 0; i < ours.size(); ++i) {
    require(std::abs(ours[i] * size - sums[i]) < 1e-9, "both means are the same");
  }
}

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);

  compare_means(MPI_COMM_WORLD);

  MPI_Comm half = MPI_COMM_NULL;  // several worlds at once, and none of MPI_COMM_WORLD's ranks
  MPI_Comm_split(MPI_COMM_WORLD, rank % 2, -rank, &half);
  compare_means(half);
  MPI_Comm_free(&half);

  slip_world* world = nullptr;
  require(slip_world_from_mpi(MPI_COMM_WORLD, nullptr, &world) == SLIP_OK, "a world for C");
  require(slip_world_rank(world) == rank, "C sees the same rank");
  slip_world_free(world);
  require(slip_world_from_mpi(MPI_COMM_WORLD, nullptr, nullptr) != SLIP_OK, "NULL is refused");

  if (rank == 0) std::puts("all is as it should be");
  MPI_Finalize();
  return EXIT_SUCCESS;
}
