"""A connection reads the same heads with and without the memory, whatever the blocks are."""

import pytest
from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from otelwp_agent.transport.http2.field_decoder import MAX_LIST
from otelwp_agent.transport.http2.frames import ConnectionViolationError
from otelwp_agent.transport.http2.header_memory import CHANGING, STABLE, HeaderMemory, HeaderReader

BASE = [(":method", "POST"), (":scheme", "http"), (":path", "/a.B/C"), (":authority", "x"), ("te", "trailers")]


def shown(head):
    return head.method, head.path, head.authority, head.fields, head.timeout, head.problem


def go(timeouts, **more):
    """Return the blocks of a client that puts every field into its table, as grpc-go does."""
    encoder = Encoder()
    return [encoder.encode([*BASE, ("grpc-timeout", each), *more.items()]) for each in timeouts]


values = st.sampled_from(["a", "bb", "/a.B/C", "x" * 200, "y" * 5000])
names = st.sampled_from(["x-id", "traceparent", "grpc-timeout", ":path", "user-agent"])
heads = st.lists(st.tuples(names, values, st.booleans()), max_size=6)


@settings(max_examples=200)
@given(st.lists(heads, max_size=40), st.integers(0, 4), st.integers(0, 400))
def test_warm_is_cold(messages, capacity, size):
    """Two connections send the same blocks; one of them meets a small memory that forgets all the time."""
    encoder = Encoder()
    blocks = [encoder.encode([*BASE, *fields]) for fields in messages]
    cold = HeaderReader(HeaderMemory(0))
    memory = HeaderMemory(capacity, size)
    large = HeaderMemory()
    warm = [HeaderReader(memory), HeaderReader(memory), HeaderReader(large), HeaderReader(large)]
    for block in blocks:
        expected = shown(cold.read(block))
        for reader in warm:
            assert shown(reader.read(block)) == expected


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=30), max_size=8))
def test_arbitrary_blocks_are_refused_alike(blocks):
    memory = HeaderMemory()

    def outcome(reader, block):
        try:
            return shown(reader.read(block))
        except ConnectionViolationError as error:
            return error.code, str(error)

    cold, first, second = HeaderReader(HeaderMemory(0)), HeaderReader(memory), HeaderReader(memory)
    for block in blocks:
        expected = outcome(cold, block)
        assert outcome(first, block) == outcome(second, block) == expected
        if not isinstance(expected[0], str):
            break  # the connection ends


def test_a_repeated_block_is_not_decoded(monkeypatch):
    memory = HeaderMemory()
    blocks = go(["1S", "1S", "1S"])
    reader = HeaderReader(memory)
    first = [reader.read(block) for block in blocks]
    monkeypatch.setattr("otelwp_agent.transport.http2.header_memory.decode", None)
    second = HeaderReader(memory)
    assert [second.read(block) for block in blocks] == first, "the second connection finds the same objects"


def test_a_client_whose_table_changes_each_time_shares_the_fields_of_its_heads():
    memory = HeaderMemory()
    reader = HeaderReader(memory)
    found = [reader.read(block) for block in go([f"{number}u" for number in range(9000, 9100)])]
    assert [head.timeout for head in found] == [f"{number}u".encode() for number in range(9000, 9100)]
    assert len({id(head.base) for head in found}) == 1
    assert len(memory._states) <= CHANGING + 2, "its tables are not remembered"
    assert reader._state is None


def test_a_client_is_remembered_again_when_its_table_is_stable():
    reader = HeaderReader(HeaderMemory())
    for block in go([f"{number}u" for number in range(9000, 9020)] + 30 * ["9020u"]):
        head = reader.read(block)
    assert reader._state is not None
    assert reader.read(block) is head
    assert STABLE < 30


def test_blocks_that_are_not_used_are_forgotten_and_others_stay():
    memory = HeaderMemory(8)
    used, other = (
        b"\x83\x86\x84",
        [b"\x83\x86\x84\x00\x01x\x02" + bytes((48 + n // 10, 48 + n % 10)) for n in range(40)],
    )
    reader = HeaderReader(memory)
    head = reader.read(used)
    for block in other:
        reader.read(block)
        assert reader.read(used) is head
    known = {**memory.first.blocks, **memory.first.old}
    assert used in known
    assert len(known) <= 2 * 8
    assert other[0] not in known


def test_a_head_with_a_problem_or_a_large_one_is_not_remembered():
    memory = HeaderMemory()
    reader = HeaderReader(memory)
    assert reader.read(b"\x83\x86").problem
    large = b"\x83\x86\x84" + b"\x00\x01x\x7f\x89\x26" + b"y" * 5000
    assert reader.read(large).fields == {"x": "y" * 5000}
    assert memory.first.blocks.keys() == set()


def test_a_table_bomb_ends_the_connection():
    value = b"a" * 3900
    entry = b"\x40\x03x-a\x7f" + bytes(((len(value) - 127) & 0x7F | 0x80, (len(value) - 127) >> 7)) + value
    reader = HeaderReader(HeaderMemory())
    reader.read(b"\x83\x86\x84" + entry)
    with pytest.raises(ConnectionViolationError, match=f"{MAX_LIST} bytes"):
        reader.read(b"\x83\x86\x84" + b"\xbe" * 4000)
