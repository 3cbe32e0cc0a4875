/* Read attributes, and apply operations to them. */

#include "edit_state.h" /* before all others: Python.h must be the first */

#include "wire.h"

/* Find the patterns that a key matches. The cache is for this request, because senders repeat their keys. */
static int find_names(Edit *edit, Text key, uint64_t *names)
{
    uint32_t hash = bucket_of(key.at, key.length) % ANSWERS;
    Answer *answer = &edit->answers[hash];
    if (answer->key.at == NULL || answer->key.length != key.length || memcmp(answer->key.at, key.at, key.length) != 0) {
        PyObject *bytes = as_bytes(key), *set = bytes == NULL ? NULL : PyObject_GetItem(edit->editor->names, bytes);
        unsigned long long number = set == NULL ? 0 : PyLong_AsUnsignedLongLong(set);
        Py_XDECREF(bytes);
        Py_XDECREF(set);
        if (PyErr_Occurred())
            return 0;
        *answer = (Answer){key, number};
    }
    *names = answer->names;
    return 1;
}

Outcome read_attribute(Edit *edit, const uint8_t *field, const uint8_t *at, const uint8_t *end)
{
    const uint8_t *stop, *data = edit->data, *content_start = at;
    Text key = {data, 0}, current = {data, 0};
    const uint8_t *value = NULL, *value_end = NULL;
    int has_key = 0;
    while (at < end) {
        const uint8_t *start = at;
        if (*at == KEY) {
            if (has_key++ || (at = content(at + 1, end, &stop)) == NULL)
                return LEFT_TO_PYTHON;
            key = (Text){at, (size_t)(stop - at)};
            at = stop;
        } else if (*at == VALUE) {
            if (value != NULL || (at = content(at + 1, end, &stop)) == NULL)
                return LEFT_TO_PYTHON;
            current = (Text){at, (size_t)(stop - at)};
            value = start;
            at = value_end = stop;
        } else if ((at = skip_field(at, end)) == NULL)
            return LEFT_TO_PYTHON;
    }
    uint32_t place = find_key(edit->editor, key.at, key.length);
    uint64_t names = 0;
    if (edit->editor->names != NULL && !find_names(edit, key, &names))
        return RAISED;
    if (place == NONE && !names)
        return EDITED;
    Attribute *attribute = grow(&edit->attributes, sizeof(Attribute));
    if (attribute == NULL)
        return OUT_OF_MEMORY;
    if (value == NULL)
        value = value_end = end;
    *attribute = (Attribute){
        .start = (uint32_t)(field - data), .content = (uint32_t)(content_start - data),
        .value = (uint32_t)(value - data), .value_end = (uint32_t)(value_end - data), .end = (uint32_t)(end - data),
        .key = place, .names = names, .current = current, .state = SAME,
    };
    return EDITED;
}

/* ---- operations ---- */

static inline int is_selected(const Attribute *attribute, const Operation *operation)
{
    return attribute->state != DELETED && ((attribute->key == operation->key && attribute->key != NONE)
                                           || (attribute->names & operation->names) != 0);
}

static void change(Attribute *attribute, Text value)
{
    if (value.length != attribute->current.length || memcmp(value.at, attribute->current.at, value.length) != 0) {
        attribute->current = value;
        if (attribute->state != ADDED)
            attribute->state = CHANGED;
    }
}

/* Set the value of a key: of the first attribute that has it, or of a new one. */
static Outcome set(Edit *edit, uint32_t key, Text value, int inserts, int updates)
{
    Attribute *attribute = first_with(edit, key);
    if (attribute != NULL) {
        if (updates)
            change(attribute, value);
    } else if (inserts) {
        if ((attribute = grow(&edit->attributes, sizeof(Attribute))) == NULL)
            return OUT_OF_MEMORY;
        *attribute = (Attribute){
            .key = key, .names = edit->editor->keys[key].names, .current = value, .state = ADDED};
    }
    return EDITED;
}

