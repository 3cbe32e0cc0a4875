import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelwp_agent.errors import MalformedError
from otelwp_agent.transport.http_heads import (
    END_OF_HEAD,
    MAX_FIELDS,
    MAX_HEAD,
    MAX_REMEMBERED_FIELDS,
    MAX_REMEMBERED_HEAD,
    REFUSED_HEADS,
    REMEMBERED_BYTES,
    HeadCache,
    HeadReader,
    HeadTooLargeError,
    RequestPlan,
    parse_head,
)
from otelwp_agent.transport.http_messages import Head, Response
from tests.kit.http_site import Site, post

sys.path.append(str(Path(__file__).parents[2] / "benchmarks/fuzz"))

import fuzz_heads

EXPECTING = b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"


def plan_of(raw):
    parsed = parse_head(raw)
    head = Head(parsed.method, parsed.target, parsed.fields)
    return RequestPlan(head, Response(200), 0, keep_alive=True, extra=b"")


def parts(parsed):
    return parsed.method, parsed.target, parsed.fields, parsed.keep_alive


def test_a_head_is_parsed():
    parsed = parse_head(b"POST /a?b HTTP/1.1\r\nX-Thing: 1\r\nHost: x\r\nx-thing: 2\r\nX-THING: 3\r\n\r\n")
    assert parts(parsed) == ("POST", "/a?b", {"x-thing": "1, 2, 3", "host": "x"}, True)


@pytest.mark.parametrize(
    ("head", "keeps"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", False),
        (b"CONNECT a:1 HTTP/1.1\r\n\r\n", False),
    ],
)
def test_a_head_decides_whether_the_connection_is_kept(head, keeps):
    assert parse_head(head).keep_alive is keeps


@pytest.mark.parametrize(
    "head",
    [
        b"\r\n\r\n",
        b"hello there\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\n\n\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: \0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: +4\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
    ],
)
def test_a_head_that_is_invalid_or_ambiguous_is_refused(head):
    with pytest.raises(MalformedError, match=r"not HTTP/1\.1"):
        parse_head(head)


def test_a_head_whose_upgrade_is_reported_before_its_empty_line_is_refused():
    """The parser ends this head at a bare line feed, and reports a CONNECT without a version as an upgrade there."""
    head = b"CONNECT a:\n\r\nGET /nowhere HTTP/1.1\r\n\r\n"
    with pytest.raises(MalformedError, match=r"not HTTP/1\.1"):
        parse_head(head)
    with pytest.raises(MalformedError, match=r"not HTTP/1\.1"):
        HeadReader().feed(head[:-1])


@given(st.data())
def test_a_head_in_pieces_is_the_same_head(data):
    head = data.draw(st.sampled_from([piece for piece in fuzz_heads.PIECES if piece.endswith(END_OF_HEAD)][:6]))
    stream = head + data.draw(st.binary(max_size=8))
    reader, at = HeadReader(), 0
    while True:
        piece = stream[: at + data.draw(st.integers(1, len(stream)))]
        end = reader.end_in(piece, at)
        if end >= 0:
            break
        reader.feed(piece[at:])
        at = len(piece)
    assert end == len(head)
    assert parts(reader.finish(piece[at:end])) == parts(parse_head(head))


