/* Logistic regression by SGD: each rank has a part of the rows, and a mini-batch of them for each
 * iteration. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

#include "data.h"
#include "model.h"

int main(int argc, char** argv) {
  if (argc != 7) {
    fprintf(stderr, "usage: %s TRAIN TEST ITERATIONS RATE MILLISECONDS SLOW_RANK\n", argv[0]);
    return 2;
  }
  const int iterations = atoi(argv[3]);
  const double rate = atof(argv[4]);
  const int batch = 64;

  MPI_Init(&argc, &argv);
  int rank, size;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  /* An iteration's length, as that of a larger model; the slow rank's is four times as long. */
  const double seconds = 1e-3 * atof(argv[5]) * (rank == atoi(argv[6]) ? 4 : 1);

  struct data train, test;
  if (read_data(argv[1], rank, size, &train) || read_data(argv[2], 0, 1, &test)) return 1;
  double* weights = calloc(train.columns, sizeof *weights);
  double* gradient = calloc(train.columns, sizeof *gradient);

  const double start = now();
  for (int i = 0; i < iterations; ++i) {
    const double begin = now();
    compute_gradient(&train, batch, (unsigned)(i * size + rank), weights, gradient);
    take_at_least(begin, seconds);
    MPI_Allreduce(MPI_IN_PLACE, gradient, (int)train.columns, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    for (size_t j = 0; j < train.columns; ++j) weights[j] -= rate / size * gradient[j];
  }
  const double end = now();

  if (rank == 0) {
    printf("%d ranks: accuracy %.4f after %.2f s\n", size, accuracy(&test, weights, train.columns),
           end - start);
  }
  free(gradient);
  free(weights);
  free_data(&train);
  free_data(&test);
  MPI_Finalize();
  return 0;
}
