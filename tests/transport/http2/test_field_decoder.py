"""The decoder of header blocks, compared with the one of the library `hpack`."""

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelwp_agent.transport.http2.field_decoder import MAX_FIELDS, TABLE_SIZE, DynamicTable, decode
from otelwp_agent.transport.http2.frames import ConnectionViolationError, ErrorCode

texts = st.one_of(st.binary(max_size=20), st.binary(min_size=100, max_size=400), st.just(b"x" * 4096))
names = st.one_of(st.sampled_from([b":path", b"user-agent", b"x", b"grpc-timeout"]), st.binary(min_size=1, max_size=9))


def both(blocks):
    """Decode with both; compare fields and tables after each block until one fails."""
    table, peer = DynamicTable(), hpack.Decoder(max_header_list_size=65_536)
    for block in blocks:
        try:
            expected = [(bytes(name), bytes(value)) for name, value in peer.decode(block, raw=True)]
        except (hpack.HPACKError, IndexError):  # the library lets an IndexError through where a block ends early
            with pytest.raises(ConnectionViolationError) as caught:
                decode(block, table)
            assert caught.value.code in (ErrorCode.COMPRESSION_ERROR, ErrorCode.ENHANCE_YOUR_CALM)
            return
        assert decode(block, table) == expected
        assert table.entries == [(bytes(name), bytes(value)) for name, value in peer.header_table.dynamic_entries]
        assert table.size == peer.header_table._current_size
        assert table.limit == peer.header_table.maxsize


@settings(max_examples=200)
@given(st.lists(st.tuples(st.lists(st.tuples(names, texts, st.booleans()), max_size=8), st.booleans()), max_size=8))
def test_valid_blocks(messages):
    encoder, blocks = hpack.Encoder(), []
    for fields, huffman in messages:
        blocks.append(encoder.encode(fields, huffman=huffman))
    both(blocks)


@settings(max_examples=500)
@given(st.lists(st.binary(max_size=24), max_size=6))
def test_arbitrary_blocks(blocks):
    both(blocks)


@pytest.mark.parametrize("size", [0, 40, 100, TABLE_SIZE])
def test_the_table_may_shrink_at_the_start_of_a_block(size):
    encoder = hpack.Encoder()
    first = encoder.encode([("x", "y"), ("longer", "value" * 10)])
    encoder.header_table_size = size
    both([first, encoder.encode([("x", "z")])])


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",  # index 0
        b"\xbe",  # an index that is in no table
        b"\x82\x20",  # a size after a field
        b"\x3f\xe2\x1f",  # a size above the limit
        b"\x00\x05ab",  # a name that ends after the block
        b"\x00\x01a\x7f",  # a length that ends after the block
        b"\x00\x01a\x81\x00",  # padding of Huffman code that is not all ones
        b"\x00\x01a\x84\xff\xff\xff\xff",  # the symbol for the end
        b"\xff\xff\xff\xff\xff\xff\xff",  # a number without an end
    ],
)
def test_damaged_blocks(block):
    with pytest.raises(ConnectionViolationError) as caught:
        decode(block, DynamicTable())
    assert caught.value.code is ErrorCode.COMPRESSION_ERROR


def test_too_many_fields_are_refused_while_reading():
    with pytest.raises(ConnectionViolationError) as caught:
        decode(b"\x82" * 100_000, DynamicTable())
    assert caught.value.code is ErrorCode.ENHANCE_YOUR_CALM
    assert len(decode(b"\x82" * MAX_FIELDS, DynamicTable())) == MAX_FIELDS
