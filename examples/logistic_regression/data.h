#ifndef DATA_H
#define DATA_H

#include <stddef.h>

/* Rows of a LIBSVM file, `label index:value ...` with indices from 1, in compressed form: the
 * entries of row i are first[i] .. first[i + 1]. */
struct data {
  size_t rows;
  size_t columns;     /* one more than the largest index: index 0 is the bias, 1 in every row */
  signed char* label; /* +1 or -1 */
  size_t* first;
  int* index;
  float* value;
};

/* Every `of`-th row, beginning with row `part`; `columns` is of all rows. 0, or -1 with a message
 * on stderr. */
int read_data(const char* path, int part, int of, struct data* data);
void free_data(struct data* data);

#endif
