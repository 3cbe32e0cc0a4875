#include "scan.h"

#include <stdlib.h>
#include <string.h>

#include "table.h"
#include "wire.h"

#define MOST_STATES 8 /* maximum number of different trace states of one trace */
#define ERROR_CODE 2  /* STATUS_CODE_ERROR of trace.proto */

typedef struct {
    const uint8_t *data;
    Found *found;
    Table traces;
} Scan;

uint64_t hash_seed[2];

void set_seed(const uint8_t random[16])
{
    hash_seed[0] = load(random) | 1;
    hash_seed[1] = load(random + 8);
}

void forget(Found *found)
{
    free(found->resources.items);
    free(found->scopes.items);
    free(found->spans.items);
    free(found->traces.items);
    free(found->states.items);
    free(found->links.items);
    *found = (Found){.invalid = NONE};
}

static inline uint64_t hash_trace(const uint8_t *id)
{
    return mixed(load(id) * hash_seed[0] ^ mixed(load(id + 8)));
}

/* Enlarge the table of traces by a factor of four. */
static Result widen(Scan *scan)
{
    Table wide;
    if (!open_table(&wide, (uint64_t)scan->traces.size * 4))
        return NO_MEMORY;
    for (uint32_t index = 0; index < scan->found->traces.length; index++) {
        Slice id = AT(scan->found->traces, Trace, index).id;
        if (id.start == id.end)
            continue;
        uint64_t place = hash_trace(scan->data + id.start);
        while (wide.entries[place & (wide.size - 1)])
            place++;
        wide.entries[place & (wide.size - 1)] = index + 1;
    }
    close_table(&scan->traces);
    scan->traces.entries = wide.entries; /* it is too large for `small` */
    scan->traces.size = wide.size;
    return DONE;
}

static Result begin_trace(Found *found, Slice id, uint32_t *place)
{
    Trace *trace = grow(&found->traces, sizeof(Trace));
    if (trace == NULL)
        return NO_MEMORY;
    *trace = (Trace){.id = id, .first = NONE, .last = NONE, .root = NONE, .states = NONE};
    *place = found->traces.length - 1;
    return DONE;
}

static int has_id(const Scan *scan, uint32_t place, const uint8_t *id)
{
    Slice own = AT(scan->found->traces, Trace, place).id;
    return own.start < own.end && memcmp(scan->data + own.start, id, ID_LENGTH) == 0;
}

/* Find the trace of a span, or add it. */
static Result find_trace(Scan *scan, Slice id, uint32_t *place)
{
    Found *found = scan->found;
    const uint8_t *bytes = scan->data + id.start;
    if (id.end - id.start != ID_LENGTH || !(load(bytes) | load(bytes + 8))) {
        *place = found->invalid;
        Result result = *place == NONE ? begin_trace(found, (Slice){0, 0}, place) : DONE;
        if (result == DONE) {
            found->invalid = *place;
            AT(found->traces, Trace, *place).flags |= IS_INVALID;
        }
        return result;
    }
    if (found->spans.length) { /* usually the trace of the previous span */
        *place = AT(found->spans, Span, found->spans.length - 1).trace;
        if (has_id(scan, *place, bytes))
            return DONE;
    }
    if (found->traces.length >= scan->traces.size / 2) {
        Result result = widen(scan);
        if (result != DONE)
            return result;
    }
    uint64_t hash = hash_trace(bytes);
    for (uint32_t probe = 0; probe < MOST_PROBES; probe++) {
        uint32_t *entry = &scan->traces.entries[(hash + probe) & (scan->traces.size - 1)];
        if (!*entry) {
            Result result = begin_trace(found, id, place);
            if (result == DONE)
                *entry = *place + 1;
            return result;
        }
        *place = *entry - 1;
        if (has_id(scan, *place, bytes))
            return DONE;
    }
    return IRREGULAR;
}

