from __future__ import annotations

import socket

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from otelwp_agent.config.types import Endpoint
from otelwp_agent.transport.http_messages import Head, Request, Response, Route
from otelwp_agent.transport.local_access import REFUSED, LocalAccess, is_cross_origin

MACHINE = socket.gethostname()


def access(*endpoints, allowed=()):
    return LocalAccess(
        [Endpoint(each) for each in endpoints],
        list(allowed),
        setting="service.telemetry.metrics",
        log=structlog.get_logger(),
        clock=lambda: 0.0,
    )


def ask(guard, host=None, method="GET", peer="127.0.0.1", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if host is not None:
        named["host"] = host
    answer = guard.refusal(Request(Head(method, "/", named), b"", peer))
    return 200 if answer is None else answer.status


@pytest.mark.parametrize(
    ("endpoint", "host", "status"),
    [
        ("127.0.0.1:8888", "127.0.0.1:8888", 200),
        ("127.0.0.1:8888", "127.0.0.1", 200),
        ("127.0.0.1:8888", "localhost:8888", 200),
        ("127.0.0.1:8888", "LOCALHOST.:1234", 200),  # through a published or forwarded port
        ("127.0.0.1:8888", "[::1]:8888", 200),
        ("127.0.0.1:8888", MACHINE, 200),
        ("127.0.0.1:8888", None, 200),
        ("127.0.0.1:8888", "", 200),
        ("127.0.0.1:8888", "10.1.2.3:8888", 403),
        ("127.0.0.1:8888", "evil.example:8888", 403),
        ("127.0.0.1:8888", "127.0.0.1.evil.example", 403),
        ("127.0.0.1:8888", "localhost.evil.example", 403),
        ("127.0.0.1:8888", "evil.example, localhost", 403),
        ("127.0.0.1:8888", "localhost@evil.example", 403),
        ("127.0.0.1:8888", "[evil]:1", 403),
        ("10.0.0.5:8888", "10.0.0.5:8888", 200),
        ("10.0.0.5:8888", "127.0.0.1:8888", 403),
        ("0.0.0.0:8888", "10.244.1.7:8888", 200),  # a Kubernetes probe: the pod's address
        (":8888", "[fd00::1]:8888", 200),
        ("[::]:8888", "[::ffff:10.1.2.3]:8888", 200),
        ("0.0.0.0:8888", "prometheus-target.example:8888", 403),
        ("agent.example:8888", "agent.example:8888", 200),
        ("agent.example:8888", "192.0.2.1:8888", 200),
        ("localhost:8888", "192.0.2.1:8888", 403),
    ],
)
def test_which_hosts_are_answered(endpoint, host, status):
    assert ask(access(endpoint), host) == status


def test_allowed_hosts_extend():
    assert ask(access(":1", allowed=["agent", "192.0.2.9"]), "agent:13133") == 200
    assert ask(access("127.0.0.1:1", allowed=["192.0.2.9"]), "192.0.2.9:13133") == 200
    assert ask(access("127.0.0.1:1", allowed=["agent"]), "agent.evil.example") == 403
    assert ask(access("127.0.0.1:1", allowed=["*"]), "evil.example") == 200


def test_unix_sockets_are_exempt():
    assert ask(access("127.0.0.1:1", "unix:///run/x.sock"), "evil.example", peer="") == 200


def test_the_answer_and_the_log_say_what_to_add():
    guard = access("127.0.0.1:1")
    with capture_logs() as logs:
        answers = [guard.refusal(Request(Head("GET", "/", {"host": "agent:8888"}), b"", "10.0.0.1")) for _ in range(9)]
    assert "`allowed_hosts` of service.telemetry.metrics" in answers[0].body.decode()
    assert "'agent:8888'" in answers[0].body.decode()
    (event,) = logs
    assert (event["event"], event["host"], event["why"]) == (REFUSED, "agent:8888", "host")


@pytest.mark.parametrize(
    ("headers", "crosses"),
    [
        ({}, False),
        ({"origin": "http://localhost:5778"}, False),
        ({"origin": "http://LocalHost:5778"}, False),
        ({"origin": "http://localhost:80"}, True),
        ({"origin": "https://evil.example"}, True),
        ({"origin": "null"}, True),
        ({"origin": ""}, True),
        ({"origin": "http://localhost:5778", "sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "same-origin"}, False),
        ({"sec-fetch-site": "none"}, False),
    ],
)
def test_cross_origin(headers, crosses):
    assert is_cross_origin({"host": "localhost:5778", **headers}) is crosses
    named = {name.replace("-", "_"): value for name, value in headers.items()}
    guard = access("127.0.0.1:5778")
    assert ask(guard, "localhost:5778", "POST", **named) == (403 if crosses else 200)
    assert ask(guard, "localhost:5778", "GET", **named) == 200
    assert ask(guard, "localhost:5778", "POST", peer="", **named) == 200


def test_a_guarded_route_keeps_the_rest_of_the_route():
    route = Route(lambda _request: Response(200, b"yes"), ("GET", "HEAD"))
    guarded = access("127.0.0.1:1").guard(route)
    assert guarded.methods == route.methods
    assert guarded.handler(Request(Head("GET", "/", {"host": "localhost"}), b"", "127.0.0.1")).body == b"yes"
    assert guarded.handler(Request(Head("GET", "/", {"host": "evil"}), b"", "127.0.0.1")).status == 403


@given(st.text(st.characters(min_codepoint=0, max_codepoint=255), max_size=60))
def test_any_host_header_is_decided_and_only_ours_is_answered(host):
    status = ask(access("127.0.0.1:1"), host)
    bare = host.strip().lower()
    if status == 200 and bare:
        name = bare.partition(":")[0].rstrip(".") if not bare.startswith("[") else bare[1 : bare.index("]")]
        assert name in {"localhost", MACHINE.lower(), MACHINE.lower().partition(".")[0], "::1", ""} or (
            name.startswith("127.") or "::" in name
        )


@pytest.mark.parametrize("origin", ["http://[", "//", "http://a@b@c", "x" * 5000])
def test_a_broken_origin_is_another_origin(origin):
    assert is_cross_origin({"host": "localhost", "origin": origin})
