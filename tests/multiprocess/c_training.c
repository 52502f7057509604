/* A training program in C, as `slip run` starts it: `c_training [RANK]`, where that rank gives up
 * in iteration 50. Worker i's loss is (x - i)^2 / 2; rank 0 prints what all end with. */
#include <stdio.h>
#include <stdlib.h>

#include "slipstream.h"

static int failed(slip_world* world) {
  fprintf(stderr, "%s\n", slip_last_error());
  slip_world_fail(world, NULL);
  slip_world_free(world);
  return 1;
}

int main(int argc, char** argv) {
  const int quitter = argc > 1 ? atoi(argv[1]) : -1;
  double x = 0;
  slip_parameter parameter = {sizeof parameter, NULL, 1, SLIP_FLOAT64, 0};
  slip_trainer_options options;
  slip_world* world;
  slip_trainer* trainer;
  if (slip_world_connect(NULL, &world) != SLIP_OK) {
    fprintf(stderr, "%s\n", slip_last_error());
    return 1;
  }
  parameter.data = &x;
  slip_trainer_options_init(&options, sizeof options);
  options.settings = "max_gap=5";
  options.learning_rate = 0.05;
  options.iterations = 500;
  if (slip_trainer_create(world, &parameter, 1, &options, &trainer) != SLIP_OK) {
    return failed(world);
  }
  while (slip_trainer_running(trainer)) {
    double gradient = x - slip_world_rank(world);
    if (slip_world_rank(world) == quitter && slip_trainer_iteration(trainer) == 50) {
      slip_world_fail(world, "rank gave up on purpose");
      return 3;
    }
    if (slip_trainer_step(trainer, &gradient) != SLIP_OK) break;
  }
  if (slip_trainer_status(trainer) != SLIP_OK) return failed(world);
  if (slip_trainer_average(trainer) != SLIP_OK) return failed(world);
  if (slip_world_rank(world) == 0) {
    printf("%d workers: x = %.1f\n", slip_world_size(world), x);
  }
  slip_trainer_free(trainer);
  slip_world_free(world);
  return 0;
}
