#include "cut.h"

#include <stdlib.h>

#include "wire.h"

typedef struct {
    const uint8_t *end, *type;
    const uint8_t *run; /* start of the fields that are not in a piece yet */
} Level;

typedef struct {
    const uint8_t *data;
    size_t target;
    Cuts *cuts;
    uint8_t depth, path[MAX_NESTING + 1];
} Cutter;

/* Add the bytes from `start` to `end`, if any. Return 0 if there is no memory. */
static int add(Cutter *cutter, const uint8_t *start, const uint8_t *end)
{
    Cuts *cuts = cutter->cuts;
    if (start == end)
        return 1;
    if (cuts->count == cuts->capacity) {
        size_t capacity = cuts->capacity ? cuts->capacity * 2 : 64;
        Cut *items = realloc(cuts->items, capacity * sizeof(Cut));
        if (items == NULL)
            return 0;
        cuts->items = items;
        cuts->capacity = capacity;
    }
    Cut *cut = &cuts->items[cuts->count++];
    cut->start = (size_t)(start - cutter->data);
    cut->end = (size_t)(end - cutter->data);
    cut->depth = cutter->depth;
    memcpy(cut->path, cutter->path, cutter->depth);
    return 1;
}

/* Cut a packed field between its numbers. */
static int cut_packed(Cutter *cutter, const uint8_t *at, const uint8_t *end)
{
    while ((size_t)(end - at) > cutter->target) {
        const uint8_t *stop = at + cutter->target;
        while (stop[-1] >= 0x80)
            if (++stop > end)
                return CUT_MALFORMED;
        if (!add(cutter, at, stop))
            return CUT_NO_MEMORY;
        at = stop;
    }
    return add(cutter, at, end) ? CUT_DONE : CUT_NO_MEMORY;
}

/* Skip a field, which has at least one byte. *inside becomes the start of its contents if it is length-delimited, else NULL. */
static inline const uint8_t *skip_any(const uint8_t *at, const uint8_t *end, int depth, uint64_t *tag, const uint8_t **inside)
{
    const uint8_t *stop = NULL;
    *inside = NULL;
    if (*at < 0x80)
        *tag = *at++;
    else if ((at = short_varint(at, end, tag)) == NULL)
        return NULL;
    if ((*tag & 7) == 3)
        return *tag >> 3 == 0 || *tag > UINT32_MAX ? NULL : skip_group(at, end, *tag >> 3, depth);
    if ((*tag & 7) != 2)
        return skip(at, end, *tag);
    if (*tag >> 3 == 0 || *tag > UINT32_MAX || (*inside = content(at, end, &stop)) == NULL)
        return NULL;
    return stop;
}

int cut_message(const uint8_t *data, size_t size, const uint8_t *schema, size_t types, size_t target, Cuts *cuts)
{
    Level levels[MAX_NESTING + 1] = {{data + size, schema, data}};
    Cutter cutter = {.data = data, .target = target, .cuts = cuts};
    const uint8_t *at = data, *inside;
    uint64_t tag;
    for (;;) {
        Level *level = &levels[cutter.depth];
        if (at == level->end) {
            if (!add(&cutter, level->run, at))
                return CUT_NO_MEMORY;
            if (cutter.depth == 0)
                return CUT_DONE;
            levels[--cutter.depth].run = at;
            continue;
        }
        const uint8_t *field = at;
        if ((at = skip_any(at, level->end, cutter.depth, &tag, &inside)) == NULL)
            return CUT_MALFORMED;
        if ((size_t)(at - level->run) <= target)
            continue;
        if (!add(&cutter, level->run, field))
            return CUT_NO_MEMORY;
        level->run = field;
        if ((size_t)(at - field) <= target)
            continue;
        if ((tag & 7) == 3) {
            level->run = at;
            continue;
        }
        if (inside == NULL || tag >> 3 >= SCHEMA_FIELDS || cutter.depth >= MAX_NESTING)
            continue;
        const uint8_t *entry = level->type + (tag >> 3) * SCHEMA_ENTRY;
        if (entry[2] & IS_PACKED) {
            cutter.path[cutter.depth++] = (uint8_t)(tag >> 3);
            int outcome = cut_packed(&cutter, inside, at);
            cutter.depth--;
            if (outcome != CUT_DONE)
                return outcome;
            level->run = at;
        } else if (entry[0] && entry[0] <= types && entry[0] != LEAF) {
            cutter.path[cutter.depth++] = (uint8_t)(tag >> 3);
            levels[cutter.depth] = (Level){at, schema + (size_t)(entry[0] - 1) * SCHEMA_TYPE, inside};
            at = inside;
        }
    }
}
