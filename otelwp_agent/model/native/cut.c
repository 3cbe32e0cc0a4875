#include "cut.h"

#include <stdlib.h>

#include "wire.h"

typedef struct {
    const uint8_t *end, *type;
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

int cut_message(const uint8_t *data, size_t size, const uint8_t *schema, size_t types, size_t target, Cuts *cuts)
{
    Level levels[MAX_NESTING + 1];
    Cutter cutter = {.data = data, .target = target, .cuts = cuts};
    const uint8_t *at = data, *end = data + size, *type = schema, *inside = NULL, *stop = NULL;
    const uint8_t *run = data; /* start of the fields that are not in a piece yet */
    uint64_t tag;
    for (;;) {
        if (at == end) {
            if (!add(&cutter, run, at))
                return CUT_NO_MEMORY;
            if (cutter.depth == 0)
                return CUT_DONE;
            end = levels[--cutter.depth].end;
            type = levels[cutter.depth].type;
            run = at;
            continue;
        }
        const uint8_t *field = at;
        if (*at < 0x80)
            tag = *at++;
        else if ((at = short_varint(at, end, &tag)) == NULL)
            return CUT_MALFORMED;
        if (tag > UINT32_MAX || tag >> 3 == 0)
            return CUT_MALFORMED;
        if ((tag & 7) == 2) {
            inside = content(at, end, &stop);
            at = inside == NULL ? NULL : stop;
        } else
            at = (tag & 7) == 3 ? skip_group(at, end, tag >> 3, cutter.depth) : skip(at, end, tag);
        if (at == NULL)
            return CUT_MALFORMED;
        if ((size_t)(at - run) <= target)
            continue;
        if (!add(&cutter, run, field))
            return CUT_NO_MEMORY;
        run = field;
        if ((size_t)(at - field) <= target)
            continue;
        if ((tag & 7) == 3)
            run = at;
        if ((tag & 7) != 2 || tag >> 3 >= SCHEMA_FIELDS || cutter.depth >= MAX_NESTING)
            continue;
        const uint8_t *entry = type + (tag >> 3) * SCHEMA_ENTRY;
        if (entry[2] & IS_PACKED) {
            cutter.path[cutter.depth++] = (uint8_t)(tag >> 3);
            int outcome = cut_packed(&cutter, inside, at);
            cutter.depth--;
            if (outcome != CUT_DONE)
                return outcome;
            run = at;
        } else if (entry[0] && entry[0] <= types && entry[0] != LEAF) {
            levels[cutter.depth] = (Level){end, type};
            cutter.path[cutter.depth++] = (uint8_t)(tag >> 3);
            end = at;
            type = schema + (size_t)(entry[0] - 1) * SCHEMA_TYPE;
            at = run = inside;
        }
    }
}
