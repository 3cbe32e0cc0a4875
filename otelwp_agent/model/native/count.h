/* Counts what a serialized message holds, and checks that it parses, in one pass. Knows nothing of Python.

   A schema has SCHEMA_TYPE bytes for each message type: for each field number below SCHEMA_FIELDS the message type of
   the field plus 1 (0: not counted, LEAF: counted, and not looked into), what an occurrence weighs, and flags. The type
   at the beginning is that of the whole. counting.py makes schemas and does the same in Python. */

#ifndef OTELWP_COUNT_H
#define OTELWP_COUNT_H

#include <stddef.h>
#include <stdint.h>

#define SCHEMA_FIELDS 32
#define SCHEMA_ENTRY 3
#define SCHEMA_TYPE (SCHEMA_FIELDS * SCHEMA_ENTRY)
#define LEAF 255
#define MAX_NESTING 100 /* messages and groups inside each other, as for the protobuf library */

enum { IS_ITEM = 1, IS_HOLDER = 2, IS_ALTERNATIVE = 4 };

#define MALFORMED (-1)
#define BEYOND_LIMIT (-2)

/* Return the items in a message; MALFORMED; or BEYOND_LIMIT as soon as everything together weighs more than `limit`. Of
   the alternatives in a holder, the items of the last one count. `types` is the number of types in the schema. */
int64_t count_items(const uint8_t *data, size_t size, const uint8_t *schema, size_t types, uint64_t limit);

#endif
