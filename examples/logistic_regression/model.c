#define _POSIX_C_SOURCE 200809L
#include "model.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

static double score(const struct data* data, size_t row, const double* weights, size_t columns) {
  double sum = weights[0];
  for (size_t e = data->first[row]; e < data->first[row + 1]; ++e) {
    if ((size_t)data->index[e] < columns) sum += weights[data->index[e]] * data->value[e];
  }
  return sum;
}

void compute_gradient(const struct data* data, int batch, unsigned seed, const double* weights,
                      double* gradient) {
  const double penalty = 1e-5;
  for (size_t i = 0; i < data->columns; ++i) gradient[i] = penalty * weights[i];
  for (int b = 0; b < batch; ++b) {
    const size_t row = (size_t)rand_r(&seed) % data->rows;
    const double y = data->label[row];
    const double slope = -y / (1 + exp(y * score(data, row, weights, data->columns))) / batch;
    gradient[0] += slope;
    for (size_t e = data->first[row]; e < data->first[row + 1]; ++e) {
      gradient[data->index[e]] += slope * data->value[e];
    }
  }
}

double accuracy(const struct data* data, const double* weights, size_t columns) {
  size_t right = 0;
  for (size_t row = 0; row < data->rows; ++row) {
    right += (score(data, row, weights, columns) > 0) == (data->label[row] > 0);
  }
  return (double)right / (double)data->rows;
}

double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

void take_at_least(double begin, double seconds) {
  const double left = begin + seconds - now();
  struct timespec rest;
  if (left <= 0) return;
  rest.tv_sec = (time_t)left;
  rest.tv_nsec = (long)(1e9 * (left - (double)rest.tv_sec));
  nanosleep(&rest, NULL);
}
