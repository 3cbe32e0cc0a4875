/* Convert JSON documents, parsed into Python objects, to serialized protobuf messages. */

#ifndef OTELWP_CONVERT_H
#define OTELWP_CONVERT_H

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

#define MAX_DEPTH 100 /* of messages, as in schema.MAX_DEPTH */
#define MAX_TAG 5

/* Kinds of fields; see compiling.py. */
typedef enum {
    CALLED, TEXT, BOOLEAN, VARIED, FIXED_32, FIXED_64, SIGNED_64, DOUBLE, ENUM, IDENTIFIER, MESSAGE, MESSAGES,
    KIND_COUNT
} FieldKind;

typedef struct {
    FieldKind kind;
    uint8_t tag[MAX_TAG], tag_size;
    uint8_t optional; /* whether an identifier may be empty */
    uint32_t child;   /* of a message: index of its type; of an identifier: bytes */
    int64_t low, high; /* of a varint */
    PyObject *encode;  /* converts every value, or raises; borrowed from the converter's arguments */
} Field;

typedef struct {
    PyObject *names; /* {name: index of the field}, borrowed as above */
    Field *fields;
    uint32_t count;
} Table;

typedef struct {
    PyObject_HEAD
    PyObject *arguments;
    Table *tables;
    uint32_t count;
} Converter;

/* Return a serialized message; None if Python has to convert it. See compiling.py. */
PyObject *converter_convert(Converter *self, PyObject *const *args, Py_ssize_t count)
    __attribute__((visibility("hidden")));

/* Return a converter; see compiling.py. */
PyObject *module_converter(PyObject *module, PyObject *args);

/* Create the type of converters. Return 0, with an error set, if that fails. */
int prepare_converters(void);

#endif
