import sys
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.errors import MalformedError, TooLargeError
from otelwp_agent.transport.http_body import BodyBlocks, ChunkedBody, LengthBody, TrailersTooLargeError
from otelwp_agent.transport.http_heads import MAX_HEAD
from tests.kit.http_site import Site

LIMIT = 100_000


def cut(data, places):
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def read(body, pieces):
    """Feed `pieces`; return what comes after the body."""
    rest = b""
    for piece in pieces:
        at = 0
        while at < len(piece) and not body.done:
            at = body.feed(piece, at)
        rest += piece[at:]
    return rest


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=50), st.sampled_from(["", ";a=b", ';q="x y"']))), st.data())
def test_a_chunked_body_comes_out_whatever_its_pieces(chunks, data):
    wire = b"".join(b"%x%s\r\n%s\r\n" % (len(chunk), extension.encode(), chunk) for chunk, extension in chunks)
    wire += b"000\r\n" + data.draw(st.sampled_from([b"", b"X-Tenant: a\r\n", b"A:\r\nB: c\r\n"])) + b"\r\n"
    body = ChunkedBody(LIMIT, keep=True)
    rest = read(body, cut(wire + b"next", data.draw(st.lists(st.integers(0, 10**6), max_size=20))))
    assert body.done
    assert body.join() == b"".join(chunk for chunk, _ in chunks)
    assert rest == b"next"


@given(st.binary(min_size=1, max_size=200), st.lists(st.integers(0, 300), max_size=20))
def test_a_body_with_a_length_comes_out_whatever_its_pieces(content, places):
    body = LengthBody(len(content), keep=True)
    assert read(body, cut(content + b"next", places)) == b"next"
    assert body.join() == content
    assert body.missing == 0


@pytest.mark.parametrize(
    "wire",
    [
        b"\r\n",
        b"x\r\n",
        b"0x5\r\nhello\r\n",
        b"-1\r\n",
        b"5 \r\nhello\r\n",
        b"5\nhello\n",
        b"5\r\nhello!\r\n",
        b"5\r\nhello\n",
        b"11111111111111111\r\n",
        b"5;\0\r\nhello\r\n",
        b"5;a\rb\r\nhello\r\n",
        b"5;" + b"a" * 2000,
        b"0\r\nno colon\r\n\r\n",
        b"0\r\n folded: a\r\n\r\n",
        b"0\r\na: b\n\r\n",
        b"0\r\na: b\rc\r\n\r\n",
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_what_is_not_chunked_is_refused(wire, size):
    body = ChunkedBody(LIMIT, keep=True)
    with pytest.raises(MalformedError):
        read(body, [wire[at : at + size] for at in range(0, len(wire), size)])


def test_a_chunk_above_the_limit_is_refused_before_it_arrives():
    body = ChunkedBody(10, keep=True)
    read(body, [b"a\r\n0123456789\r\n"])
    with pytest.raises(TooLargeError, match="larger than 10 bytes"):
        read(body, [b"1\r\n"])


@pytest.mark.parametrize("trailer", [b"A: b\r\n", b"A: " + b"b" * 200_000 + b"\r\n"])
def test_trailers_are_bounded_in_bytes(trailer):
    body = ChunkedBody(LIMIT, keep=True)
    began = time.process_time()
    with pytest.raises(TrailersTooLargeError, match=f"{MAX_HEAD} bytes"):
        read(body, [b"0\r\n", *[trailer] * 1_000_000])
    assert time.process_time() - began < 1


def test_small_pieces_take_about_their_size_in_memory():
    blocks = BodyBlocks()
    for _ in range(100_000):
        blocks.add(b"ab")
    held = sum(sys.getsizeof(block) for block in blocks._blocks) + sys.getsizeof(blocks._blocks)
    assert held < 2 * blocks.size
    assert blocks.join() == b"ab" * 100_000


def test_a_body_that_is_not_kept_is_read_and_dropped():
    for body, wire in ((LengthBody(5, keep=False), b"hello"), (ChunkedBody(9, keep=False), b"5\r\nhello\r\n0\r\n\r\n")):
        assert read(body, [wire]) == b""
        assert (body.done, body.size, body.join()) == (True, 0, b"")


async def test_trailers_do_not_change_the_headers_that_a_handler_sees():
    async with Site() as site:
        client = await site.connect()
        head = b"POST /v1/traces HTTP/1.1\r\nX-Tenant: mine\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.send(head + b"2\r\nhi\r\n0\r\nX-Tenant: other\r\nX-More: 1\r\n\r\n")
        assert (await client.answer())[0] == 200
        await client.close()
        assert site.requests[0].headers == {"x-tenant": "mine", "transfer-encoding": "chunked"}


async def test_too_many_trailers_are_answered_431():
    async with Site() as site:
        client = await site.connect()
        client.send(b"POST /v1/traces HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 20_000)
        assert (await client.answer())[0] == 431
        await client.close()
        assert (site.refusals, site.requests) == (["head_too_large"], [])
