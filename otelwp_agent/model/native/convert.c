/* Convert a document in one pass. Usual values are converted here, all others by the field's Python function. After any
   error the result is None: Python then converts the whole document, and finds the position of the error. */

#include "convert.h" /* before all others: Python.h must be the first */

#define MAX_LENGTH 5  /* bytes of a length */
#define MAX_DIGITS 18 /* of a number in a string; longer ones may not fit 64 bits */

typedef struct {
    const Converter *converter;
    uint8_t *data;
    size_t size, capacity;
} Output;

static int convert_message(Output *out, PyObject *document, const Table *table, uint32_t depth);

/* Make space for `more` bytes. Return 0 if there is no memory. */
static inline int reserve(Output *out, size_t more)
{
    if (out->capacity - out->size >= more)
        return 1;
    size_t capacity = out->capacity * 2 > out->size + more ? out->capacity * 2 : out->size + more;
    uint8_t *data = PyMem_Realloc(out->data, capacity);
    if (data == NULL)
        return 0;
    out->data = data;
    out->capacity = capacity;
    return 1;
}

static inline void append_varint(Output *out, uint64_t number)
{
    for (; number > 0x7F; number >>= 7)
        out->data[out->size++] = (uint8_t)(number | 0x80);
    out->data[out->size++] = (uint8_t)number;
}

static inline void append_bytes(Output *out, const void *from, size_t size)
{
    memcpy(out->data + out->size, from, size);
    out->size += size;
}

static inline void append_64(Output *out, uint64_t number)
{
    for (int shift = 0; shift < 64; shift += 8)
        out->data[out->size++] = (uint8_t)(number >> shift);
}

/* Write the length of the bytes from `start` on into the byte before them, and move them if it needs more bytes. */
static int end_message(Output *out, size_t start)
{
    size_t length = out->size - start;
    if (length > INT32_MAX || !reserve(out, MAX_LENGTH))
        return 0;
    if (length > 0x7F) {
        size_t more = 0;
        for (size_t rest = length >> 7; rest; rest >>= 7)
            more++;
        memmove(out->data + start + more, out->data + start, length);
    }
    out->size = start - 1;
    append_varint(out, length);
    out->size += length;
    return 1;
}

/* Read an integer, or a string of digits. Return 0 if it is neither or too long; no error is set. */
static int read_integer(PyObject *value, int64_t *number)
{
    if (PyLong_CheckExact(value)) {
        int overflow;
        *number = PyLong_AsLongLongAndOverflow(value, &overflow);
        return !overflow;
    }
    if (!PyUnicode_CheckExact(value))
        return 0;
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(value, &size);
    if (text == NULL) {
        PyErr_Clear();
        return 0;
    }
    int negative = size > 0 && *text == '-';
    if (size - negative < 1 || size - negative > MAX_DIGITS)
        return 0;
    *number = 0;
    for (Py_ssize_t place = negative; place < size; place++) {
        if (text[place] < '0' || text[place] > '9')
            return 0;
        *number = *number * 10 + (text[place] - '0');
    }
    if (negative)
        *number = -*number;
    return 1;
}

