/* Cut a serialized message into pieces that can be parsed separately. Independent of Python; cutting.py does the same in
   Python. */

#ifndef OTELWP_CUT_H
#define OTELWP_CUT_H

#include "count.h"

/* Consecutive fields of one message, or numbers of one packed field. `path` has the field numbers that lead to this
   message or packed field from the whole message. */
typedef struct {
    size_t start, end;
    uint8_t depth, path[MAX_NESTING + 1];
} Cut;

typedef struct {
    Cut *items; /* to be freed with `free` */
    size_t count, capacity;
} Cuts;

enum { CUT_DONE, CUT_MALFORMED, CUT_NO_MEMORY };

/* Find pieces of at most `target` bytes. A larger field is cut inside if its contents are described by the schema; if
   not, it is a piece of its own. Groups larger than `target` are only checked. The number of pieces is at most
   (4 * size / target + 2) * (MAX_NESTING + 1). */
int cut_message(const uint8_t *data, size_t size, const uint8_t *schema, size_t types, size_t target, Cuts *cuts);

#endif
