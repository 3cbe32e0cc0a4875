/* Find the traces of an ExportTraceServiceRequest in one pass over its bytes. Independent of Python.

   Offsets have 32 bits, and count from the start of the request. */

#ifndef OTELWP_SCAN_H
#define OTELWP_SCAN_H

#include "array.h"

#define ID_LENGTH 16
#define MOST_BYTES INT32_MAX

/* Flags of a trace: see reading.py. */
enum { HAS_ERROR = 1, IS_WHOLE = 2, HAS_ROOT = 4, HAS_DUPLICATES = 8, IS_INVALID = 16 };

typedef struct {
    uint32_t start, end;
} Slice;

/* The message of a resource without its scopes, or of a scope without its spans. */
typedef struct {
    Slice before, after;
} Rest;

typedef struct {
    Rest rest;
    Slice resource;
} Resource;

typedef struct {
    Rest rest;
    uint32_t resource;
} Scope;

typedef struct {
    Slice message;
    uint32_t trace, scope;
    uint32_t next; /* the next span of its trace */
} Span;

typedef struct {
    uint64_t size;   /* bytes of its spans */
    double duration; /* of its root, in seconds */
    Slice id; /* empty for the spans with an invalid trace id */
    uint32_t spans, first, last, root;
    uint32_t states; /* the first of its trace states */
    uint32_t flags;
} Trace;

/* One of the different trace states of a trace. */
typedef struct {
    Slice text;
    uint32_t next;
} State;

/* The ids of a span, used only until the traces are known. 0: no parent. */
typedef struct {
    uint64_t id, parent;
} Link;

typedef struct {
    Array resources, scopes, spans, traces, states, links;
    uint32_t invalid; /* the trace that collects the spans with an invalid trace id */
} Found;

/* IRREGULAR: the request must be read by other means, which may find it invalid. */
typedef enum { DONE, IRREGULAR, NO_MEMORY } Result;

/* Derive the key of the hash tables from 16 random bytes. Call it once. */
void set_seed(const uint8_t random[16]);

/* Find the traces in `size` bytes, at most MOST_BYTES. `parents`: whether to find out which are whole or have
   duplicates. Call `forget` for any result to free the memory. */
Result find_traces(const uint8_t *data, size_t size, int parents, Found *found);

/* Set which traces are whole, and which have an id twice. `find_traces` calls it. */
Result follow_parents(const Found *found);

void forget(Found *found);

#endif
