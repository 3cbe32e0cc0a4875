/* Find runs of elements in large JSON documents. Independent of Python; json_slices.py does the same in Python. */

#ifndef OTELWP_JSON_H
#define OTELWP_JSON_H

#include <stddef.h>
#include <stdint.h>

#define MAX_JSON_DEPTH 1024 /* as in orjson */

#define MAX_CUT_DEPTH 12    /* of arrays that are cut: data points of metrics have depth 9 */
#define RUNS_PER_TARGET 64  /* the smallest run has the target size divided by this */

/* A run of whole elements of an array, without the commas around it. */
typedef struct {
    size_t start, end;
} Run;

/* Find runs of about `target` bytes in longer arrays, and a shorter last run in each of these arrays; at most `most`
   runs. Return their number, or -1 if brackets do not match, a string has no end, or the nesting is too deep. *values
   becomes the number of objects, arrays and commas. Other errors in the JSON are not detected. */
int64_t find_runs(const uint8_t *data, size_t size, size_t target, Run *runs, size_t most, uint64_t *values);

#endif
