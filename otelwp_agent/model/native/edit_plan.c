/* Editors as Python objects: their keys, operations and conditions, read from tuples. */

#include "edit.h"

static PyTypeObject *editor_type;

/* Read an index below `limit`; `none` stands for NONE. */
static int read_index(long number, uint32_t limit, uint32_t *index)
{
    if (number < -1 || number >= (long)limit) {
        PyErr_SetString(PyExc_ValueError, "editor: an index is out of range");
        return 0;
    }
    *index = number < 0 ? NONE : (uint32_t)number;
    return 1;
}

static int read_text(PyObject *object, Text *text)
{
    char *at;
    Py_ssize_t length;
    if (object == NULL || PyBytes_AsStringAndSize(object, &at, &length) < 0)
        return 0;
    *text = (Text){(const uint8_t *)at, (size_t)length};
    return 1;
}

/* Read the keys, as (key, set of patterns). */
static int read_keys(Editor *editor, PyObject *keys)
{
    for (uint32_t place = 0; place < BUCKETS; place++)
        editor->buckets[place] = NONE;
    for (uint32_t place = 0; place < editor->key_count; place++) {
        Key *key = &editor->keys[place];
        PyObject *bytes;
        unsigned long long names;
        if (!PyArg_ParseTuple(PyTuple_GetItem(keys, place), "SK", &bytes, &names) || !read_text(bytes, &key->text))
            return 0;
        uint32_t *bucket = &editor->buckets[bucket_of(key->text.at, key->text.length)];
        key->names = names;
        key->next = *bucket;
        *bucket = place;
    }
    return 1;
}

static int read_groups(Editor *editor, PyObject *groups, Operation *operation)
{
    Py_ssize_t count = PyTuple_Size(groups);
    operation->groups = PyMem_Calloc((size_t)count + 1, sizeof(uint32_t));
    if (operation->groups == NULL)
        return PyErr_NoMemory() != NULL;
    operation->group_count = (uint32_t)count;
    for (Py_ssize_t place = 0; place < count; place++) {
        long index = PyLong_AsLong(PyTuple_GetItem(groups, place));
        if (PyErr_Occurred() || !read_index(index, editor->key_count, &operation->groups[place]))
            return 0;
        if (index < 0) {
            PyErr_SetString(PyExc_ValueError, "editor: a group needs a key");
            return 0;
        }
    }
    return 1;
}

static int read_operations(Editor *editor, PyObject *operations)
{
    for (uint32_t place = 0; place < editor->operation_count; place++) {
        Operation *operation = &editor->operations[place];
        int kind, inserts, updates, all;
        long key, source;
        unsigned long long names;
        PyObject *groups;
        if (!PyArg_ParseTuple(PyTuple_GetItem(operations, place), "ilKpplnOO!p", &kind, &key, &names, &inserts,
                              &updates, &source, &operation->value, &operation->results, &PyTuple_Type, &groups, &all))
            return 0;
        int computes = kind == REWRITE || kind == EXTRACT;
        if (kind < DELETE || kind > EXTRACT || (computes && operation->results == Py_None)) {
            PyErr_SetString(PyExc_ValueError, "editor: that is not an operation");
            return 0;
        }
        operation->kind = (Kind)kind;
        operation->names = names;
        operation->inserts = (uint8_t)inserts;
        operation->updates = (uint8_t)updates;
        operation->all = (uint8_t)all;
        if (!read_index(key, editor->key_count, &operation->key)
            || !read_index(source, editor->key_count, &operation->source) || !read_groups(editor, groups, operation))
            return 0;
        if ((kind == SET || kind == COPY) && operation->key == NONE) {
            PyErr_SetString(PyExc_ValueError, "editor: an operation that sets needs a key");
            return 0;
        }
    }
    return 1;
}

static int read_conditions(Editor *editor, PyObject *conditions)
{
    for (uint32_t place = 0; place < editor->condition_count; place++) {
        Condition *condition = &editor->conditions[place];
        int where, excludes, field;
        long key;
        if (!PyArg_ParseTuple(PyTuple_GetItem(conditions, place), "piilO", &excludes, &where, &field, &key,
                              &condition->answers))
            return 0;
        if (where < BYTES_FIELD || where > ATTRIBUTE || field < 0 || field > MAX_FIELD) {
            PyErr_SetString(PyExc_ValueError, "editor: that is not a condition");
            return 0;
        }
        condition->where = (Where)where;
        condition->field = (uint8_t)field;
        condition->excludes = (uint8_t)excludes;
        if (!read_index(key, editor->key_count, &condition->key))
            return 0;
        *(excludes ? &editor->excludes : &editor->includes) = 1;
        editor->reads_fields |= where != ATTRIBUTE;
    }
    return 1;
}

