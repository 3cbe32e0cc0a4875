#include "count.h"
#include "wire.h"

typedef struct {
    const uint8_t *end;
    const uint8_t *type;
} Level;

const uint8_t *skip_group(const uint8_t *at, const uint8_t *end, uint64_t number, int depth)
{
    uint64_t open[MAX_NESTING + 1], tag;
    int level = 0;
    if (depth >= MAX_NESTING)
        return NULL;
    open[level++] = number;
    while (level) {
        at = at < end ? short_varint(at, end, &tag) : NULL;
        if (at == NULL || tag > UINT32_MAX || tag >> 3 == 0)
            return NULL;
        if ((tag & 7) == 3) {
            if (depth + level >= MAX_NESTING)
                return NULL;
            open[level++] = tag >> 3;
        } else if ((tag & 7) == 4) {
            if (open[--level] != tag >> 3)
                return NULL;
        } else if ((at = skip(at, end, tag)) == NULL)
            return NULL;
    }
    return at;
}

int64_t count_items(const uint8_t *data, size_t size, const uint8_t *schema, size_t types, uint64_t limit)
{
    Level levels[MAX_NESTING + 1];
    const uint8_t *at = data, *end = data + size, *type = schema, *stop = NULL;
    int depth = 0;
    int64_t items = 0, before_alternative = 0;
    uint64_t weight = 0, tag, alternative = 0;
    for (;;) {
        while (at == end) {
            if (depth == 0)
                return items;
            end = levels[--depth].end;
            type = levels[depth].type;
        }
        if (*at < 0x80)
            tag = *at++;
        else if ((at = short_varint(at, end, &tag)) == NULL)
            return MALFORMED;
        if ((tag & 7) == 3) {
            if (tag > UINT32_MAX || tag >> 3 == 0 || (at = skip_group(at, end, tag >> 3, depth)) == NULL)
                return MALFORMED;
            continue;
        }
        const uint8_t *entry = type + (tag >> 3) * SCHEMA_ENTRY;
        if ((tag & 7) != 2 || tag >> 3 >= SCHEMA_FIELDS || !entry[0]) {
            if ((at = skip(at, end, tag)) == NULL)
                return MALFORMED;
            continue;
        }
        if (tag >> 3 == 0 || (at = content(at, end, &stop)) == NULL)
            return MALFORMED;
        if ((weight += entry[1]) > limit)
            return BEYOND_LIMIT;
        if (entry[2] & IS_ITEM)
            items++;
        else if (entry[2] & IS_HOLDER) {
            alternative = 0;
            before_alternative = items;
        } else if (entry[2] & IS_ALTERNATIVE && tag != alternative) {
            alternative = tag;
            items = before_alternative;
        }
        if (entry[0] == LEAF) {
            at = stop;
            continue;
        }
        if (entry[0] > types || depth >= MAX_NESTING)
            return MALFORMED;
        levels[depth++] = (Level){end, type};
        end = stop;
        type = schema + (size_t)(entry[0] - 1) * SCHEMA_TYPE;
    }
}
