"""Tests of the measurement: it detects a server that delays other clients, and ignores delays of the machine."""

import os
import socket
import threading
import time

import pytest

from tests.hostile.prober import Probe, Prober, Sample, Wait
from tests.hostile.target import ABOVE_MIB, LIMIT_MIB, Verdict, noise

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REQUEST = "GET / HTTP/1.1\r\n\r\n"


def verdict(*samples, waits=(), peak=100, recovered=True):
    quiet = [Sample(name, 0.0, 0.001, 200) for name in ("live", "otlp", "control live", "control otlp")]
    return Verdict([*quiet, *samples], list(waits), peak, 0.1, recovered=recovered)


def test_an_agent_that_bears_the_attack_has_no_problems():
    assert verdict(Sample("live+", 1.0, 0.24, 200), Sample("otlp", 1.0, 0.49, 429)).problems == []


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda: verdict(Sample("live", 1.0, 0.26, 200)), "live: 260 ms beyond"),
        (lambda: verdict(Sample("otlp+", 1.0, 0.51, 200)), "otlp: 510 ms beyond"),
        (lambda: verdict(Sample("otlp", 1.0, 0.01, 0)), "1 requests were not answered"),
        (lambda: verdict(peak=LIMIT_MIB + ABOVE_MIB + 1), "peak memory: 321 MiB"),
        (lambda: verdict(recovered=False), "no spans were accepted"),
    ],
)
def test_one_that_does_not_has_one(made, expected):
    (problem,) = made().problems
    assert expected in problem


def test_what_the_control_waited_for_meanwhile_is_the_machines_delay():
    slow = Sample("live", 1.0, 0.6, 200)
    assert verdict(slow, Sample("control live", 1.1, 0.4, 200)).problems == []
    assert verdict(slow, Sample("control live", 1.7, 0.4, 200)).problems != []
    assert verdict(slow, Sample("control live", 0.5, 0.4, 200)).problems != []
    assert noise(slow, [], []) == 0.0


def test_what_a_thread_of_the_agent_waited_for_a_processor_is_the_machines_delay():
    slow = Sample("live", 1.0, 0.6, 200)
    waits = [Wait(0.9, {"1": 5.0, "2": 5.0}), Wait(1.3, {"1": 5.2, "2": 5.0}), Wait(1.7, {"1": 5.4, "2": 5.0})]
    assert verdict(slow, waits=waits).problems == []
    assert noise(slow, [], waits) == pytest.approx(0.4)
    assert verdict(slow, waits=[Wait(0.9, {"1": 5.0}), Wait(1.7, {"1": 5.1})]).problems != []
    assert noise(slow, [], waits[:1]) == noise(slow, [], waits[2:]) == 0.0


@pytest.fixture
def server():
    """Yield the port of a server that answers each read, and a lock: while it is held, the server does not answer."""
    listener, gate, threads = socket.create_server(("127.0.0.1", 0)), threading.Lock(), []

    def serve(sock):
        with sock:
            while sock.recv(65_536):
                with gate:
                    sock.sendall(ANSWER)

    def accept():
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=serve, args=(sock,)))
            threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    yield listener.getsockname()[1], gate
    listener.shutdown(socket.SHUT_RDWR)
    accepting.join()
    listener.close()
    for each in threads:
        each.join()


@pytest.mark.parametrize("fresh", [False, True])
def test_the_prober_notices_a_pause(server, fresh):
    port, gate = server
    with Prober([Probe("live", port, REQUEST, fresh)], os.getpid()) as prober:
        with gate:
            time.sleep(0.3)  # the measured pause
        samples, waits = prober.stop()
    assert {each.status for each in samples} == {200}
    assert max(each.took for each in samples) > 0.2
    assert all(str(os.getpid()) in each.waited for each in waits)
    assert len(waits) > 3


def test_the_prober_counts_a_server_that_is_gone():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with Prober([Probe("live", port, REQUEST)], os.getpid()) as prober:
        samples, _ = prober.stop()
    assert {each.status for each in samples} == {0}
