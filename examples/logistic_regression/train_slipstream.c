/* Logistic regression by SGD: each rank has a part of the rows, and a mini-batch of them for each
 * iteration. */
#include <mpi.h>
#include <slipstream_mpi.h>
#include <stdio.h>
#include <stdlib.h>

#include "data.h"
#include "model.h"
#define CHECK(call) ((call) ? (fprintf(stderr, "%s\n", slip_last_error()), exit(1)) : (void)0)

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

  slip_world* world;
  slip_trainer* trainer;
  slip_trainer_options options;
  CHECK(slip_world_from_mpi(MPI_COMM_WORLD, NULL, &world));
  slip_trainer_options_init(&options, sizeof options);
  options.settings = "backup=1 max_jump=8";
  options.learning_rate = rate;
  options.iterations = iterations;
  slip_parameter parameter = {sizeof parameter, weights, train.columns, SLIP_FLOAT64, 0};
  CHECK(slip_trainer_create(world, &parameter, 1, &options, &trainer));

  const double start = now();
  while (slip_trainer_running(trainer)) {
    const int i = slip_trainer_iteration(trainer);
    const double begin = now();
    compute_gradient(&train, batch, (unsigned)(i * size + rank), weights, gradient);
    take_at_least(begin, seconds);
    CHECK(slip_trainer_step(trainer, gradient));
  }
  const double end = now();
  CHECK(slip_trainer_average(trainer));

  if (rank == 0) {
    printf("%d ranks: accuracy %.4f after %.2f s\n", size, accuracy(&test, weights, train.columns),
           end - start);
  }
  free(gradient);
  free(weights);
  free_data(&train);
  free_data(&test);
  slip_trainer_free(trainer);
  slip_world_free(world);
  MPI_Finalize();
  return 0;
}