def test_a_head_larger_than_the_limit_is_noticed_in_pieces():
    reader = HeadReader()
    reader.feed(b"GET / HTTP/1.1\r\nA: ")
    for _ in range(MAX_HEAD // 1000):
        reader.feed(b"a" * 1000)
    with pytest.raises(HeadTooLargeError, match=f"larger than {MAX_HEAD} bytes"):
        reader.feed(b"a" * 1000)
    with pytest.raises(HeadTooLargeError):
        reader.finish(b"\r\n\r\n")


def many_fields(number):
    return b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: a\r\n" % each for each in range(number)) + b"\r\n"


def test_the_fields_of_a_head_are_limited():
    assert len(parse_head(many_fields(MAX_FIELDS)).fields) == MAX_FIELDS
    with pytest.raises(HeadTooLargeError, match=f"more than {MAX_FIELDS} header fields"):
        parse_head(many_fields(MAX_FIELDS + 1))


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_fields_of_a_head_in_pieces_are_limited(size):
    def read(head):
        reader = HeadReader()
        for at in range(0, len(head) - 4, size):
            reader.feed(head[at : min(at + size, len(head) - 4)])
        return reader.finish(head[-4:])

    assert len(read(many_fields(MAX_FIELDS)).fields) == MAX_FIELDS
    with pytest.raises(HeadTooLargeError):
        read(many_fields(MAX_FIELDS + 1))


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_request_with_too_many_fields_is_answered_431_and_counted(at_once):
    async with Site() as site:
        client = await site.connect()
        client.send(post())
        await client.answer()
        head = many_fields(MAX_FIELDS + 50)
        client.send(head if at_once else head[:-100])
        status, headers, body = await client.answer()
        assert (status, headers["connection"]) == (431, "close")
        assert body == b"the request has more than %d header fields\n" % MAX_FIELDS
        await client.close()
        assert (site.refusals, len(site.requests)) == (["head_too_large"], 1)


@pytest.mark.parametrize(
    "head",
    [
        EXPECTING,
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n",
        b"POST / HTTP/1.1\r\nA: " + b"a" * MAX_REMEMBERED_HEAD + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + b"".join(b"%d: a\r\n" % each for each in range(MAX_REMEMBERED_FIELDS + 1)) + b"\r\n",
    ],
)
def test_some_heads_are_never_remembered(head):
    heads = HeadCache()
    heads.remember(head, plan_of(head))
    heads.remember_refused(head, plan_of(head))
    assert not heads.plans


def test_heads_of_refused_requests_replace_only_each_other():
    heads = HeadCache(3)

    def numbered(kind, number):
        return b"GET /%s/%d HTTP/1.1\r\n\r\n" % (kind, number)

    good = [numbered(b"good", number) for number in range(3)]
    for head in good:
        heads.remember(head, plan_of(head))
    for number in range(3 * REFUSED_HEADS):
        head = numbered(b"bad", number)
        heads.remember_refused(head, plan_of(head))
        assert head in heads.plans
    latest = [numbered(b"bad", number) for number in range(2 * REFUSED_HEADS, 3 * REFUSED_HEADS)]
    assert list(heads.plans) == [*good, *latest]
    more = numbered(b"good", 3)
    heads.remember(more, plan_of(more))
    assert list(heads.plans) == [more], "the cache of accepted heads was full"
    heads.remember_refused(latest[0], plan_of(latest[0]))
    assert list(heads.plans) == [more, latest[0]]


def test_remembered_heads_are_bounded_in_bytes():
    heads = HeadCache(10**6)
    for number in range(1000):
        head = b"GET /%d HTTP/1.1\r\nA: %s\r\n\r\n" % (number, b"a" * 3000)
        heads.remember(head, plan_of(head))
        assert sum(map(len, heads.plans)) <= REMEMBERED_BYTES
    assert heads.plans


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(fuzz_heads.PIECES) | st.binary(max_size=4), max_size=10))
def test_a_session_that_remembers_heads_is_like_one_that_does_not(pieces):
    fuzz_heads.heads(b"".join(pieces))


async def test_a_request_that_expects_never_lends_its_head_to_the_next():
    async with Site() as site:
        attacker = await site.connect()
        attacker.send(EXPECTING + b"hello" + post(b"x", "/nowhere", "X-Tenant: attacker\r\n"))
        await attacker.answer()
        await attacker.close()
        victim = await site.connect()
        victim.send(EXPECTING)
        assert await victim.reader.readexactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        victim.send(b"mine!")
        assert (await victim.answer())[0] == 200
        await victim.close()
        assert "x-tenant" not in site.requests[-1].headers
        assert site.requests[-1].body == b"mine!"


async def test_blank_lines_are_never_remembered():
    async with Site() as site:
        client = await site.connect()
        for _ in range(2):
            client.send(b"\r\n\r\n" + post())
            assert (await client.answer())[0] == 200
        await client.close()
        assert all(head.startswith(b"POST") for head in site.server.plans)
        assert len(site.requests) == 2
