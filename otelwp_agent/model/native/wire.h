/* Protobuf's wire format, for reading and writing.

   Input comes from the network: each function receives the end of its message, compares every length with the remaining
   bytes before it uses it, and returns NULL rather than move past the end. */

#ifndef OTELWP_WIRE_H
#define OTELWP_WIRE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Tags of the fields that are read: number << 3 | wire type. */
enum {
    RESOURCE_SPANS = 0x0A, /* of a request */
    RESOURCE = 0x0A,       /* of ResourceSpans */
    SCOPE_SPANS = 0x12,
    SPANS = 0x12,    /* of ScopeSpans */
    TRACE_ID = 0x0A, /* of a Span */
    SPAN_ID = 0x12,
    TRACE_STATE = 0x1A,
    PARENT_SPAN_ID = 0x22,
    NAME = 0x2A,
    START_TIME = 0x39,
    END_TIME = 0x41,
    ATTRIBUTES = 0x4A,
    STATUS = 0x7A,
    CODE = 0x18, /* of a Status */
    KEY = 0x0A,  /* of a KeyValue */
    VALUE = 0x12,
};

/* Read a little-endian number of 8 bytes. */
static inline uint64_t load(const uint8_t *from)
{
    uint64_t number;
    memcpy(&number, from, sizeof(number));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    number = __builtin_bswap64(number);
#endif
    return number;
}

/* Read a varint; return its end. */
static inline const uint8_t *varint(const uint8_t *at, const uint8_t *end, uint64_t *number)
{
    *number = 0;
    for (int shift = 0; shift < 70 && at < end; shift += 7) {
        uint8_t byte = *at++;
        *number |= (uint64_t)(byte & 0x7F) << shift; /* only one bit of the tenth byte is used, as in
                                                        all implementations */
        if (byte < 0x80)
            return at;
    }
    return NULL;
}

/* Read a tag or a length, which take at most five bytes, as in the protobuf library; return its end. */
static inline const uint8_t *short_varint(const uint8_t *at, const uint8_t *end, uint64_t *number)
{
    return varint(at, end - at > 5 ? at + 5 : end, number);
}

/* Read the length of a length-delimited field; return the start of its content, which ends at *stop. */
static inline const uint8_t *content(const uint8_t *at, const uint8_t *end, const uint8_t **stop)
{
    uint64_t length;
    at = short_varint(at, end, &length);
    if (at == NULL || length > (uint64_t)(end - at))
        return NULL;
    *stop = at + length;
    return at;
}

/* Skip the value after `tag`; return its end. Groups are not supported. */
static inline const uint8_t *skip(const uint8_t *at, const uint8_t *end, uint64_t tag)
{
    uint64_t number;
    const uint8_t *stop;
    if (tag >> 3 == 0 || tag > UINT32_MAX)
        return NULL;
    switch (tag & 7) {
    case 0:
        return varint(at, end, &number);
    case 1:
        return end - at < 8 ? NULL : at + 8;
    case 2:
        return content(at, end, &stop) == NULL ? NULL : stop;
    case 5:
        return end - at < 4 ? NULL : at + 4;
    default:
        return NULL;
    }
}

/* Skip a field of any kind, including its tag. Return NULL for a tag that is written in more bytes than necessary: it
   may be one of those above, which callers compare as a single byte. */
static inline const uint8_t *skip_field(const uint8_t *at, const uint8_t *end)
{
    const uint8_t *start = at;
    uint64_t tag;
    at = short_varint(at, end, &tag);
    return at == NULL || (tag < 0x80 && at - start > 1) ? NULL : skip(at, end, tag);
}

/* Return the size of a length-delimited field with a tag of one byte. */
static inline uint64_t field_size(uint64_t length)
{
    uint64_t size = 2 + length;
    for (uint64_t rest = length >> 7; rest; rest >>= 7)
        size++;
    return size;
}

/* Write bytes; return their end. */
static inline uint8_t *put(uint8_t *at, const void *from, size_t size)
{
    memcpy(at, from, size);
    return at + size;
}

/* Write the tag and the length of a field; return the start of its content. */
static inline uint8_t *put_head(uint8_t *at, uint8_t tag, uint64_t length)
{
    *at++ = tag;
    for (; length > 0x7F; length >>= 7)
        *at++ = (uint8_t)(length | 0x80);
    *at++ = (uint8_t)length;
    return at;
}

#endif
