/* Python functions of count.c, cut.c and json.c, which check limits of requests and find where they can be cut. Large
   bodies are read without the GIL. */

#include "request.h" /* before all others: Python.h must be the first */

#include "cut.h"
#include "json.h"

#include <stdlib.h>

#define LARGE 65536 /* bytes from which the GIL is released */

PyObject *module_count(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    char *data, *schema;
    Py_ssize_t size, length;
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "count(body, schema, limit): two bytes and an int");
        return NULL;
    }
    if (PyBytes_AsStringAndSize(args[0], &data, &size) < 0 || PyBytes_AsStringAndSize(args[1], &schema, &length) < 0)
        return NULL;
    unsigned long long limit = PyLong_AsUnsignedLongLong(args[2]);
    if (PyErr_Occurred())
        return NULL;
    if (length == 0 || length % SCHEMA_TYPE) {
        PyErr_SetString(PyExc_ValueError, "count: that is not a schema");
        return NULL;
    }
    size_t types = (size_t)length / SCHEMA_TYPE;
    int64_t items;
    if (size < LARGE)
        items = count_items((const uint8_t *)data, (size_t)size, (const uint8_t *)schema, types, limit);
    else {
        Py_BEGIN_ALLOW_THREADS
        items = count_items((const uint8_t *)data, (size_t)size, (const uint8_t *)schema, types, limit);
        Py_END_ALLOW_THREADS
    }
    return PyLong_FromLongLong(items);
}

/* Return [(start, end, path), ...]. */
static PyObject *found_cuts(const Cuts *cuts)
{
    PyObject *found = PyList_New((Py_ssize_t)cuts->count);
    for (size_t place = 0; found != NULL && place < cuts->count; place++) {
        const Cut *cut = &cuts->items[place];
        PyObject *each = Py_BuildValue("nny#", (Py_ssize_t)cut->start, (Py_ssize_t)cut->end, (const char *)cut->path,
                                       (Py_ssize_t)cut->depth);
        if (each == NULL || PyList_SetItem(found, (Py_ssize_t)place, each) < 0)
            Py_CLEAR(found);
    }
    return found;
}

PyObject *module_cut(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    char *data, *schema;
    Py_ssize_t size, length;
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "cut(body, schema, target): two bytes and an int");
        return NULL;
    }
    if (PyBytes_AsStringAndSize(args[0], &data, &size) < 0 || PyBytes_AsStringAndSize(args[1], &schema, &length) < 0)
        return NULL;
    size_t target = PyLong_AsSize_t(args[2]);
    if (PyErr_Occurred())
        return NULL;
    if (target == 0 || length == 0 || length % SCHEMA_TYPE) {
        PyErr_SetString(PyExc_ValueError, target ? "cut: that is not a schema" : "cut: the target is at least one byte");
        return NULL;
    }
    Cuts cuts = {NULL, 0, 0};
    int outcome;
    Py_BEGIN_ALLOW_THREADS
    outcome = cut_message((const uint8_t *)data, (size_t)size, (const uint8_t *)schema, (size_t)length / SCHEMA_TYPE,
                          target, &cuts);
    Py_END_ALLOW_THREADS
    PyObject *result = outcome == CUT_DONE        ? found_cuts(&cuts)
                       : outcome == CUT_MALFORMED ? Py_NewRef(Py_None)
                                                  : PyErr_NoMemory();
    free(cuts.items);
    return result;
}

/* Return (values, [start, end, ...]) for the runs. */
static PyObject *found_runs(const Run *runs, int64_t count, uint64_t values)
{
    PyObject *places = PyList_New((Py_ssize_t)count * 2);
    for (Py_ssize_t place = 0; places != NULL && place < (Py_ssize_t)count * 2; place++) {
        PyObject *number = PyLong_FromSize_t(place % 2 ? runs[place / 2].end : runs[place / 2].start);
        if (number == NULL || PyList_SetItem(places, place, number) < 0)
            Py_CLEAR(places);
    }
    PyObject *found = places == NULL ? NULL : Py_BuildValue("KO", (unsigned long long)values, places);
    Py_XDECREF(places);
    return found;
}

PyObject *module_find_runs(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    char *data;
    Py_ssize_t size;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "find_runs(data, target): bytes and an int");
        return NULL;
    }
    size_t target = PyLong_AsSize_t(args[1]);
    if (PyErr_Occurred() || PyBytes_AsStringAndSize(args[0], &data, &size) < 0)
        return NULL;
    if (target == 0) {
        PyErr_SetString(PyExc_ValueError, "find_runs: the target is at least one byte");
        return NULL;
    }
    size_t most = (size_t)size / (target / RUNS_PER_TARGET + 1) + 1;
    Run *runs = PyMem_Malloc(most * sizeof(Run));
    if (runs == NULL)
        return PyErr_NoMemory();
    uint64_t values = 0;
    int64_t found;
    Py_BEGIN_ALLOW_THREADS
    found = find_runs((const uint8_t *)data, (size_t)size, target, runs, most, &values);
    Py_END_ALLOW_THREADS
    PyObject *result = found < 0 ? Py_NewRef(Py_None) : found_runs(runs, found, values);
    PyMem_Free(runs);
    return result;
}
