/* Hash tables with the ids of traces and spans, which the sender chooses. Independent of Python. */

#ifndef OTELWP_TABLE_H
#define OTELWP_TABLE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MOST_PROBES 256 /* steps of a search in a hash table; more means that a sender has chosen colliding ids */
#define SMALL_TABLE 512 /* entries of a table on the stack */

/* A hash table of indexes, each stored plus one: 0 is free. At most half of the entries are used. */
typedef struct {
    uint32_t *entries, size;
    uint32_t small[SMALL_TABLE];
} Table;

/* The key of all hash tables; see set_seed. */
extern uint64_t hash_seed[2] __attribute__((visibility("hidden")));

static inline uint64_t mixed(uint64_t number)
{
    number = (number ^ hash_seed[1]) * 0x9E3779B97F4A7C15u;
    number = (number ^ number >> 32) * 0xD6E8FEB86659FD93u;
    return number ^ number >> 32;
}

static inline int open_table(Table *table, uint64_t size)
{
    table->size = (uint32_t)size;
    table->entries = table->small;
    if (size > SMALL_TABLE)
        return (table->entries = size > UINT32_MAX ? NULL : calloc((size_t)size, sizeof(uint32_t))) != NULL;
    memset(table->small, 0, (size_t)size * sizeof(uint32_t));
    return 1;
}

static inline void close_table(Table *table)
{
    if (table->entries != table->small)
        free(table->entries);
}

#endif
