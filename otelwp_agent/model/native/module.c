/* The extension module `_native`: the results of scan.c as Python objects. reading.py documents them.

   `read` returns None for a request with an unusual layout, which reading.py then reads. */

#include "edit.h" /* before all others: Python.h must be the first */

#include "convert.h"

static PyTypeObject *request_type;

/* ---- read ---- */

/* Return whether a root's attribute may be requested: it begins with one of the marks, or has an unusual layout. */
static int is_wanted(const uint8_t *at, const uint8_t *end, PyObject *marks)
{
    if (end - at < 2 || at[0] != KEY || at[1] >= 0x80)
        return 1;
    Py_ssize_t count = PyTuple_Size(marks), length;
    for (Py_ssize_t place = 0; place < count; place++) {
        char *mark;
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(marks, place), &mark, &length) < 0)
            return -1;
        if (length <= end - at && memcmp(at, mark, (size_t)length) == 0)
            return 1;
    }
    return 0;
}

/* Return the requested fields of a root, unchanged. The root is known to be valid. */
static PyObject *requested_fields(const uint8_t *data, Slice root, PyObject *marks, int name)
{
    uint8_t small[1024], *out = length_of(root) > sizeof(small) ? PyMem_Malloc(length_of(root)) : small;
    if (out == NULL)
        return PyErr_NoMemory();
    uint8_t *written = out;
    const uint8_t *at = data + root.start, *end = data + root.end, *stop = NULL;
    int take = 0;
    while (at < end && take >= 0) {
        const uint8_t *field = at;
        take = *at == NAME && name;
        if (*at == ATTRIBUTES) {
            at = content(at + 1, end, &stop);
            take = is_wanted(at, stop, marks);
            at = stop;
        } else
            at = skip_field(at, end);
        if (take > 0)
            written = put(written, field, (size_t)(at - field));
    }
    PyObject *fields_of_root = take < 0 ? NULL : PyBytes_FromStringAndSize((char *)out, written - out);
    if (out != small)
        PyMem_Free(out);
    return fields_of_root;
}

static PyObject *states_of(const uint8_t *data, const Found *found, const Trace *trace)
{
    Py_ssize_t count = 0;
    uint32_t at;
    for (at = trace->states; at != NONE; at = AT(found->states, State, at).next)
        count++;
    PyObject *states = PyTuple_New(count);
    at = trace->states;
    for (Py_ssize_t place = 0; states != NULL && place < count; place++) {
        PyObject *text = bytes_of(data, AT(found->states, State, at).text);
        if (text == NULL || PyTuple_SetItem(states, place, text) < 0)
            Py_CLEAR(states);
        at = AT(found->states, State, at).next;
    }
    return states;
}

/* Return a tuple of the fields, whose references it takes over; NULL if one of them is NULL. */
static PyObject *packed(PyObject **fields, Py_ssize_t count)
{
    PyObject *tuple = PyTuple_New(count);
    int complete = tuple != NULL;
    for (Py_ssize_t place = 0; place < count; place++)
        complete &= fields[place] != NULL;
    for (Py_ssize_t place = 0; place < count; place++)
        if (complete)
            PyTuple_SetItem(tuple, place, fields[place]);
        else
            Py_XDECREF(fields[place]);
    if (!complete)
        Py_CLEAR(tuple);
    return tuple;
}

/* Return a serialized resource as one object for all its traces. With one object per trace, a request with many traces
   and a large resource would need unlimited memory. */
static PyObject *resource_of(const Request *request, PyObject **known, uint32_t place)
{
    if (known[place] == NULL)
        known[place] = bytes_of(data_of(request), AT(request->found.resources, Resource, place).resource);
    return Py_XNewRef(known[place]);
}

/* Return the pieces as tuples with the fields of reading.Piece. */
static PyObject *pieces_of(const Request *request, PyObject *marks, int name)
{
    const Found *found = &request->found;
    const uint8_t *data = data_of(request);
    PyObject *pieces = PyList_New(found->traces.length), *nothing = PyBytes_FromStringAndSize(NULL, 0);
    PyObject **resources = PyMem_Calloc((size_t)found->resources.length + 1, sizeof(PyObject *));
    if (resources == NULL) {
        PyErr_NoMemory();
        Py_CLEAR(pieces);
    }
    for (uint32_t place = 0; pieces != NULL && place < found->traces.length; place++) {
        const Trace *trace = &AT(found->traces, Trace, place);
        const Span *span = &AT(found->spans, Span, trace->root == NONE ? trace->first : trace->root);
        PyObject *fields[] = {
            bytes_of(data, trace->id),
            PyLong_FromUnsignedLong(trace->spans),
            PyLong_FromUnsignedLongLong(trace->size),
            PyLong_FromUnsignedLong(trace->flags),
            states_of(data, found, trace),
            PyFloat_FromDouble(trace->duration),
            resource_of(request, resources, AT(found->scopes, Scope, span->scope).resource),
            marks == Py_None || trace->root == NONE ? Py_XNewRef(nothing)
                                                    : requested_fields(data, span->message, marks, name),
        };
        PyObject *piece = packed(fields, sizeof(fields) / sizeof(*fields));
        if (piece == NULL || PyList_SetItem(pieces, place, piece) < 0)
            Py_CLEAR(pieces);
    }
    for (uint32_t place = 0; resources != NULL && place < found->resources.length; place++)
        Py_XDECREF(resources[place]);
    PyMem_Free(resources);
    Py_XDECREF(nothing);
    return pieces;
}