static int read_types(Editor *editor, PyObject *types)
{
    Text text;
    if (!read_text(types, &text))
        return 0;
    if (text.length == 0 || text.length % sizeof(Type) || text.length / sizeof(Type) > UINT8_MAX) {
        PyErr_SetString(PyExc_ValueError, "editor: these are not types");
        return 0;
    }
    editor->types = (const Type *)text.at;
    editor->type_count = (uint32_t)(text.length / sizeof(Type));
    for (uint32_t place = 0; place < editor->type_count; place++) {
        const Type *type = &editor->types[place];
        int valid = type->attributes <= MAX_FIELD && type->added <= MAX_FIELD;
        valid = valid && (!type->added || type->child[type->added]);
        for (uint32_t field = 0; field <= MAX_FIELD; field++) {
            uint32_t child = type->child[field]; /* it has a greater index, so that no recursion is endless */
            valid &= !child || (child > place + 1 && child <= editor->type_count);
        }
        if (!valid) {
            PyErr_SetString(PyExc_ValueError, "editor: a type is not valid");
            return 0;
        }
    }
    return 1;
}

static void editor_dealloc(PyObject *object)
{
    Editor *self = (Editor *)object;
    PyTypeObject *type = Py_TYPE(object);
    for (uint32_t place = 0; self->operations != NULL && place < self->operation_count; place++)
        PyMem_Free(self->operations[place].groups);
    PyMem_Free(self->keys);
    PyMem_Free(self->operations);
    PyMem_Free(self->conditions);
    Py_XDECREF(self->arguments);
    PyObject_Free(object);
    Py_DECREF((PyObject *)type);
}

PyObject *module_editor(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *types, *keys, *operations, *conditions, *names;
    if (!PyArg_ParseTuple(args, "SO!O!O!O:editor", &types, &PyTuple_Type, &keys, &PyTuple_Type, &operations,
                          &PyTuple_Type, &conditions, &names))
        return NULL;
    if (PyTuple_Size(keys) > UINT16_MAX || PyTuple_Size(operations) > UINT16_MAX
        || PyTuple_Size(conditions) > UINT16_MAX) {
        PyErr_SetString(PyExc_ValueError, "editor: there are too many keys, operations or conditions");
        return NULL;
    }
    Editor *editor = PyObject_New(Editor, editor_type);
    if (editor == NULL)
        return NULL;
    editor->arguments = Py_NewRef(args);
    editor->names = names == Py_None ? NULL : names;
    editor->includes = editor->excludes = editor->reads_fields = 0;
    editor->key_count = (uint32_t)PyTuple_Size(keys);
    editor->operation_count = (uint32_t)PyTuple_Size(operations);
    editor->condition_count = (uint32_t)PyTuple_Size(conditions);
    editor->keys = PyMem_Calloc((size_t)editor->key_count + 1, sizeof(Key));
    editor->operations = PyMem_Calloc((size_t)editor->operation_count + 1, sizeof(Operation));
    editor->conditions = PyMem_Calloc((size_t)editor->condition_count + 1, sizeof(Condition));
    if (editor->keys == NULL || editor->operations == NULL || editor->conditions == NULL)
        PyErr_NoMemory();
    else if (read_types(editor, types) && read_keys(editor, keys) && read_operations(editor, operations)
             && read_conditions(editor, conditions))
        return (PyObject *)editor;
    Py_DECREF((PyObject *)editor);
    return NULL;
}

static PyMethodDef editor_methods[] = {
    {"edit", (PyCFunction)(void (*)(void))editor_edit, METH_FASTCALL, "Return the edited body; None if Python has to."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot editor_slots[] = {
    {Py_tp_dealloc, (void *)editor_dealloc},
    {Py_tp_methods, editor_methods},
    {Py_tp_doc, "Attribute actions on serialized requests; see attribute_edits.py."},
    {0, NULL},
};

static PyType_Spec editor_spec = {
    .name = "otelwp_agent.model.native._native.Editor",
    .basicsize = sizeof(Editor),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = editor_slots,
};

int prepare_editors(void)
{
    editor_type = (PyTypeObject *)PyType_FromSpec(&editor_spec);
    return editor_type != NULL;
}
