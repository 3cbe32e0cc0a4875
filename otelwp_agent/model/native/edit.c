/* Edit attributes in one pass over a serialized request, which collects patches, and a second one, which applies them.

   Everything with an unusual layout is left to Python, which decides whether it is malformed. */

#include "edit_state.h" /* before all others: Python.h must be the first */

#include "wire.h"

static Outcome edit_message(Edit *edit, const uint8_t *at, const uint8_t *end, const Type *type, int64_t *delta);

/* Add the patch of an attribute; `tag` is its field's. */
static int patch_attribute(Edit *edit, const Attribute *attribute, uint8_t tag, uint32_t end, int64_t *delta)
{
    Patch *patch;
    int64_t more = (int64_t)field_size(attribute->current.length) - (attribute->value_end - attribute->value);
    uint64_t length = (uint64_t)(attribute->end - attribute->content + more);
    switch (attribute->state) {
    case SAME:
        return 1;
    case DELETED:
        if (attribute->start == attribute->end) /* it was added before */
            return 1;
        patch = add_patch(&edit->patches, attribute->start, attribute->end);
        break;
    case CHANGED:
        if ((patch = add_patch(&edit->patches, attribute->start + 1, attribute->content)) == NULL)
            return 0;
        put_varint(patch, length);
        *delta += growth(patch);
        if ((patch = add_patch(&edit->patches, attribute->value, attribute->value_end)) == NULL)
            return 0;
        put_byte(patch, VALUE);
        put_varint(patch, attribute->current.length);
        patch->more = attribute->current;
        break;
    case ADDED:
    default:
        if ((patch = add_patch(&edit->patches, end, end)) == NULL)
            return 0;
        Text key = edit->editor->keys[attribute->key].text;
        put_byte(patch, tag);
        put_varint(patch, field_size(key.length) + field_size(attribute->current.length));
        put_byte(patch, KEY);
        put_varint(patch, key.length);
        patch->more = key;
        *delta += growth(patch);
        if ((patch = add_patch(&edit->patches, end, end)) == NULL)
            return 0;
        put_byte(patch, VALUE);
        put_varint(patch, attribute->current.length);
        patch->more = attribute->current;
    }
    if (patch == NULL)
        return 0;
    *delta += growth(patch);
    return 1;
}

/* Edit the message whose attributes have been read, and which ends at `end`. */
static Outcome edit_attributes(Edit *edit, const Type *type, const uint8_t *end, int64_t *delta)
{
    const Editor *editor = edit->editor;
    int wanted = editor->condition_count ? is_wanted(edit) : 1;
    if (wanted <= 0)
        return wanted < 0 ? RAISED : EDITED;
    for (uint32_t place = 0; place < editor->operation_count; place++) {
        Outcome outcome = apply(edit, &editor->operations[place]);
        if (outcome != EDITED)
            return outcome;
    }
    for (uint32_t place = 0; place < edit->attributes.length; place++)
        if (!patch_attribute(edit, &AT(edit->attributes, Attribute, place), (uint8_t)(type->attributes << 3 | 2),
                             (uint32_t)(end - edit->data), delta))
            return OUT_OF_MEMORY;
    return EDITED;
}

/* Edit a nested message whose field starts at `field` and whose content starts at `at`. */
static Outcome edit_nested(Edit *edit, const uint8_t *field, const uint8_t *at, const uint8_t *end, const Type *type,
                           int64_t *delta)
{
    uint32_t place = edit->patches.length, start = (uint32_t)(at - edit->data);
    int64_t inner = 0;
    if (add_patch(&edit->patches, start, start) == NULL)
        return OUT_OF_MEMORY;
    Outcome outcome = edit_message(edit, at, end, type, &inner);
    if (outcome != EDITED)
        return outcome;
    if (edit->patches.length == place + 1)
        edit->patches.length = place;
    if (inner) {
        Patch *patch = &AT(edit->patches, Patch, place);
        patch->start = (uint32_t)(field + 1 - edit->data);
        put_varint(patch, (uint64_t)(end - at + inner));
        *delta += inner + growth(patch);
    }
    return EDITED;
}