/* Add a trace state, unless the trace has it already. */
static Result add_state(Scan *scan, uint32_t trace, Slice text)
{
    Array *states = &scan->found->states;
    uint32_t last = NONE, known = 0, length = text.end - text.start;
    for (uint32_t at = AT(scan->found->traces, Trace, trace).states; at != NONE; at = AT(*states, State, at).next) {
        Slice other = AT(*states, State, at).text;
        if (other.end - other.start == length
            && memcmp(scan->data + other.start, scan->data + text.start, length) == 0)
            return DONE;
        if (++known == MOST_STATES)
            return IRREGULAR;
        last = at;
    }
    State *state = grow(states, sizeof(State));
    if (state == NULL)
        return NO_MEMORY;
    *state = (State){text, NONE};
    if (last == NONE)
        AT(scan->found->traces, Trace, trace).states = states->length - 1;
    else
        AT(*states, State, last).next = states->length - 1;
    return DONE;
}

/* Read a Status, and set *failed if its code is an error. Return 0 if it is not valid. */
static int read_status(const uint8_t *at, const uint8_t *end, int *failed)
{
    while (at < end) {
        uint64_t tag, code;
        if ((at = short_varint(at, end, &tag)) == NULL)
            return 0;
        if (tag != CODE)
            at = skip(at, end, tag);
        else if ((at = varint(at, end, &code)) != NULL)
            *failed = (uint32_t)code == ERROR_CODE;
        if (at == NULL)
            return 0;
    }
    return 1;
}

/* The fields of a span that are read before its trace is found. */
typedef struct {
    Slice trace_id, state;
    Link link;
    uint64_t start, end;
    int has_trace_id, has_span_id, has_parent, has_status, failed;
} Fields;

/* Read an id of a span; leave *id unchanged if it is empty. */
static const uint8_t *read_id(const uint8_t *at, const uint8_t *end, uint64_t *id)
{
    if (at < end && *at == 0)
        return at + 1;
    if (end - at < 9 || *at != 8)
        return NULL;
    *id = load(at + 1);
    return at + 9;
}

static Result read_fields(const uint8_t *data, const uint8_t *at, const uint8_t *end, Fields *fields)
{
    const uint8_t *stop;
    while (at < end) {
        switch (*at++) {
        case TRACE_ID:
            if (fields->has_trace_id++ || (at = content(at, end, &stop)) == NULL)
                return IRREGULAR;
            fields->trace_id = (Slice){(uint32_t)(at - data), (uint32_t)(stop - data)};
            at = stop;
            break;
        case SPAN_ID:
            if (fields->has_span_id++ || (at = read_id(at, end, &fields->link.id)) == NULL)
                return IRREGULAR;
            break;
        case PARENT_SPAN_ID:
            if (fields->has_parent++ || (at = read_id(at, end, &fields->link.parent)) == NULL)
                return IRREGULAR;
            break;
        case TRACE_STATE:
            if ((at = content(at, end, &stop)) == NULL)
                return IRREGULAR;
            fields->state = (Slice){(uint32_t)(at - data), (uint32_t)(stop - data)};
            at = stop;
            break;
        case START_TIME:
        case END_TIME:
            if (end - at < 8)
                return IRREGULAR;
            *(at[-1] == START_TIME ? &fields->start : &fields->end) = load(at);
            at += 8;
            break;
        case NAME:
        case ATTRIBUTES:
            if (content(at, end, &stop) == NULL)
                return IRREGULAR;
            at = stop;
            break;
        case STATUS:
            if (fields->has_status++ || (at = content(at, end, &stop)) == NULL
                || !read_status(at, stop, &fields->failed))
                return IRREGULAR;
            at = stop;
            break;
        default:
            if ((at = skip_field(at - 1, end)) == NULL)
                return IRREGULAR;
        }
    }
    return DONE;
}

