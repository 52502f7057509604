/* slip_peer_mpi_group SIZE ITERATIONS MEMBERS, under mpirun: all-reduce of float vectors of SIZE
   bytes among MEMBERS of the processes, in another group each time, whose communicator is made for
   it and freed behind it. All begin together. Rank 0 prints the mean and the median of the
   microseconds that the slowest member took for both. */

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

static int ascending(const void* a, const void* b) {
  const double x = *(const double*)a;
  const double y = *(const double*)b;
  return (x > y) - (x < y);
}

/* The next combination in lexicographic order, and the first behind the last. */
static void advance(int* members, int count, int size) {
  int i = count - 1;
  while (i >= 0 && members[i] == size - count + i) --i;
  if (i >= 0) {
    ++members[i];
  } else {
    members[i = 0] = 0;
  }
  for (++i; i < count; ++i) members[i] = members[i - 1] + 1;
}

static int contains(const int* members, int count, int rank) {
  for (int i = 0; i < count; ++i) {
    if (members[i] == rank) return 1;
  }
  return 0;
}

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0;
  int size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  const long bytes = argc == 4 ? atol(argv[1]) : 0;
  const int iterations = argc == 4 ? atoi(argv[2]) : 0;
  const int count = argc == 4 ? atoi(argv[3]) : 0;
  if (bytes < (long)sizeof(float) || iterations < 1 || count < 1 || count > size) {
    if (rank == 0) fprintf(stderr, "usage: slip_peer_mpi_group SIZE ITERATIONS MEMBERS\n");
    MPI_Abort(MPI_COMM_WORLD, 2);
  }
  const int warm_up = iterations / 10 + 1;
  float* send = calloc((size_t)bytes, 1);
  float* receive = calloc((size_t)bytes, 1);
  int* members = calloc((size_t)count, sizeof(int));
  double* own = calloc((size_t)iterations, sizeof(double));
  double* slowest = calloc((size_t)iterations, sizeof(double));
  if (!send || !receive || !members || !own || !slowest) MPI_Abort(MPI_COMM_WORLD, 1);
  for (int i = 0; i < count; ++i) members[i] = i;
  MPI_Group world;
  MPI_Comm_group(MPI_COMM_WORLD, &world);
  for (int k = -warm_up; k < iterations; ++k, advance(members, count, size)) {
    MPI_Barrier(MPI_COMM_WORLD);
    if (!contains(members, count, rank)) continue;
    const double begin = MPI_Wtime();
    MPI_Group group;
    MPI_Comm communicator;
    MPI_Group_incl(world, count, members, &group);
    MPI_Comm_create_group(MPI_COMM_WORLD, group, 0, &communicator);
    MPI_Allreduce(send, receive, (int)(bytes / (long)sizeof(float)), MPI_FLOAT, MPI_SUM,
                  communicator);
    MPI_Comm_free(&communicator);
    MPI_Group_free(&group);
    if (k >= 0) own[k] = (MPI_Wtime() - begin) * 1e6;
  }
  MPI_Reduce(own, slowest, iterations, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
  if (rank == 0) {
    double sum = 0;
    for (int k = 0; k < iterations; ++k) sum += slowest[k];
    qsort(slowest, (size_t)iterations, sizeof(double), ascending);
    printf("%.6f %.6f\n", sum / iterations, slowest[iterations / 2]);
  }
  MPI_Group_free(&world);
  free(send);
  free(receive);
  free(members);
  free(own);
  free(slowest);
  MPI_Finalize();
  return 0;
}
