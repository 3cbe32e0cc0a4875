#include "json.h"

#include <string.h>

#define NOWHERE SIZE_MAX

typedef struct {
    size_t element;            /* where the current element starts */
    size_t run_start, run_end; /* elements that may become a run */
    uint8_t is_array;
    uint8_t is_cut;    /* a run was found in it */
    uint8_t inner_cut; /* a run was found in its current element */
} Level;

typedef struct {
    Run *items;
    size_t count, most, smallest;
} Runs;

static void end_run(Level *level, Runs *runs)
{
    if (level->run_start != NOWHERE && level->run_end - level->run_start >= runs->smallest &&
        runs->count < runs->most) {
        runs->items[runs->count++] = (Run){level->run_start, level->run_end};
        level->is_cut = 1;
    }
    level->run_start = NOWHERE;
}

static int is_blank(const uint8_t *data, size_t start, size_t end)
{
    for (; start < end; start++)
        if (data[start] != ' ' && data[start] != '\n' && data[start] != '\r' && data[start] != '\t')
            return 0;
    return 1;
}

/* Record the end of an element at `at`. */
static void end_element(const uint8_t *data, size_t at, Level *level, size_t target, Runs *runs)
{
    if (level->inner_cut) {
        end_run(level, runs);
        level->is_cut = 1;
        level->inner_cut = 0;
    } else if (is_blank(data, level->element, at))
        level->run_start = NOWHERE;
    else {
        if (level->run_start == NOWHERE)
            level->run_start = level->element;
        level->run_end = at;
        if (at - level->run_start >= target)
            end_run(level, runs);
    }
    level->element = at + 1;
}

/* Return the position of the quote that ends a string; `size` if there is none. */
static size_t end_of_string(const uint8_t *data, size_t start, size_t size)
{
    for (size_t at = start; at < size; at++) {
        const uint8_t *quote = memchr(data + at, '"', size - at);
        if (quote == NULL)
            break;
        size_t slash = at = (size_t)(quote - data);
        while (slash > start && data[slash - 1] == '\\')
            slash--;
        if ((at - slash) % 2 == 0)
            return at;
    }
    return size;
}

int64_t find_runs(const uint8_t *data, size_t size, size_t target, Run *items, size_t most, uint64_t *values)
{
    Level levels[MAX_JSON_DEPTH + 1]; /* the first level is outside the document */
    Runs runs = {items, 0, most, target / RUNS_PER_TARGET + 1};
    levels[0].inner_cut = 0;
    size_t depth = 0;
    uint64_t found = 0;
    for (size_t at = 0; at < size; at++) {
        Level *level = &levels[depth];
        switch (data[at]) {
        case '"':
            if ((at = end_of_string(data, at + 1, size)) == size)
                return -1;
            break;
        case '{':
        case '[':
            if (depth == MAX_JSON_DEPTH)
                return -1;
            found++;
            levels[++depth] = (Level){at + 1, NOWHERE, 0, data[at] == '[', 0, 0};
            break;
        case '}':
        case ']':
            if (depth == 0 || level->is_array != (data[at] == ']'))
                return -1;
            if (level->is_array && depth <= MAX_CUT_DEPTH)
                end_element(data, at, level, target, &runs);
            if (level->is_cut)
                end_run(level, &runs);
            depth--;
            levels[depth].inner_cut |= level->is_cut | level->inner_cut;
            break;
        case ',':
            found++;
            if (depth && depth <= MAX_CUT_DEPTH && level->is_array)
                end_element(data, at, level, target, &runs);
            break;
        default:
            break;
        }
    }
    *values = found;
    return depth ? -1 : (int64_t)runs.count;
}
