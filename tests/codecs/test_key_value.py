import math

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from otelwp_agent.codecs.key_value import attribute, size_of, text_attribute

values = (
    st.text()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.binary()
    | st.text("x", min_size=3000, max_size=3001)
)


def read(written):
    """Return the message behind its length, which has to be right."""
    size = next(size for size in (1, 2, 3) if size_of(written[size:]) == written[:size])
    return KeyValue.FromString(written[size:])


@given(st.text(max_size=300), values)
def test_protobuf_reads_what_was_written(key, value):
    message = read(attribute(key, value))
    assert message.key == key
    held = getattr(message.value, message.value.WhichOneof("value"))
    assert held == value
    assert type(held) is type(value)


def test_integers_beyond_64_bits_are_doubles():
    assert read(attribute("big", 2**64)).value.double_value == math.ldexp(1, 64)


@given(st.text(max_size=300), st.text())
def test_bytes_become_the_same(key, text):
    assert text_attribute(key.encode(), text.encode()) == attribute(key, text)
