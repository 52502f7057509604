#ifndef MODEL_H
#define MODEL_H

#include "data.h"

/* Of the logistic loss with an L2 penalty, over `batch` rows drawn by `seed`, into `gradient`. */
void compute_gradient(const struct data* data, int batch, unsigned seed, const double* weights,
                      double* gradient);

/* The part of the rows that the weights, of so many columns, label right. */
double accuracy(const struct data* data, const double* weights, size_t columns);

/* Stands for a larger model: returns at `begin` + `seconds`, if it is not later already. */
void take_at_least(double begin, double seconds);
/* Seconds of a clock that only goes forward. */
double now(void);

#endif
