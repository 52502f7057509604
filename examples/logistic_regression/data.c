#define _POSIX_C_SOURCE 200809L
#include "data.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void* grown(void* memory, size_t count, size_t size) {
  /* Doubles at powers of two, so that appending is cheap. */
  if (count & (count - 1)) return memory;
  memory = realloc(memory, (count ? 2 * count : 1) * size);
  if (memory == NULL) {
    fprintf(stderr, "out of memory\n");
    exit(1);
  }
  return memory;
}

static int append_row(char* line, struct data* data) {
  char* at = line;
  const double label = strtod(at, &at);
  size_t entries = data->first[data->rows];
  if (at == line) return -1;
  data->label = grown(data->label, data->rows, sizeof *data->label);
  data->label[data->rows] = label > 0 ? 1 : -1;
  for (;;) {
    char* end;
    const long index = strtol(at, &end, 10);
    if (end == at) break;
    if (*end != ':' || index < 1 || index > 100000000) return -1;
    data->index = grown(data->index, entries, sizeof *data->index);
    data->value = grown(data->value, entries, sizeof *data->value);
    data->index[entries] = (int)index;
    data->value[entries] = strtof(end + 1, &at);
    ++entries;
    if ((size_t)index >= data->columns) data->columns = (size_t)index + 1;
  }
  ++data->rows;
  data->first = grown(data->first, data->rows, sizeof *data->first);
  data->first[data->rows] = entries;
  return 0;
}

int read_data(const char* path, int part, int of, struct data* data) {
  FILE* file = fopen(path, "r");
  char* line = NULL;
  size_t room = 0;
  long row = 0;
  int bad = 0;
  memset(data, 0, sizeof *data);
  data->columns = 1;
  data->first = grown(NULL, 0, sizeof *data->first);
  data->first[0] = 0;
  if (file == NULL) {
    perror(path);
    return -1;
  }
  while (!bad && getline(&line, &room, file) > 0) {
    struct data one = *data;
    if (row++ % of == part) {
      bad = append_row(line, data);
    } else {
      /* Not ours, but its columns count. */
      const char* colon = strrchr(line, ':');
      while (colon != NULL && colon > line && colon[-1] >= '0' && colon[-1] <= '9') --colon;
      if (colon != NULL && (size_t)atol(colon) >= one.columns) {
        data->columns = (size_t)atol(colon) + 1;
      }
    }
  }
  if (bad) fprintf(stderr, "%s:%ld: not a row of LIBSVM\n", path, row);
  if (data->rows == 0 && !bad) {
    fprintf(stderr, "%s: no rows for rank %d of %d\n", path, part, of);
    bad = -1;
  }
  free(line);
  fclose(file);
  return bad;
}

void free_data(struct data* data) {
  free(data->label);
  free(data->first);
  free(data->index);
  free(data->value);
}
