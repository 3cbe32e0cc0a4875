/* Write a request with some of the spans of another one, in two passes: compute its size, then write it. */

#include "request.h"

/* The choice for the spans of a trace: with neither a suffix nor others, they are dropped. */
typedef struct {
    const char *suffix; /* not NULL: keep them and append this to each */
    Py_ssize_t length;
    PyObject *others; /* not NULL: replace them by these */
    Py_ssize_t next; /* index of the next of the others */
} Mark;

/* The bytes written for a span: its own bytes and the bytes appended to them. */
typedef struct {
    Slice own;
    const char *more;
    Py_ssize_t length;
} Written;

/* Read the choice for a trace; return 0, with an error set, if it is invalid. */
static int read_mark(PyObject *choice, const Trace *trace, Mark *mark)
{
    char *suffix;
    if (choice == Py_None)
        return 1;
    if (!PyList_Check(choice)) {
        int read = PyBytes_AsStringAndSize(choice, &suffix, &mark->length);
        mark->suffix = read < 0 ? NULL : suffix;
        return read == 0;
    }
    if (PyList_Size(choice) != (Py_ssize_t)trace->spans) {
        PyErr_Format(PyExc_ValueError, "select: %u spans take the places of %zd", (unsigned)trace->spans,
                     PyList_Size(choice));
        return 0;
    }
    mark->others = choice;
    return 1;
}

/* Find the bytes to write for a span; return 0 if there are none, -1 on an error. */
static int write_of(const Span *span, Mark *mark, Written *written)
{
    if (mark->suffix != NULL) {
        *written = (Written){span->message, mark->suffix, mark->length};
        return 1;
    }
    if (mark->others == NULL)
        return 0;
    char *text;
    PyObject *other = PyList_GetItem(mark->others, mark->next++);
    if (other == NULL || PyBytes_AsStringAndSize(other, &text, &written->length) < 0)
        return -1;
    written->own = (Slice){0, 0};
    written->more = text;
    return 1;
}

/* Compute the sizes of each scope and each resource; return the total, or 0, with an error set if there was one. */
static uint64_t measure(const Found *found, Mark *marks, uint64_t *scopes, uint64_t *resources)
{
    Written written;
    uint64_t total = 0;
    for (uint32_t place = 0; place < found->spans.length; place++) {
        const Span *span = &AT(found->spans, Span, place);
        int any = write_of(span, &marks[span->trace], &written);
        if (any < 0)
            return 0;
        if (any)
            scopes[span->scope] += field_size((uint64_t)length_of(written.own) + written.length);
    }
    for (uint32_t place = 0; place < found->scopes.length; place++) {
        Scope scope = AT(found->scopes, Scope, place);
        if (scopes[place])
            resources[scope.resource] += field_size(scopes[place] += rest_size(scope.rest));
    }
    for (uint32_t place = 0; place < found->resources.length; place++)
        if (resources[place])
            total += field_size(resources[place] += rest_size(AT(found->resources, Resource, place).rest));
    return total;
}

static void write_chosen(const uint8_t *data, const Found *found, Mark *marks, const uint64_t *scopes,
                         const uint64_t *resources, uint8_t *at)
{
    Written written;
    uint32_t resource = NONE, scope = NONE;
    for (uint32_t place = 0; place < found->traces.length; place++)
        marks[place].next = 0;
    for (uint32_t place = 0; place < found->spans.length; place++) {
        const Span *span = &AT(found->spans, Span, place);
        if (write_of(span, &marks[span->trace], &written) < 1)
            continue;
        Scope around = AT(found->scopes, Scope, span->scope);
        if (around.resource != resource) {
            resource = around.resource;
            at = put_head(at, RESOURCE_SPANS, resources[resource]);
            at = put_rest(at, data, AT(found->resources, Resource, resource).rest);
        }
        if (span->scope != scope) {
            scope = span->scope;
            at = put_head(at, SCOPE_SPANS, scopes[scope]);
            at = put_rest(at, data, around.rest);
        }
        at = put_head(at, SPANS, (uint64_t)length_of(written.own) + written.length);
        at = put(at, data + written.own.start, length_of(written.own));
        at = put(at, written.more, (size_t)written.length);
    }
}

PyObject *request_select(Request *self, PyObject *chosen)
{
    const Found *found = &self->found;
    if (!PyList_Check(chosen) || PyList_Size(chosen) != (Py_ssize_t)found->traces.length) {
        PyErr_Format(PyExc_ValueError, "select: a list of %u choices", (unsigned)found->traces.length);
        return NULL;
    }
    PyObject *body = NULL;
    Mark *marks = PyMem_Calloc((size_t)found->traces.length + 1, sizeof(Mark));
    uint64_t *scopes = PyMem_Calloc((size_t)found->scopes.length + found->resources.length + 1, sizeof(uint64_t));
    if (marks == NULL || scopes == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (uint32_t place = 0; place < found->traces.length; place++)
        if (!read_mark(PyList_GetItem(chosen, place), &AT(found->traces, Trace, place), &marks[place]))
            goto done;
    uint64_t *resources = scopes + found->scopes.length, total = measure(found, marks, scopes, resources);
    uint8_t *at;
    if (!PyErr_Occurred() && (body = empty_bytes(total, &at)) != NULL)
        write_chosen(data_of(self), found, marks, scopes, resources, at);
done:
    PyMem_Free(marks);
    PyMem_Free(scopes);
    return body;
}