static inline int hex_digit(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    digit |= 0x20;
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

/* Convert a value by the field's Python function. */
static int convert_by_call(Output *out, PyObject *value, const Field *field, uint32_t depth)
{
    char *bytes;
    Py_ssize_t size;
    PyObject *level = PyLong_FromUnsignedLong(depth);
    PyObject *made = level == NULL ? NULL : PyObject_CallFunctionObjArgs(field->encode, value, level, NULL);
    int done = made != NULL && PyBytes_AsStringAndSize(made, &bytes, &size) == 0 && reserve(out, (size_t)size);
    if (done)
        append_bytes(out, bytes, (size_t)size);
    Py_XDECREF(level);
    Py_XDECREF(made);
    return done;
}

/* Convert a value of a kind whose size is limited; return 0 if it is unusual. There is space for its longest form. */
static int convert_scalar(Output *out, PyObject *value, const Field *field)
{
    int64_t number;
    double real;
    uint64_t bits;
    switch (field->kind) {
    case BOOLEAN:
        if (value != Py_True && value != Py_False)
            return 0;
        append_bytes(out, field->tag, field->tag_size);
        out->data[out->size++] = value == Py_True;
        return 1;
    case VARIED:
        if (!read_integer(value, &number) || number < field->low || number > field->high)
            return 0;
        append_bytes(out, field->tag, field->tag_size);
        append_varint(out, (uint64_t)number);
        return 1;
    case ENUM:
        if (!PyLong_CheckExact(value) || !read_integer(value, &number) || number < 0 || number > 0x7F)
            return 0;
        append_bytes(out, field->tag, field->tag_size);
        out->data[out->size++] = (uint8_t)number;
        return 1;
    case FIXED_32:
        if (!read_integer(value, &number) || number < 0 || number > UINT32_MAX)
            return 0;
        append_bytes(out, field->tag, field->tag_size);
        append_64(out, (uint64_t)number);
        out->size -= 4;
        return 1;
    case FIXED_64:
    case SIGNED_64:
        if (!read_integer(value, &number) || (field->kind == FIXED_64 && number < 0))
            return 0;
        append_bytes(out, field->tag, field->tag_size);
        append_64(out, (uint64_t)number);
        return 1;
    case DOUBLE:
        if (!PyFloat_CheckExact(value))
            return 0;
        real = PyFloat_AsDouble(value);
        memcpy(&bits, &real, sizeof(bits));
        append_bytes(out, field->tag, field->tag_size);
        append_64(out, bits);
        return 1;
    default:
        return 0;
    }
}

static int convert_identifier(Output *out, PyObject *value, const Field *field)
{
    Py_ssize_t size;
    const char *text = PyUnicode_CheckExact(value) ? PyUnicode_AsUTF8AndSize(value, &size) : NULL;
    if (text == NULL)
        return 0;
    if (size == 0 && field->optional)
        return 1;
    if (size != (Py_ssize_t)field->child * 2 || !reserve(out, MAX_TAG + MAX_LENGTH + field->child))
        return 0;
    size_t before = out->size;
    append_bytes(out, field->tag, field->tag_size);
    append_varint(out, field->child);
    for (Py_ssize_t place = 0; place < size; place += 2) {
        int high = hex_digit(text[place]), low = hex_digit(text[place + 1]);
        if (high < 0 || low < 0) {
            out->size = before;
            return 0;
        }
        out->data[out->size++] = (uint8_t)(high << 4 | low);
    }
    return 1;
}

static int convert_text(Output *out, PyObject *value, const Field *field)
{
    Py_ssize_t size;
    const char *text = PyUnicode_CheckExact(value) ? PyUnicode_AsUTF8AndSize(value, &size) : NULL;
    if (text == NULL || size > INT32_MAX || !reserve(out, MAX_TAG + MAX_LENGTH + (size_t)size))
        return 0;
    append_bytes(out, field->tag, field->tag_size);
    append_varint(out, (uint64_t)size);
    append_bytes(out, text, (size_t)size);
    return 1;
}

/* Convert a message with its tag and length. `value` is NULL for an empty one. */
static int convert_nested(Output *out, PyObject *value, const Field *field, uint32_t depth)
{
    if (!reserve(out, MAX_TAG + MAX_LENGTH))
        return 0;
    append_bytes(out, field->tag, field->tag_size);
    out->size++;
    size_t start = out->size;
    return (value == NULL || convert_message(out, value, &out->converter->tables[field->child], depth + 1))
           && end_message(out, start);
}

static int convert_list(Output *out, PyObject *values, const Field *field, uint32_t depth)
{
    for (Py_ssize_t place = 0; place < PyList_Size(values); place++) {
        PyObject *value = PyList_GetItem(values, place);
        if (!convert_nested(out, value == Py_None ? NULL : value, field, depth))
            return 0;
    }
    return 1;
}

static int convert_field(Output *out, PyObject *value, const Field *field, uint32_t depth)
{
    switch (field->kind) {
    case TEXT:
        return convert_text(out, value, field);
    case IDENTIFIER:
        return convert_identifier(out, value, field);
    case MESSAGE:
        return convert_nested(out, value, field, depth);
    case MESSAGES:
        return PyList_CheckExact(value) ? convert_list(out, value, field, depth)
                                        : convert_by_call(out, value, field, depth);
    case CALLED:
        return convert_by_call(out, value, field, depth);
    default:
        return (reserve(out, MAX_TAG + 10) && convert_scalar(out, value, field))
               || convert_by_call(out, value, field, depth);
    }
}

/* Append the fields of a message. Return 0 if Python has to convert the document; an error may be set. */
static int convert_message(Output *out, PyObject *document, const Table *table, uint32_t depth)
{
    PyObject *key, *value;
    Py_ssize_t position = 0;
    if (!PyDict_CheckExact(document))
        return PyList_CheckExact(document) && PyList_Size(document) == 0;
    if (depth > MAX_DEPTH)
        return 0;
    while (PyDict_Next(document, &position, &key, &value)) {
        if (value == Py_None)
            continue;
        PyObject *index = PyDict_GetItemWithError(table->names, key);
        if (index == NULL) {
            if (PyErr_Occurred())
                return 0;
            continue;
        }
        size_t place = PyLong_AsSize_t(index);
        if (place >= table->count || !convert_field(out, value, &table->fields[place], depth))
            return 0;
    }
    return 1;
}

/* Clear an error if Python will find it again; return 0 for one that has nothing to do with the document. */
static int is_repeatable(void)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception) || PyErr_ExceptionMatches(PyExc_MemoryError))
        return 0;
    PyErr_Clear();
    return 1;
}

PyObject *converter_convert(Converter *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "convert(document, table, depth): any object and two ints");
        return NULL;
    }
    size_t table = PyLong_AsSize_t(args[1]), depth = PyErr_Occurred() ? 0 : PyLong_AsSize_t(args[2]);
    if (PyErr_Occurred())
        return NULL;
    if (table >= self->count || depth > MAX_DEPTH + 1) {
        PyErr_SetString(PyExc_ValueError, "convert: there is no such table or depth");
        return NULL;
    }
    Output out = {.converter = self, .data = PyMem_Malloc(1024), .capacity = 1024};
    if (out.data == NULL)
        return PyErr_NoMemory();
    PyObject *made = NULL;
    if (convert_message(&out, args[0], &self->tables[table], (uint32_t)depth))
        made = PyBytes_FromStringAndSize((const char *)out.data, (Py_ssize_t)out.size);
    else if (!PyErr_Occurred() || is_repeatable())
        made = Py_NewRef(Py_None);
    PyMem_Free(out.data);
    return made;
}
