/* A request as a Python object, and functions that its methods share. */

#ifndef OTELWP_REQUEST_H
#define OTELWP_REQUEST_H

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "scan.h"
#include "wire.h"

typedef struct {
    PyObject_HEAD
    PyObject *body;
    Found found;
} Request;

static inline const uint8_t *data_of(const Request *request)
{
    return (const uint8_t *)PyBytes_AsString(request->body);
}

static inline uint32_t length_of(Slice slice)
{
    return slice.end - slice.start;
}

static inline PyObject *bytes_of(const uint8_t *data, Slice slice)
{
    return PyBytes_FromStringAndSize((const char *)data + slice.start, length_of(slice));
}

/* Allocate a bytes object; *at becomes the address of its content, which the caller writes. */
static inline PyObject *empty_bytes(uint64_t size, uint8_t **at)
{
    PyObject *bytes = size > PY_SSIZE_T_MAX ? PyErr_NoMemory() : PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (bytes != NULL)
        *at = (uint8_t *)PyBytes_AsString(bytes);
    return bytes;
}

static inline uint64_t rest_size(Rest rest)
{
    return (uint64_t)length_of(rest.before) + length_of(rest.after);
}

static inline uint8_t *put_rest(uint8_t *at, const uint8_t *data, Rest rest)
{
    at = put(at, data + rest.before.start, length_of(rest.before));
    return put(at, data + rest.after.start, length_of(rest.after));
}

/* Return a request with the choice for each piece; see reading.Request.select. */
PyObject *request_select(Request *self, PyObject *chosen);

/* Return the number of items in a message; see counting.count. */
PyObject *module_count(PyObject *module, PyObject *const *args, Py_ssize_t count);

/* Return the runs in a JSON document; see json_slices.find_runs. */
PyObject *module_find_runs(PyObject *module, PyObject *const *args, Py_ssize_t count);

/* Return the pieces of a message; see cutting.cut. */
PyObject *module_cut(PyObject *module, PyObject *const *args, Py_ssize_t count);

#endif