static PyObject *module_read(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    char *data;
    Py_ssize_t size;
    int name;
    if (count != 3 || !(args[1] == Py_None || PyTuple_Check(args[1]))) {
        PyErr_SetString(PyExc_TypeError, "read(body, marks, name): bytes, a tuple of bytes or None, and a bool");
        return NULL;
    }
    if (PyBytes_AsStringAndSize(args[0], &data, &size) < 0 || (name = PyObject_IsTrue(args[2])) < 0)
        return NULL;
    Request *request = PyObject_New(Request, request_type);
    if (request == NULL)
        return NULL;
    request->body = Py_NewRef(args[0]);
    PyObject *made = NULL, *pieces;
    switch (find_traces((const uint8_t *)data, (size_t)size, args[1] != Py_None, &request->found)) {
    case DONE:
        pieces = pieces_of(request, args[1], name);
        made = pieces == NULL ? NULL : PyTuple_Pack(2, (PyObject *)request, pieces);
        Py_XDECREF(pieces);
        break;
    case IRREGULAR:
        made = Py_NewRef(Py_None);
        break;
    case NO_MEMORY:
        PyErr_NoMemory();
    }
    Py_DECREF((PyObject *)request);
    return made;
}

/* ---- the methods of a request, except select ---- */

/* Read the position of a piece; return NONE, with an error set, if it is invalid. */
static uint32_t place_of(const Request *self, PyObject *number)
{
    unsigned long place = PyLong_AsUnsignedLong(number);
    if (!PyErr_Occurred() && place >= self->found.traces.length)
        PyErr_Format(PyExc_IndexError, "there are %u traces", (unsigned)self->found.traces.length);
    return PyErr_Occurred() ? NONE : (uint32_t)place;
}

/* Return the spans of a trace from `first` on that are in the same scope, as reading.Part; *first becomes the next
   span, which is in another scope. */
static PyObject *part_of(const Request *self, uint32_t *first, PyObject *heads, PyObject *owner)
{
    const uint8_t *data = data_of(self);
    const Span *spans = self->found.spans.items;
    uint32_t scope = spans[*first].scope, end = *first, count = 0;
    uint64_t size = 0;
    for (; end != NONE && spans[end].scope == scope; end = spans[end].next, count++)
        size += field_size(length_of(spans[end].message));
    uint8_t *at;
    PyObject *framed = empty_bytes(size, &at);
    if (framed == NULL)
        return NULL;
    for (; *first != end; *first = spans[*first].next) {
        Slice message = spans[*first].message;
        at = put_head(at, SPANS, length_of(message));
        at = put(at, data + message.start, length_of(message));
    }
    PyObject *fields[] = {
        Py_XNewRef(PyList_GetItem(heads, scope)), framed, PyLong_FromUnsignedLong(count), Py_NewRef(owner),
    };
    return packed(fields, sizeof(fields) / sizeof(*fields));
}

static PyObject *request_parts(Request *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 3 || !PyList_Check(args[0]) || !PyList_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "parts(places, heads, owner): two lists, and anything");
        return NULL;
    }
    Py_ssize_t places = PyList_Size(args[0]);
    PyObject *found = PyList_New(places);
    for (Py_ssize_t at = 0; found != NULL && at < places; at++) {
        uint32_t place = place_of(self, PyList_GetItem(args[0], at));
        PyObject *parts = place == NONE ? NULL : PyList_New(0);
        uint32_t span = place == NONE ? NONE : AT(self->found.traces, Trace, place).first;
        while (parts != NULL && span != NONE) {
            PyObject *part = part_of(self, &span, args[1], args[2]);
            if (part == NULL || PyList_Append(parts, part) < 0)
                Py_CLEAR(parts);
            Py_XDECREF(part);
        }
        if (parts == NULL || PyList_SetItem(found, at, parts) < 0)
            Py_CLEAR(found);
    }
    return found;
}

static PyObject *request_spans(Request *self, PyObject *number)
{
    uint32_t place = place_of(self, number);
    if (place == NONE)
        return NULL;
    const Trace *trace = &AT(self->found.traces, Trace, place);
    PyObject *items = PyList_New(trace->spans);
    uint32_t span = trace->first;
    for (uint32_t at = 0; items != NULL && at < trace->spans; at++) {
        PyObject *item = bytes_of(data_of(self), AT(self->found.spans, Span, span).message);
        if (item == NULL || PyList_SetItem(items, at, item) < 0)
            Py_CLEAR(items);
        span = AT(self->found.spans, Span, span).next;
    }
    return items;
}