/* Add a message with only the attributes that the operations add, if any, at `end`. */
static Outcome add_message(Edit *edit, const Type *type, const uint8_t *end, int64_t *delta)
{
    uint32_t place = edit->patches.length, start = (uint32_t)(end - edit->data);
    int64_t inner = 0;
    if (add_patch(&edit->patches, start, start) == NULL)
        return OUT_OF_MEMORY;
    Outcome outcome = edit_message(edit, end, end, &edit->editor->types[type->child[type->added] - 1], &inner);
    if (outcome != EDITED || !inner) {
        edit->patches.length = place;
        return outcome;
    }
    Patch *patch = &AT(edit->patches, Patch, place);
    put_byte(patch, (uint8_t)(type->added << 3 | 2));
    put_varint(patch, (uint64_t)inner);
    *delta += inner + growth(patch);
    return EDITED;
}

static Outcome edit_message(Edit *edit, const uint8_t *at, const uint8_t *end, const Type *type, int64_t *delta)
{
    const Editor *editor = edit->editor;
    uint32_t once = type->once[0] | (uint32_t)type->once[1] << 8, seen = 0;
    int skipped = 0;
    Outcome outcome = EDITED;
    if (type->role & (IS_RESOURCE | IS_SCOPE) && edit->on_scope != Py_None)
        outcome = enter(edit, at, end, type->role, &skipped);
    else if (type->role == IS_TESTED && editor->reads_fields)
        outcome = check_fields(edit, at, end);
    if (outcome != EDITED || skipped)
        return outcome;
    if (type->attributes)
        edit->attributes.length = 0;
    while (at < end) {
        const uint8_t *field = at, *stop;
        uint32_t number = (uint32_t)*at >> 3;
        if ((*at & 0x87) == 2 && once >> number & 1 && seen++)
            return LEFT_TO_PYTHON;
        if ((*at & 0x87) != 2 || (!type->child[number] && type->attributes != number)) {
            if ((at = skip_field(at, end)) == NULL)
                return LEFT_TO_PYTHON;
            continue;
        }
        if (number == 0 || (at = content(at + 1, end, &stop)) == NULL)
            return LEFT_TO_PYTHON;
        if (type->attributes == number)
            outcome = read_attribute(edit, field, at, stop);
        else
            outcome = edit_nested(edit, field, at, stop, &editor->types[type->child[number] - 1], delta);
        if (outcome != EDITED)
            return outcome;
        at = stop;
    }
    if (type->attributes)
        return edit_attributes(edit, type, end, delta);
    return type->added && !seen ? add_message(edit, type, end, delta) : EDITED;
}

/* Return the edited body; the same object if nothing has changed. */
static PyObject *patched(const Edit *edit, PyObject *body, size_t size, int64_t delta)
{
    uint8_t *at;
    if (edit->patches.length == 0)
        return Py_NewRef(body);
    PyObject *made = empty_bytes((uint64_t)((int64_t)size + delta), &at);
    if (made != NULL)
        write_patched(edit->data, size, &edit->patches, at);
    return made;
}

PyObject *editor_edit(Editor *self, PyObject *const *args, Py_ssize_t count)
{
    char *data;
    Py_ssize_t size;
    int64_t delta = 0;
    if (count != 4 || !PyTuple_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "edit(body, values, on_resource, on_scope): bytes, a tuple and two functions");
        return NULL;
    }
    if (PyBytes_AsStringAndSize(args[0], &data, &size) < 0)
        return NULL;
    if (size > INT32_MAX)
        return Py_NewRef(Py_None);
    Edit edit = {.editor = self, .data = (const uint8_t *)data, .values = args[1], .on_resource = args[2],
                 .on_scope = args[3], .is_included = 1, .is_excluded = 1};
    PyObject *made = NULL;
    switch (edit_message(&edit, edit.data, edit.data + size, self->types, &delta)) {
    case EDITED:
        made = delta > INT32_MAX ? Py_NewRef(Py_None) : patched(&edit, args[0], (size_t)size, delta);
        break;
    case LEFT_TO_PYTHON:
        made = Py_NewRef(Py_None);
        break;
    case OUT_OF_MEMORY:
        PyErr_NoMemory();
    case RAISED:
        break;
    }
    free(edit.patches.items);
    free(edit.attributes.items);
    Py_XDECREF(edit.kept);
    return made;
}