/* Keep an object, whose reference is taken over, until the body has been written, and read its bytes. */
static Outcome keep(Edit *edit, PyObject *object, Text *text)
{
    char *at;
    Py_ssize_t length;
    int kept = PyBytes_AsStringAndSize(object, &at, &length) == 0
               && (edit->kept != NULL || (edit->kept = PyList_New(0)) != NULL)
               && PyList_Append(edit->kept, object) == 0;
    Py_DECREF(object);
    if (!kept)
        return RAISED;
    *text = (Text){(const uint8_t *)at, (size_t)length};
    return EDITED;
}

/* Return the result of an operation for a value. */
static PyObject *called(const Operation *operation, Text value)
{
    PyObject *bytes = as_bytes(value);
    PyObject *result = bytes == NULL ? NULL : PyObject_GetItem(operation->results, bytes);
    Py_XDECREF(bytes);
    return result;
}

static Outcome rewrite(Edit *edit, const Operation *operation)
{
    for (uint32_t place = 0; place < edit->attributes.length; place++) {
        Attribute *attribute = &AT(edit->attributes, Attribute, place);
        if (!is_selected(attribute, operation))
            continue;
        PyObject *result = called(operation, attribute->current);
        if (result == NULL)
            return RAISED;
        if (result == Py_None)
            Py_DECREF(result);
        else {
            Text value;
            if (keep(edit, result, &value) != EDITED)
                return RAISED;
            change(attribute, value);
        }
        if (!operation->all)
            break;
    }
    return EDITED;
}

static Outcome extract(Edit *edit, const Operation *operation)
{
    const Attribute *attribute = first_with(edit, operation->key);
    if (attribute == NULL)
        return EDITED;
    PyObject *result = called(operation, attribute->current);
    if (result == NULL)
        return RAISED;
    Outcome outcome = EDITED;
    if (result != Py_None && (!PyTuple_Check(result) || PyTuple_Size(result) != (Py_ssize_t)operation->group_count)) {
        PyErr_SetString(PyExc_TypeError, "edit: a result must have a value for each group");
        outcome = RAISED;
    }
    for (uint32_t place = 0; result != Py_None && outcome == EDITED && place < operation->group_count; place++) {
        Text value;
        outcome = keep(edit, Py_NewRef(PyTuple_GetItem(result, place)), &value);
        if (outcome == EDITED)
            outcome = set(edit, operation->groups[place], value, 1, 1);
    }
    Py_DECREF(result);
    return outcome;
}

/* Read the value that an operation sets; *found becomes 0 if there is none. */
static Outcome find_value(Edit *edit, const Operation *operation, Text *value, int *found)
{
    const Attribute *source = operation->kind == COPY ? first_with(edit, operation->source) : NULL;
    char *at;
    Py_ssize_t length;
    *found = 1;
    if (source != NULL) {
        *value = source->current;
        return EDITED;
    }
    PyObject *given = operation->value < 0 ? Py_None : PyTuple_GetItem(edit->values, operation->value);
    if (given == NULL || (given != Py_None && PyBytes_AsStringAndSize(given, &at, &length) < 0))
        return RAISED;
    if (given == Py_None)
        *found = 0;
    else
        *value = (Text){(const uint8_t *)at, (size_t)length};
    return EDITED;
}

Outcome apply(Edit *edit, const Operation *operation)
{
    Outcome outcome;
    Text value;
    int found;
    switch (operation->kind) {
    case DELETE:
        for (uint32_t place = 0; place < edit->attributes.length; place++) {
            Attribute *attribute = &AT(edit->attributes, Attribute, place);
            if (is_selected(attribute, operation))
                attribute->state = DELETED;
        }
        return EDITED;
    case REWRITE:
        return rewrite(edit, operation);
    case EXTRACT:
        return extract(edit, operation);
    default:
        outcome = find_value(edit, operation, &value, &found);
        if (outcome != EDITED || !found)
            return outcome;
        return set(edit, operation->key, value, operation->inserts, operation->updates);
    }
}
