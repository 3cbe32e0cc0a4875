#include "patch.h"

#include "wire.h"

Patch *add_patch(Array *patches, uint32_t start, uint32_t end)
{
    Patch *patch = grow(patches, sizeof(Patch));
    if (patch != NULL) {
        patch->start = start;
        patch->end = end;
        patch->size = 0;
        patch->more = (Text){NULL, 0};
    }
    return patch;
}

void put_byte(Patch *patch, uint8_t byte)
{
    patch->head[patch->size++] = byte;
}

void put_varint(Patch *patch, uint64_t number)
{
    for (; number > 0x7F; number >>= 7)
        put_byte(patch, (uint8_t)(number | 0x80));
    put_byte(patch, (uint8_t)number);
}

int64_t growth(const Patch *patch)
{
    return (int64_t)patch->size + (int64_t)patch->more.length - (int64_t)(patch->end - patch->start);
}

void write_patched(const uint8_t *data, size_t size, const Array *patches, uint8_t *at)
{
    size_t from = 0;
    for (uint32_t place = 0; place < patches->length; place++) {
        const Patch *patch = &AT(*patches, Patch, place);
        at = put(at, data + from, patch->start - from);
        at = put(at, patch->head, patch->size);
        if (patch->more.length)
            at = put(at, patch->more.at, patch->more.length);
        from = patch->end;
    }
    put(at, data + from, size - from);
}
