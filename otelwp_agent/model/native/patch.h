/* Changes to parts of a serialized message, and the message written with them. Independent of Python. */

#ifndef OTELWP_PATCH_H
#define OTELWP_PATCH_H

#include "array.h"

#define MAX_HEAD 15

typedef struct {
    const uint8_t *at;
    size_t length;
} Text;

/* Bytes that replace those from `start` to `end`: `head`, then `more`. With start == end they are inserted. */
typedef struct {
    uint32_t start, end;
    uint8_t size, head[MAX_HEAD]; /* size of the head */
    Text more;
} Patch;

/* Add a patch without bytes; return NULL if there is no memory. Patches are added in the order of their positions. */
Patch *add_patch(Array *patches, uint32_t start, uint32_t end);

/* Append a byte, or a varint, to the head of a patch. */
void put_byte(Patch *patch, uint8_t byte);
void put_varint(Patch *patch, uint64_t number);

/* Return the bytes that a patch adds. */
int64_t growth(const Patch *patch);

/* Write `size` bytes of `data` with the patches to `at`, which has `size` bytes more what the patches add. */
void write_patched(const uint8_t *data, size_t size, const Array *patches, uint8_t *at);

#endif