static PyObject *joined(const uint8_t *data, Rest rest)
{
    uint8_t *at;
    PyObject *bytes = empty_bytes(rest_size(rest), &at);
    if (bytes != NULL)
        put_rest(at, data, rest);
    return bytes;
}

static PyObject *request_heads(Request *self, PyObject *Py_UNUSED(none))
{
    const Found *found = &self->found;
    PyObject *heads = PyList_New(found->scopes.length);
    PyObject *around = NULL; /* one object for all scopes of a resource, which are adjacent */
    uint32_t resource = NONE;
    for (uint32_t place = 0; heads != NULL && place < found->scopes.length; place++) {
        Scope scope = AT(found->scopes, Scope, place);
        if (scope.resource != resource) {
            resource = scope.resource;
            Py_XDECREF(around);
            around = joined(data_of(self), AT(found->resources, Resource, resource).rest);
        }
        PyObject *rests[] = {Py_XNewRef(around), joined(data_of(self), scope.rest)};
        PyObject *head = packed(rests, 2);
        if (head == NULL || PyList_SetItem(heads, place, head) < 0)
            Py_CLEAR(heads);
    }
    Py_XDECREF(around);
    return heads;
}

static PyObject *request_spread(Request *self, PyObject *codes)
{
    const Found *found = &self->found;
    char *code;
    Py_ssize_t length;
    if (PyBytes_AsStringAndSize(codes, &code, &length) < 0)
        return NULL;
    if (length != (Py_ssize_t)found->traces.length) {
        PyErr_Format(PyExc_ValueError, "spread: %u bytes", (unsigned)found->traces.length);
        return NULL;
    }
    uint8_t *at;
    PyObject *spread = empty_bytes(found->spans.length, &at);
    for (uint32_t place = 0; spread != NULL && place < found->spans.length; place++)
        at[place] = (uint8_t)code[AT(found->spans, Span, place).trace];
    return spread;
}

static void request_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    forget(&((Request *)self)->found);
    Py_DECREF(((Request *)self)->body);
    PyObject_Free(self);
    Py_DECREF((PyObject *)type);
}

/* ---- the module ---- */

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef request_methods[] = {
    {"select", (PyCFunction)request_select, METH_O, "Return a request with the choice for each piece."},
    {"parts", FAST(request_parts), METH_FASTCALL, "Return the spans of some pieces, by scope."},
    {"spans", (PyCFunction)request_spans, METH_O, "Return the spans of a piece."},
    {"heads", (PyCFunction)request_heads, METH_NOARGS, "Return the head of the spans of each scope."},
    {"spread", (PyCFunction)request_spread, METH_O, "Return one byte for each span: the byte of its piece."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot request_slots[] = {
    {Py_tp_dealloc, (void *)request_dealloc},
    {Py_tp_methods, request_methods},
    {Py_tp_doc, "A request whose traces have been found; see reading.Request."},
    {0, NULL},
};

static PyType_Spec request_spec = {
    .name = "otelwp_agent.model.native._native.Request",
    .basicsize = sizeof(Request),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = request_slots,
};

static PyMethodDef module_methods[] = {
    {"read", FAST(module_read), METH_FASTCALL, "Return a Request and its pieces; None if Python has to read it."},
    {"count", FAST(module_count), METH_FASTCALL, "Return the items in a message; see counting.py."},
    {"cut", FAST(module_cut), METH_FASTCALL, "Return where a message can be cut; see cutting.py."},
    {"converter", module_converter, METH_VARARGS, "Return a converter of JSON documents; see compiling.py."},
    {"editor", module_editor, METH_VARARGS, "Return an editor of attributes; see attribute_edits.py."},
    {"find_runs", FAST(module_find_runs), METH_FASTCALL, "Return where JSON can be cut; see json_slices.py."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_native",
    .m_doc = "Traces read out of requests (see reading.py), and what messages hold (see counting.py).",
    .m_size = -1,
    .m_methods = module_methods,
};

/* Set the key of the hash tables. Return 0, with an error set, if there is no randomness. */
static int draw_seed(void)
{
    PyObject *os = PyImport_ImportModule("os");
    PyObject *drawn = os == NULL ? NULL : PyObject_CallMethod(os, "urandom", "i", 16);
    const char *random = drawn == NULL ? NULL : PyBytes_AsString(drawn);
    if (random != NULL)
        set_seed((const uint8_t *)random);
    Py_XDECREF(drawn);
    Py_XDECREF(os);
    return random != NULL;
}

PyMODINIT_FUNC PyInit__native(void)
{
    request_type = (PyTypeObject *)PyType_FromSpec(&request_spec);
    if (request_type == NULL || !draw_seed() || !prepare_editors() || !prepare_converters())
        return NULL;
    return PyModule_Create(&definition);
}
