/* slip_peer_mpi SIZE ITERATIONS, under mpirun: all-reduce of float vectors of SIZE bytes. Rank 0
   prints the mean and the median of the microseconds that the slowest rank took. */

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

static int ascending(const void* a, const void* b) {
  const double x = *(const double*)a;
  const double y = *(const double*)b;
  return (x > y) - (x < y);
}

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  const long size = argc == 3 ? atol(argv[1]) : 0;
  const int iterations = argc == 3 ? atoi(argv[2]) : 0;
  if (size < (long)sizeof(float) || iterations < 1) {
    if (rank == 0) fprintf(stderr, "usage: slip_peer_mpi SIZE ITERATIONS\n");
    MPI_Abort(MPI_COMM_WORLD, 2);
  }
  const int warm_up = iterations / 10 + 1;
  const int count = (int)(size / (long)sizeof(float));
  float* send = malloc((size_t)size);
  float* receive = malloc((size_t)size);
  double* own = malloc(sizeof(double) * (size_t)iterations);
  double* slowest = malloc(sizeof(double) * (size_t)iterations);
  if (!send || !receive || !own || !slowest) MPI_Abort(MPI_COMM_WORLD, 1);
  for (int i = 0; i < count; ++i) send[i] = (float)(rank + i % 7);
  double last = 0;
  for (int k = -warm_up; k < iterations; ++k) {
    if (k == 0) last = MPI_Wtime();
    MPI_Allreduce(send, receive, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    if (k < 0) continue;
    const double now = MPI_Wtime();
    own[k] = (now - last) * 1e6;
    last = now;
  }
  MPI_Reduce(own, slowest, iterations, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
  if (rank == 0) {
    double sum = 0;
    for (int k = 0; k < iterations; ++k) sum += slowest[k];
    qsort(slowest, (size_t)iterations, sizeof(double), ascending);
    printf("%.6f %.6f\n", sum / iterations, slowest[iterations / 2]);
  }
  free(send);
  free(receive);
  free(own);
  free(slowest);
  MPI_Finalize();
  return 0;
}
