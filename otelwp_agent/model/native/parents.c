#include "scan.h"
#include "table.h"

/* Span ids are unique within a trace only. */
static inline uint64_t hash_span(uint64_t id, uint32_t trace)
{
    return mixed(id ^ mixed(trace + hash_seed[0]));
}

/* Find the span with this id in a trace. *entry is its position, or a free one. Return 0 if the search takes too
   long. */
static int find_span(const Found *found, Table *table, uint64_t id, uint32_t trace, uint32_t **entry)
{
    uint64_t hash = hash_span(id, trace);
    for (uint32_t probe = 0; probe < MOST_PROBES; probe++) {
        *entry = &table->entries[(hash + probe) & (table->size - 1)];
        uint32_t index = **entry - 1;
        if (!**entry || (AT(found->links, Link, index).id == id && AT(found->spans, Span, index).trace == trace))
            return 1;
    }
    return 0;
}

Result follow_parents(const Found *found)
{
    Table table;
    uint64_t size = SMALL_TABLE / 16;
    while (size < (uint64_t)found->spans.length * 2)
        size *= 2;
    if (!open_table(&table, size))
        return NO_MEMORY;
    Result result = DONE;
    uint32_t *entry;
    for (uint32_t index = 0; index < found->spans.length && result == DONE; index++) {
        uint32_t trace = AT(found->spans, Span, index).trace;
        if (trace == found->invalid)
            continue;
        if (!find_span(found, &table, AT(found->links, Link, index).id, trace, &entry))
            result = IRREGULAR;
        else if (*entry)
            AT(found->traces, Trace, trace).flags |= HAS_DUPLICATES;
        else
            *entry = index + 1;
    }
    for (uint32_t index = 0; index < found->traces.length; index++)
        if (AT(found->traces, Trace, index).flags & HAS_ROOT && index != found->invalid)
            AT(found->traces, Trace, index).flags |= IS_WHOLE;
    uint64_t before = 0; /* siblings are usually adjacent */
    uint32_t before_trace = NONE;
    for (uint32_t index = 0; index < found->spans.length && result == DONE; index++) {
        uint64_t parent = AT(found->links, Link, index).parent;
        uint32_t trace = AT(found->spans, Span, index).trace;
        if (!parent || trace == found->invalid || (parent == before && trace == before_trace))
            continue;
        if (!find_span(found, &table, parent, trace, &entry))
            result = IRREGULAR;
        else if (!*entry)
            AT(found->traces, Trace, trace).flags &= ~(uint32_t)IS_WHOLE;
        before = parent;
        before_trace = trace;
    }
    close_table(&table);
    return result;
}
