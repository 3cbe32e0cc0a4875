/* Finds where a large JSON document can be cut. Knows nothing of Python. json_slices.py does the same in Python. */

#ifndef OTELWP_JSON_H
#define OTELWP_JSON_H

#include <stddef.h>
#include <stdint.h>

#define MAX_JSON_DEPTH 1024 /* as for orjson */

#define MAX_CUT_DEPTH 12    /* of arrays that are cut: data points of metrics have 9 */
#define RUNS_PER_TARGET 64  /* runs are at least this part of the target; then few of them hold much */

/* A run of whole elements of an array, without the commas around it. */
typedef struct {
    size_t start, end;
} Run;

/* Find the runs of about `target` bytes in arrays that hold more, and in these the rest as well, at most `most` runs.
   Return how many there are, or -1 if brackets do not match, a string does not end, or the nesting is too deep. *values
   becomes the number of objects, arrays and commas. Whether everything else is JSON is not looked at. */
int64_t find_runs(const uint8_t *data, size_t size, size_t target, Run *runs, size_t most, uint64_t *values);

#endif
