"""No request is attributed to another client: bytes on one connection change no response on another.

Run by `make test`.
"""

import contextlib

import pytest

from tests.hostile import wire
from tests.hostile.bodies import SPAN
from tests.hostile.target import Target

TRACES = "/v1/traces"
EXPECTING = wire.head(TRACES, len(SPAN), wire.PROTOBUF, "Expect: 100-continue")
PLAIN = wire.head(TRACES, len(SPAN))
NOWHERE = wire.head("/nowhere", 0)
TENANT = wire.head(TRACES, len(SPAN), wire.PROTOBUF, "X-Tenant: attacker") + SPAN
HALF = wire.head(TRACES, 1_000_000) + bytes(10)
CHUNKED = wire.head(TRACES, None) + b"5\r\nabcde\r\n"

FIRST = {
    "expecting": EXPECTING + SPAN,
    "expecting_head": EXPECTING,
    "plain": PLAIN + SPAN,
    "plain_head": PLAIN,
    "blank_lines": b"\r\n\r\n",
    "blank_lines_and_plain": b"\r\n\r\n" + PLAIN + SPAN,
}
SECOND = {
    "nowhere": NOWHERE,
    "another_tenant": TENANT,
    "unfinished": HALF,
    "chunked": CHUNKED,
    "blank_lines": b"\r\n\r\n",
    "rubbish": b"rubbish\r\n\r\n",
}


@pytest.fixture(scope="module")
def agent(pair, tmp_path_factory):
    with Target(tmp_path_factory.mktemp("mixing"), pair, "mixing") as target:
        yield target


def statuses(port, *packets, wanted=1):
    """Send packets on one connection; return the final statuses of the responses, at most `wanted` of them."""
    found, data = [], b""
    with wire.connect(port) as sock, contextlib.suppress(TimeoutError):
        sock.settimeout(3)
        for packet in packets:
            sock.sendall(packet)
        while len(found) < wanted and (more := sock.recv(65_536)):
            data += more
            found = [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:] if part[:3] != b"100"]
    return found


def test_an_agent_answers_before_an_attack(agent):
    for victim in (EXPECTING, PLAIN, b"\r\n\r\n" + PLAIN):
        assert statuses(agent.port(), victim + SPAN) == [200]


@pytest.mark.parametrize("second", SECOND.values(), ids=SECOND)
@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST)
def test_bytes_after_a_request_change_no_response_to_others(agent, first, second):
    port = agent.port()
    with contextlib.suppress(OSError):
        statuses(port, first + second, wanted=0)
    for victim in (EXPECTING, PLAIN, b"\r\n\r\n" + PLAIN):
        assert statuses(port, victim + SPAN) == [200]
    assert statuses(port, NOWHERE) == [404]


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 5", "Content-Length: 6"),
        ("Transfer-Encoding: chunked", "Content-Length: 5"),
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: xchunked",),
        ("Transfer-Encoding: chunked, identity",),
        ("Content-Length: +5",),
        ("Content-Length: 0x5",),
        ("Content-Length : 5",),
    ],
)
def test_a_length_that_two_servers_could_read_differently_is_refused(agent, lines):
    head = "\r\n".join(
        (f"POST {TRACES} HTTP/1.1", "Host: localhost", f"Content-Type: {wire.PROTOBUF}", *lines)
    ).encode()
    found = statuses(agent.port(), head + b"\r\n\r\n0\r\n\r\n" + NOWHERE, wanted=2)
    assert found == [400], "one response, then the connection is closed"
