"""Sealed requests over PostgreSQL: what the wire, a stolen agent and the memory of a collector without keys show."""

import base64
import contextlib
import os
import re
import socket
import threading
import time
from pathlib import Path

import pytest

from otelwp_agent.sealing.envelope import parse, unseal
from otelwp_agent.sealing.errors import SealedError
from otelwp_agent.sealing.key_files import read_key_ring
from otelwp_agent.sealing.key_ring import KeyRing, OpeningKey
from otelwp_agent.sealing.suites import SealingSuite
from tests.interop.postgresql import Postgresql
from tests.kit.agent import PATIENCE, post
from tests.kit.managed_site import Site, enterprise_agent, forwards_to, to, whole
from tests.kit.span_backend import Tap, a_request, span_backend

pytestmark = pytest.mark.interop

MARKERS = [f"marker-{os.urandom(12).hex()}" for _ in range(1000)]
CONTROL = f"control-{os.urandom(12).hex()}"
MARKERS_IN_A_REQUEST = 10
WORDS = re.compile(rb"(?:marker|control)-[0-9a-f]{24}")
TOKEN = re.compile(rb"[A-Za-z0-9_+/-]{43,44}")
"""What could be a key of 32 bytes in base64."""


@pytest.fixture
def postgresql():
    server = Postgresql()
    try:
        with server:
            yield server
    finally:
        server.remove()


def a_site(folder, postgresql, change):
    """Start a managed collector over PostgreSQL with the customer acme."""
    folder.mkdir()
    site = Site(folder, store=postgresql.database(), change=change)
    site.agent.__enter__()
    try:
        site.cli("tenants", "create", "acme", "--plan", "enterprise", json_output=False)
        site.key = site.cli("api-keys", "create", "acme")["key"]
        assert site.answers_at_last(site.key, 200)
    except BaseException:
        site.agent.close()
        raise
    return site


def envelopes(captured):
    """Return the envelopes in captured requests."""
    found = []
    for head in re.finditer(rb"POST /v1/traces HTTP/1.1\r\n(.*?)\r\n\r\n", captured, re.DOTALL):
        length = int(re.search(rb"content-length: (\d+)", head[1], re.IGNORECASE)[1])
        found.append(bytes(captured[head.end() : head.end() + length]))
    return found


def encrypts_its_journal(config):
    whole(config)
    config["service"]["journal"]["encryption"] = {"key": "${env:OTELWP_TEST_JOURNAL_KEY}"}


def test_the_wire_and_a_stolen_agent_show_nothing(postgresql, tmp_path, monkeypatch):
    monkeypatch.setenv("OTELWP_TEST_JOURNAL_KEY", os.urandom(32).hex())
    request = a_request("cart-of-alice", "checkout-of-alice", credit="4111-1111")
    with span_backend() as backend:
        site = a_site(tmp_path / "collector", postgresql, lambda config: to(backend, config))
        try:
            backend.wait_for(1)
            backend.requests.clear()
            with Tap(site.agent.port("http")) as tap:
                folder = tmp_path / "agent"
                folder.mkdir()
                customer = {"customer": "acme", "api_key": site.key, "sealing_key": site.sealing_key()}
                with enterprise_agent(folder, tap.port, **customer, change=encrypts_its_journal) as agent:
                    assert post(agent.port("http"), "/v1/traces", request.SerializeToString()) == 200
                    backend.wait_for(2)
                    agent.wait_for_metric("otelwp_pipeline_in_flight_items", 0)
        finally:
            site.agent.close()
        ((_, body),) = backend.requests
        assert type(request).FromString(body) == request
    captured = bytes(tap.captured)
    assert b"acme" in captured  # the customer is in clear: the capture has what passed
    for word in (b"shop-of-acme", b"alice", b"http.url", b"4111-1111", b"service.name"):
        assert word not in captured
        assert word in body
    (envelope,) = [parse(each) for each in envelopes(captured)]
    ring = read_key_ring((tmp_path / "collector" / "managed-collector" / "opening-keys.json").read_text())
    assert unseal(envelope, ring, time.time())  # the collector's key opens it
    stolen = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert any(site.key.encode() in content for content in stolen.values())
    assert any(path.suffix == ".journal" for path in stolen)
    assert [path for path, content in stolen.items() if b"alice" in content or b"shop-of-acme" in content] == []
    candidates = set()
    for content in stolen.values():
        candidates.update(base64.urlsafe_b64decode(token[:43] + b"=") for token in TOKEN.findall(content))
        if len(content) == 32:
            candidates.add(content)
    assert len(candidates) >= 2  # the public key and the key of message ids, at least
    for candidate in candidates:
        key = OpeningKey(envelope.header.key_id, SealingSuite.X25519, candidate)
        with pytest.raises(SealedError):
            unseal(envelope, KeyRing([key]), time.time())


