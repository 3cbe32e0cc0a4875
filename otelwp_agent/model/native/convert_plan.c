/* Converters as Python objects: their tables, read from tuples. */

#include "convert.h" /* before all others: Python.h must be the first */

static PyTypeObject *converter_type;

static int read_field(const Converter *converter, PyObject *given, Field *field)
{
    int kind, optional;
    char *tag;
    Py_ssize_t size;
    unsigned long child;
    long long low, high;
    if (!PyArg_ParseTuple(given, "iy#kpLLO", &kind, &tag, &size, &child, &optional, &low, &high, &field->encode))
        return 0;
    if (kind < CALLED || kind >= KIND_COUNT || size > MAX_TAG || child > UINT8_MAX
        || (kind >= MESSAGE && child >= converter->count)) {
        PyErr_SetString(PyExc_ValueError, "converter: that is not a field");
        return 0;
    }
    field->kind = (FieldKind)kind;
    field->tag_size = (uint8_t)size;
    memcpy(field->tag, tag, (size_t)size);
    field->child = (uint32_t)child;
    field->optional = (uint8_t)optional;
    field->low = low;
    field->high = high;
    return 1;
}

static int read_table(const Converter *converter, PyObject *given, Table *table)
{
    PyObject *fields;
    if (!PyArg_ParseTuple(given, "O!O!", &PyDict_Type, &table->names, &PyTuple_Type, &fields))
        return 0;
    Py_ssize_t count = PyTuple_Size(fields);
    table->fields = PyMem_Calloc((size_t)count + 1, sizeof(Field));
    if (table->fields == NULL)
        return PyErr_NoMemory() != NULL;
    table->count = (uint32_t)count;
    for (Py_ssize_t place = 0; place < count; place++)
        if (!read_field(converter, PyTuple_GetItem(fields, place), &table->fields[place]))
            return 0;
    return 1;
}

static void converter_dealloc(PyObject *object)
{
    Converter *self = (Converter *)object;
    PyTypeObject *type = Py_TYPE(object);
    for (uint32_t place = 0; self->tables != NULL && place < self->count; place++)
        PyMem_Free(self->tables[place].fields);
    PyMem_Free(self->tables);
    Py_XDECREF(self->arguments);
    PyObject_Free(object);
    Py_DECREF((PyObject *)type);
}

PyObject *module_converter(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *tables;
    if (!PyArg_ParseTuple(args, "O!:converter", &PyTuple_Type, &tables))
        return NULL;
    Converter *converter = PyObject_New(Converter, converter_type);
    if (converter == NULL)
        return NULL;
    converter->arguments = Py_NewRef(args);
    converter->count = (uint32_t)PyTuple_Size(tables);
    converter->tables = PyMem_Calloc((size_t)converter->count + 1, sizeof(Table));
    int valid = converter->tables != NULL || PyErr_NoMemory() != NULL;
    for (uint32_t place = 0; valid && place < converter->count; place++)
        valid = read_table(converter, PyTuple_GetItem(tables, place), &converter->tables[place]);
    if (!valid)
        Py_CLEAR(converter);
    return (PyObject *)converter;
}

static PyMethodDef converter_methods[] = {
    {"convert", (PyCFunction)(void (*)(void))converter_convert, METH_FASTCALL,
     "Return a serialized message; None if Python has to convert it."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot converter_slots[] = {
    {Py_tp_dealloc, (void *)converter_dealloc},
    {Py_tp_methods, converter_methods},
    {Py_tp_doc, "Tables of message types; see compiling.py."},
    {0, NULL},
};

static PyType_Spec converter_spec = {
    .name = "otelwp_agent.model.native._native.Converter",
    .basicsize = sizeof(Converter),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = converter_slots,
};

int prepare_converters(void)
{
    converter_type = (PyTypeObject *)PyType_FromSpec(&converter_spec);
    return converter_type != NULL;
}
