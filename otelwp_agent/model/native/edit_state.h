/* The state of one edit, shared by the files that take part in it. */

#ifndef OTELWP_EDIT_STATE_H
#define OTELWP_EDIT_STATE_H

#include "edit.h"

#define ANSWERS 64 /* entries in the cache of names */

typedef enum { SAME = 1, CHANGED = 2, DELETED = 4, ADDED = 8 } Change;

/* An attribute that an operation or a condition may need. */
typedef struct {
    uint32_t start, content, value, value_end, end; /* of the field, its content and the content's value field */
    uint32_t key;
    uint64_t names;
    Text current; /* value */
    Change state;
} Attribute;

/* The patterns that a key matches. */
typedef struct {
    Text key;
    uint64_t names;
} Answer;

typedef struct {
    const Editor *editor;
    const uint8_t *data;
    PyObject *values, *on_resource, *on_scope; /* arguments of `edit` */
    PyObject *kept;                            /* objects that patches point to */
    Array patches, attributes;
    int excluding;                   /* whether the conditions that exclude apply to this group */
    int is_included, is_excluded;    /* whether the conditions on fields hold for this item */
    Answer answers[ANSWERS];
} Edit;

typedef enum { EDITED, LEFT_TO_PYTHON, OUT_OF_MEMORY, RAISED } Outcome;

static inline PyObject *as_bytes(Text text)
{
    return PyBytes_FromStringAndSize((const char *)text.at, (Py_ssize_t)text.length);
}

/* Return the first attribute with a key; NULL if there is none. */
static inline Attribute *first_with(const Edit *edit, uint32_t key)
{
    for (uint32_t place = 0; place < edit->attributes.length; place++) {
        Attribute *attribute = &AT(edit->attributes, Attribute, place);
        if (attribute->key == key && attribute->state != DELETED)
            return attribute;
    }
    return NULL;
}

#define HIDDEN __attribute__((visibility("hidden")))

/* Read a KeyValue, and add it to the attributes if its key may be needed. */
HIDDEN Outcome read_attribute(Edit *edit, const uint8_t *field, const uint8_t *at, const uint8_t *end);

/* Apply an operation to the attributes that have been read. */
HIDDEN Outcome apply(Edit *edit, const Operation *operation);

/* Check the conditions on the fields of an item. */
HIDDEN Outcome check_fields(Edit *edit, const uint8_t *at, const uint8_t *end);

/* Return whether an item whose attributes have been read is to be edited; -1 on an error. */
HIDDEN int is_wanted(const Edit *edit);

/* Pass the resource or the scope of a group to Python; *skipped becomes whether no item in the group is wanted. */
HIDDEN Outcome enter(Edit *edit, const uint8_t *at, const uint8_t *end, uint8_t role, int *skipped);

#endif