def memory_of(pid):
    """Yield what a process has in its memory, region by region."""
    process = Path(f"/proc/{pid}")
    with (process / "maps").open() as maps, (process / "mem").open("rb", buffering=0) as memory:
        for line in maps:
            span, rights, *_ = line.split()
            if "r" not in rights or line.rstrip().endswith(("[vvar]", "[vsyscall]")):
                continue
            begin, end = (int(each, 16) for each in span.split("-"))
            try:
                memory.seek(begin)
                yield memory.read(end - begin)
            except (OSError, ValueError, OverflowError):
                continue  # a region that is gone, or that nobody may read


@contextlib.contextmanager
def an_unfinished_request(site):
    """Send all but the last byte of a request that is not sealed, with the control; yield what sends the last one."""
    body = a_request("control", control=CONTROL, tail="the byte that is missing is in here").SerializeToString()
    head = f"POST /v1/traces HTTP/1.1\r\nContent-Type: application/x-protobuf\r\nX-API-Key: {site.key}\r\n"
    with socket.create_connection(("127.0.0.1", site.agent.port("http")), PATIENCE) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:-1])
        time.sleep(0.5)  # no event shows that the collector has read it

        def finish():
            connection.sendall(body[-1:])
            return int(connection.recv(1000).split()[1])

        yield finish


def test_the_memory_of_a_collector_without_keys_has_nothing_of_what_it_forwards(postgresql, tmp_path):
    with span_backend() as backend:
        own = a_site(tmp_path / "own", postgresql, lambda config: to(backend, config))
        try:
            blind = a_site(tmp_path / "blind", postgresql, lambda config: forwards_to(own, config))
        except BaseException:
            own.agent.close()
            raise
        folder = tmp_path / "agent"
        folder.mkdir()
        customer = {"customer": "acme", "api_key": blind.key, "sealing_key": own.sealing_key()}
        agent = enterprise_agent(folder, blind.agent.port("http"), **customer, change=whole)
        stop = threading.Event()

        def load():
            number = 0
            while not stop.is_set():
                some = [MARKERS[(number + offset) % len(MARKERS)] for offset in range(MARKERS_IN_A_REQUEST)]
                number += MARKERS_IN_A_REQUEST
                body = a_request("page", **{f"attribute-{marker}": marker for marker in some}).SerializeToString()
                assert post(agent.port("http"), "/v1/traces", body) == 200

        try:
            with agent:
                sender = threading.Thread(target=load)
                sender.start()
                backend.wait_for(2 * len(MARKERS) // MARKERS_IN_A_REQUEST)
                found, size = set(), 0
                for _ in range(3):
                    with an_unfinished_request(blind) as finish:
                        for region in memory_of(blind.agent.pid):
                            size += len(region)
                            found.update(word.decode() for word in WORDS.findall(region))
                        assert finish() == 200
                stop.set()
                sender.join()
                agent.wait_for_metric("otelwp_pipeline_in_flight_items", 0)
        finally:
            stop.set()
            blind.agent.close()
            own.agent.close()
        arrived = b"".join(body for _, body in backend.requests)
    assert size > 10 * 2**20
    assert found == {CONTROL}
    assert all(marker.encode() in arrived for marker in MARKERS)
