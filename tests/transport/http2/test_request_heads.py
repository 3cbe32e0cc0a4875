"""The rules for the fields of a head."""

import pytest

from otelwp_agent.transport.http2 import request_heads
from otelwp_agent.transport.http2.request_heads import RequestHead, field_problem, trailers_problem

PSEUDO = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a"), (b":authority", b"h")]


def test_a_head():
    head = RequestHead([*PSEUDO, (b"x", b"1"), (b"content-length", b"5"), (b"x", b"2"), (b"x", b"3")])
    assert (head.problem, head.method, head.path, head.authority) == ("", "POST", "/a", "h")
    assert head.fields == {"x": "1, 2, 3", "content-length": "5"}
    assert head.content_length == 5


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (PSEUDO[1:], "missing"),
        (PSEUDO[:1] + PSEUDO[2:], "missing"),
        (PSEUDO[:2], "missing"),
        ([*PSEUDO[:2], (b":path", b"")], "missing or empty"),
        ([*PSEUDO, (b":path", b"/b")], "repeated"),
        ([*PSEUDO, (b":status", b"200")], "unknown"),
        ([(b"x", b"1"), *PSEUDO], "after the others"),
        ([*PSEUDO, (b"X", b"1")], "name of a field"),
        ([*PSEUDO, (b"", b"1")], "name of a field"),
        ([*PSEUDO, (b"connection", b"close")], "about the connection"),
        ([*PSEUDO, (b"te", b"gzip")], "te is not trailers"),
        ([*PSEUDO, (b"x", b"a\nb")], "value of a field"),
        ([*PSEUDO, (b"x", b" a")], "value of a field"),
        ([*PSEUDO, (b"content-length", b"-1")], "content-length"),
        ([*PSEUDO, (b"content-length", b"9" * 19)], "content-length"),
    ],
)
def test_a_problem(fields, problem):
    assert problem in RequestHead(fields).problem


def test_another_timeout():
    head = RequestHead(PSEUDO)
    other = head.with_timeout(b"1S")
    assert (other.base, other.timeout, other.path, head.timeout) == (head, b"1S", "/a", None)


def test_trailers():
    assert trailers_problem([(b"x", b"1"), (b"te", b"trailers")]) == ""
    assert "pseudo" in trailers_problem([(b":path", b"/")])
    assert trailers_problem([(b"X", b"1")])


def test_many_fields_are_checked_but_not_all_kept():
    for number in range(10_000):
        assert not RequestHead([*PSEUDO, (b"x", b"%d" % number)]).problem
    assert len(request_heads._known_fields) <= request_heads._MAX_KNOWN
    for _ in range(2):
        assert RequestHead([*PSEUDO, (b"name 1", b"")]).problem
    assert field_problem(b"name 1", b"")
