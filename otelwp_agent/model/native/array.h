/* Arrays that grow. Independent of Python. */

#ifndef OTELWP_ARRAY_H
#define OTELWP_ARRAY_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define NONE UINT32_MAX /* no index */

typedef struct {
    void *items;
    uint32_t length, capacity;
} Array;

#define AT(array, type, index) (((type *)(array).items)[index])

static inline int enlarge(Array *array, size_t size)
{
    size_t capacity = array->capacity ? (size_t)array->capacity * 2 : 16;
    void *items = capacity < NONE && capacity <= SIZE_MAX / size ? realloc(array->items, capacity * size) : NULL;
    if (items == NULL)
        return 0;
    array->items = items;
    array->capacity = (uint32_t)capacity;
    return 1;
}

/* Return the address of one more item; NULL if there is no memory. */
static inline void *grow(Array *array, size_t size)
{
    if (array->length == array->capacity && !enlarge(array, size))
        return NULL;
    return (char *)array->items + size * array->length++;
}

#endif