static Result read_span(Scan *scan, const uint8_t *at, const uint8_t *end)
{
    const uint8_t *data = scan->data;
    Found *found = scan->found;
    Fields fields = {0};
    uint32_t index = found->spans.length, place;
    Result result = read_fields(data, at, end, &fields);
    if (result == DONE)
        result = find_trace(scan, fields.trace_id, &place);
    if (result != DONE)
        return result;
    Span *span = grow(&found->spans, sizeof(Span));
    Link *link = grow(&found->links, sizeof(Link));
    if (span == NULL || link == NULL)
        return NO_MEMORY;
    Slice message = {(uint32_t)(at - data), (uint32_t)(end - data)};
    *span = (Span){message, place, found->scopes.length - 1, NONE};
    *link = fields.link;

    Trace *trace = &AT(found->traces, Trace, place);
    if (trace->first == NONE)
        trace->first = index;
    else
        AT(found->spans, Span, trace->last).next = index;
    trace->last = index;
    trace->spans++;
    trace->size += message.end - message.start;
    if (fields.failed)
        trace->flags |= HAS_ERROR;
    if (!fields.link.parent && trace->root == NONE) {
        trace->root = index;
        trace->flags |= HAS_ROOT;
        double later = (double)(fields.end - fields.start), earlier = (double)(fields.start - fields.end);
        trace->duration = (fields.end >= fields.start ? later : -earlier) * 1e-9;
    }
    return fields.state.end > fields.state.start ? add_state(scan, place, fields.state) : DONE;
}

/* Add a field to the rest before or behind the extracted fields of its message. */
static Result add_rest(Rest *rest, int behind, uint32_t start, uint32_t end)
{
    Slice *slice = behind ? &rest->after : &rest->before;
    if (slice->start == slice->end)
        slice->start = start;
    else if (slice->end != start)
        return IRREGULAR;
    slice->end = end;
    return DONE;
}

static Result read_scope(Scan *scan, const uint8_t *at, const uint8_t *end)
{
    Scope *scope = grow(&scan->found->scopes, sizeof(Scope));
    if (scope == NULL)
        return NO_MEMORY;
    *scope = (Scope){.resource = scan->found->resources.length - 1};
    int any = 0;
    Result result = DONE;
    while (at < end && result == DONE) {
        const uint8_t *field = at, *stop;
        if (*at == SPANS) {
            if ((at = content(at + 1, end, &stop)) == NULL)
                return IRREGULAR;
            result = read_span(scan, at, stop);
            at = stop;
            any = 1;
        } else if ((at = skip_field(at, end)) == NULL)
            return IRREGULAR;
        else
            result = add_rest(&scope->rest, any, (uint32_t)(field - scan->data), (uint32_t)(at - scan->data));
    }
    return result;
}

static Result read_resource(Scan *scan, const uint8_t *at, const uint8_t *end)
{
    Resource *resource = grow(&scan->found->resources, sizeof(Resource));
    if (resource == NULL)
        return NO_MEMORY;
    *resource = (Resource){0};
    int any = 0, seen = 0;
    Result result = DONE;
    while (at < end && result == DONE) {
        const uint8_t *field = at, *stop;
        if (*at == SCOPE_SPANS) {
            if ((at = content(at + 1, end, &stop)) == NULL)
                return IRREGULAR;
            result = read_scope(scan, at, stop);
            at = stop;
            any = 1;
            continue;
        }
        if (*at == RESOURCE) {
            if (seen || (at = content(at + 1, end, &stop)) == NULL)
                return IRREGULAR;
            seen = 1;
            resource->resource = (Slice){(uint32_t)(at - scan->data), (uint32_t)(stop - scan->data)};
            at = stop;
        } else if ((at = skip_field(at, end)) == NULL)
            return IRREGULAR;
        result = add_rest(&resource->rest, any, (uint32_t)(field - scan->data), (uint32_t)(at - scan->data));
    }
    return result;
}

Result find_traces(const uint8_t *data, size_t size, int parents, Found *found)
{
    Scan scan = {.data = data, .found = found};
    *found = (Found){.invalid = NONE};
    open_table(&scan.traces, SMALL_TABLE);
    const uint8_t *at = data, *end = data + size, *stop;
    Result result = size > MOST_BYTES ? IRREGULAR : DONE;
    while (result == DONE && at < end) {
        if (*at != RESOURCE_SPANS || (at = content(at + 1, end, &stop)) == NULL)
            result = IRREGULAR;
        else {
            result = read_resource(&scan, at, stop);
            at = stop;
        }
    }
    close_table(&scan.traces);
    return result == DONE && parents ? follow_parents(found) : result;
}
