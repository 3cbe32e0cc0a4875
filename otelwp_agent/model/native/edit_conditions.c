/* Check whether items are to be edited. */

#include "edit_state.h" /* before all others: Python.h must be the first */

#include "wire.h"

/* Return whether a mapping's answer for `key`, whose reference is taken over, is true; -1 on an error. */
static int answer_of(PyObject *answers, PyObject *key)
{
    PyObject *answer = key == NULL ? NULL : PyObject_GetItem(answers, key);
    int holds = answer == NULL ? -1 : PyObject_IsTrue(answer);
    Py_XDECREF(answer);
    Py_XDECREF(key);
    return holds;
}

/* Check one condition on attributes; return -1 on an error. */
static int has_attribute(const Edit *edit, const Condition *condition)
{
    const Attribute *attribute = first_with(edit, condition->key);
    return attribute == NULL ? 0 : answer_of(condition->answers, as_bytes(attribute->current));
}

int is_wanted(const Edit *edit)
{
    const Editor *editor = edit->editor;
    int excluded = edit->excluding && edit->is_excluded;
    if (editor->includes && !edit->is_included)
        return 0;
    for (uint32_t place = 0; place < editor->condition_count; place++) {
        const Condition *condition = &editor->conditions[place];
        if (condition->where != ATTRIBUTE || (condition->excludes && !excluded))
            continue;
        int holds = has_attribute(edit, condition);
        if (holds < 0 || (!holds && !condition->excludes))
            return holds;
        if (condition->excludes)
            excluded = holds;
    }
    return !excluded;
}

Outcome check_fields(Edit *edit, const uint8_t *at, const uint8_t *end)
{
    Text texts[MAX_FIELD + 1] = {0};
    uint64_t numbers[MAX_FIELD + 1] = {0};
    const uint8_t *stop;
    while (at < end) {
        uint8_t tag = *at, kind = tag & 7;
        if (tag >= 0x80 || tag < 8 || (kind != 0 && kind != 2))
            at = skip_field(at, end);
        else if (kind == 0)
            at = varint(at + 1, end, &numbers[tag >> 3]);
        else if ((at = content(at + 1, end, &stop)) != NULL) {
            texts[tag >> 3] = (Text){at, (size_t)(stop - at)};
            at = stop;
        }
        if (at == NULL)
            return LEFT_TO_PYTHON;
    }
    edit->is_included = edit->is_excluded = 1;
    for (uint32_t place = 0; place < edit->editor->condition_count; place++) {
        const Condition *condition = &edit->editor->conditions[place];
        int *state = condition->excludes ? &edit->is_excluded : &edit->is_included;
        if (condition->where == ATTRIBUTE || !*state || (condition->excludes && !edit->excluding))
            continue;
        PyObject *value = condition->where == NUMBER_FIELD
                              ? PyLong_FromUnsignedLong((uint32_t)numbers[condition->field])
                              : as_bytes(texts[condition->field]);
        int holds = answer_of(condition->answers, value);
        if (holds < 0)
            return RAISED;
        *state = holds;
    }
    return EDITED;
}

/* Return the last field of a message with a tag, empty if there is none. */
static Outcome find_field(const uint8_t *at, const uint8_t *end, uint8_t tag, Text *field)
{
    const uint8_t *stop;
    *field = (Text){at, 0};
    while (at < end) {
        if (*at != tag)
            at = skip_field(at, end);
        else if ((at = content(at + 1, end, &stop)) != NULL) {
            *field = (Text){at, (size_t)(stop - at)};
            at = stop;
        }
        if (at == NULL)
            return LEFT_TO_PYTHON;
    }
    return EDITED;
}

Outcome enter(Edit *edit, const uint8_t *at, const uint8_t *end, uint8_t role, int *skipped)
{
    Text field;
    Outcome outcome = find_field(at, end, RESOURCE, &field); /* the scope has the same number */
    if (outcome != EDITED)
        return outcome;
    PyObject *bytes = as_bytes(field);
    PyObject *function = role == IS_RESOURCE ? edit->on_resource : edit->on_scope;
    PyObject *answer = bytes == NULL ? NULL : PyObject_CallFunctionObjArgs(function, bytes, NULL);
    Py_XDECREF(bytes);
    if (role == IS_SCOPE && answer != NULL) {
        long number = PyLong_AsLong(answer);
        *skipped = number == 0;
        edit->excluding = number > 1;
    }
    Py_XDECREF(answer);
    return PyErr_Occurred() ? RAISED : EDITED;
}
