/* Edit attributes in a serialized request: the parts that edit_plan.c reads from Python and edit.c executes.
   attribute_edits.py documents them. */

#ifndef OTELWP_EDIT_H
#define OTELWP_EDIT_H

#include "request.h" /* before all others: Python.h must be the first */

#include "patch.h"

#define MAX_FIELD 15   /* greatest number of a field that is read: its tag is one byte */
#define MAX_NAMES 64   /* maximum number of patterns */
#define BUCKETS 256    /* of keys */

/* What to do with a message type, with the layout of attribute_edits.TYPE. */
typedef struct {
    uint8_t child[MAX_FIELD + 1]; /* by field number: index of the field's message type plus 1; 0: it is not read */
    uint8_t attributes;           /* number of the field with attributes; 0: the type has none */
    uint8_t role;
    uint8_t once[2]; /* a set of fields, little-endian; a second one of any of them is left to Python */
    uint8_t added;   /* number of the field that is added if it is missing; 0: none */
} Type;

enum { IS_RESOURCE = 1, IS_SCOPE = 2, IS_TESTED = 4 }; /* roles */

typedef enum { DELETE, SET, COPY, REWRITE, EXTRACT } Kind;

/* An action; see attribute_edits.Operation. */
typedef struct {
    Kind kind;
    uint8_t inserts, updates, all;
    uint32_t key, source; /* indexes of keys */
    uint64_t names;       /* a set of patterns */
    Py_ssize_t value;     /* index of a value of the request; -1: none */
    PyObject *results;    /* a mapping from a value to the new one; borrowed from the editor's arguments */
    uint32_t *groups;     /* for EXTRACT: keys of the values in the mapping's tuples */
    uint32_t group_count;
} Operation;

typedef enum { BYTES_FIELD, NUMBER_FIELD, ATTRIBUTE } Where;

/* A condition on an item; see attribute_edits.ItemCondition. */
typedef struct {
    Where where;
    uint8_t excludes, field;
    uint32_t key;
    PyObject *answers; /* a mapping from value to bool */
} Condition;

typedef struct {
    Text text;
    uint64_t names; /* the patterns that it matches */
    uint32_t next;  /* in its bucket */
} Key;

typedef struct {
    PyObject_HEAD
    PyObject *arguments; /* keeps alive what the others point to */
    const Type *types;
    uint32_t type_count, key_count, operation_count, condition_count;
    Key *keys;
    Operation *operations;
    Condition *conditions;
    PyObject *names; /* a mapping from a key to the set of the patterns that it matches; NULL: no patterns */
    uint32_t buckets[BUCKETS];
    int includes, excludes, reads_fields; /* whether there are conditions of each kind, and on fields */
} Editor;

static inline uint32_t bucket_of(const uint8_t *key, size_t length)
{
    return (uint32_t)(length * 31 + (length ? key[length - 1] * 7u + key[length / 2] : 0)) % BUCKETS;
}

/* Return the index of a key; NONE if it is not one of the editor's. */
static inline uint32_t find_key(const Editor *editor, const uint8_t *key, size_t length)
{
    uint32_t place = editor->buckets[bucket_of(key, length)];
    while (place != NONE && (editor->keys[place].text.length != length
                             || memcmp(editor->keys[place].text.at, key, length) != 0))
        place = editor->keys[place].next;
    return place;
}

/* Return the edited body; see attribute_edits.Editor.edit. */
PyObject *editor_edit(Editor *self, PyObject *const *args, Py_ssize_t count)
    __attribute__((visibility("hidden")));

/* Return an editor; see attribute_edits.compiled. */
PyObject *module_editor(PyObject *module, PyObject *args);

/* Create the type of editors. Return 0, with an error set, if that fails. */
int prepare_editors(void);

#endif
