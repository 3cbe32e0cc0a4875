import pytest
import structlog

from otelwp_agent.codecs.jaeger.http import JaegerHttp
from otelwp_agent.config.blocks import HttpReceiver
from otelwp_agent.errors import MalformedError
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing import Catcher
from otelwp_agent.transport.http_messages import Head, Request
from otelwp_agent.transport.in_flight import InFlight
from otelwp_agent.transport.overload import Drops
from tests.kit.jaeger import CAPTURES, WORDPRESS

FRONT = (CAPTURES / "001-front.json").read_bytes()
THRIFT = (CAPTURES / "901-decalog-front.thrift").read_bytes()


def clock():
    return 0.0


@pytest.fixture
def catcher():
    return Catcher()


@pytest.fixture
def http(catcher):
    registry, log = Registry(), structlog.get_logger()
    return JaegerHttp(
        HttpReceiver(),
        lambda: catcher,
        receiver="jaeger_json",
        name="receivers/jaeger_json",
        log=log,
        registry=registry,
        clock=clock,
        drops=Drops("jaeger_json", registry, log, clock),
        in_flight=InFlight(),
        max_items=1000,
    )


def test_no_socket_is_needed(http, catcher):
    head = Head("POST", "/api/traces", {"user-agent": WORDPRESS})
    assert http.handle(Request(head, FRONT)).status == 202
    assert http.handle(Request(head, THRIFT)).status == 202
    assert catcher.items == 14
    assert catcher.batches[0].origin is catcher.batches[1].origin  # what a head tells is read once


@pytest.mark.parametrize("first", [b"\x0c", b"\x0f", b"\x80", b"\x00"])
def test_thrift_is_told_by_its_first_byte(http, first):
    with pytest.raises(MalformedError, match="Thrift body"):
        http.handle(Request(Head("POST", "/api/traces", {}), first + b"\x01"))


def test_what_is_neither_is_told_so_unless_its_type_says_thrift(http):
    with pytest.raises(MalformedError, match="neither JSON"):
        http.handle(Request(Head("POST", "/api/traces", {}), b"spans=1"))
    with pytest.raises(MalformedError, match="Thrift body"):
        http.handle(Request(Head("POST", "/api/traces", {"content-type": "application/x-thrift"}), b"spans=1"))
