/* Count the messages in a serialized message and check that it parses, in one pass. Independent of Python.

   A schema has SCHEMA_TYPE bytes for each message type, starting with the type of the whole message. For each field
   number below SCHEMA_FIELDS it contains three bytes: the index of the field's message type plus 1 (0: the field is not
   counted; LEAF: it is counted, but its contents are not), the weight of an occurrence, and flags. counting.py creates
   schemas and does the same in Python. */

#ifndef OTELWP_COUNT_H
#define OTELWP_COUNT_H

#include <stddef.h>
#include <stdint.h>

#define SCHEMA_FIELDS 32
#define SCHEMA_ENTRY 3
#define SCHEMA_TYPE (SCHEMA_FIELDS * SCHEMA_ENTRY)
#define LEAF 255
#define MAX_NESTING 100 /* of messages and groups, as in the protobuf library */

enum { IS_ITEM = 1, IS_HOLDER = 2, IS_ALTERNATIVE = 4, IS_PACKED = 8 };

#define MALFORMED (-1)
#define BEYOND_LIMIT (-2)

/* Return the number of items in a message, MALFORMED, or BEYOND_LIMIT if the total weight exceeds `limit`. Of the
   alternatives in a holder, only the items of the last one count. `types` is the number of types in the schema. */
int64_t count_items(const uint8_t *data, size_t size, const uint8_t *schema, size_t types, uint64_t limit);

/* Skip a group whose start tag has been read; return its end, or NULL if it is malformed. `depth` is the nesting of the
   message with the group. Hidden, so that the compiler can inline it in count.c. */
const uint8_t *skip_group(const uint8_t *at, const uint8_t *end, uint64_t number, int depth)
    __attribute__((visibility("hidden")));

#endif
