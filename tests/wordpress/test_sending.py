"""Sending: to real sockets, whose other end takes, is away, hangs or is full. Nothing of it may hold a page up."""

import contextlib
import json
import os
import socket
import statistics
import threading
from pathlib import Path

import pytest

from tests.kit.agent import Agent

MESSAGE = 30_000
"""Bytes; a page of 50 spans has about as many."""

LIMIT = 0.5
"""Milliseconds that sending may take, as the median of many: a page's budget, generous for a busy machine."""


@pytest.fixture
def short(tmp_path):
    """Give a folder whose path leaves room in the 108 bytes of a socket's address."""
    folder = Path(os.path.relpath(tmp_path)) if len(str(tmp_path)) > 80 else tmp_path
    return folder.resolve()


PARSE = """
    return array_map(static function ($text) {
        $e = Otelwp\\Endpoint::parse($text);
        return null === $e ? null : [$e->transport, $e->address, $e->path];
    }, $data);
"""


def test_endpoints(php):
    endpoints = {
        "unixgram:///run/otelwp/datagram.sock": ["udg", "/run/otelwp/datagram.sock", "/v1/traces"],
        "unix:///run/otelwp/otlp.sock": ["unix", "/run/otelwp/otlp.sock", "/v1/traces"],
        "udp://127.0.0.1:4319": ["udp", "127.0.0.1:4319", "/v1/traces"],
        "http://127.0.0.1:4318": ["tcp", "127.0.0.1:4318", "/v1/traces"],
        "http://localhost": ["tcp", "127.0.0.1:4318", "/v1/traces"],
        "http://LocalHost.:4318": ["tcp", "127.0.0.1:4318", "/v1/traces"],
        "http://[::1]:4318/": ["tcp", "[::1]:4318", "/v1/traces"],
        "http://agent:4318/t/v1/traces": ["tcp", "agent:4318", "/t/v1/traces"],
        "https://collector.example": None,
        "udp://127.0.0.1": None,
        "http://127.0.0.1:99999": None,
        "http://127.0.0.1:4318/a b": None,
        "http://127.0.0.1:4318/\r\nX: y": None,
        "http://user:secret@127.0.0.1:4318": None,
        "http://127.0.0.1:4318/\x00": None,
        "http://127.0.0.1:4318/a?b": None,
        "unix:///run/x.sock?y": None,
        "unix:///run/\x1b[31m": None,
        "unix://relative": None,
        "unix:///" + "x" * 200: None,
        "/run/x.sock": None,
        "": None,
    }
    assert dict(zip(endpoints, php(PARSE, list(endpoints)), strict=True)) == endpoints


class Peer:
    """A listening socket. It reads, unless it `hangs`; then what it has not accepted waits in a queue of `backlog`."""

    def __init__(self, kind, folder, *, hangs=False, backlog=512):
        self.received = []
        self.stopping = False
        self.news = threading.Condition()
        if kind == "http":
            self.socket = socket.create_server(("127.0.0.1", 0), backlog=backlog)
            self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        elif kind == "udp":
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.socket.bind(("127.0.0.1", 0))
            self.url = f"udp://127.0.0.1:{self.socket.getsockname()[1]}"
        else:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM if kind == "unixgram" else socket.SOCK_STREAM)
            path = str(folder / f"{kind}.sock")
            self.socket.bind(path)
            self.url = f"{kind}://{path}"
            if kind == "unix":
                self.socket.listen(backlog)
        self.thread = None
        if not hangs:
            self.socket.settimeout(0.2)
            self.thread = threading.Thread(target=self.datagrams if kind in ("udp", "unixgram") else self.streams)
            self.thread.start()

    def take(self, message):
        with self.news:
            self.received.append(message)
            self.news.notify_all()

    def datagrams(self):
        while not self.stopping:
            with contextlib.suppress(TimeoutError):
                self.take(self.socket.recv(1 << 20))

    def streams(self):
        while not self.stopping:
            with contextlib.suppress(TimeoutError):
                connection, _ = self.socket.accept()
                with connection:
                    connection.settimeout(10)
                    parts = []
                    while part := connection.recv(1 << 16):
                        parts.append(part)
                    self.take(b"".join(parts))

    def wait(self, count=1):
        with self.news:
            assert self.news.wait_for(lambda: len(self.received) >= count, 20), self.received
            return self.received

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stopping = True
        if self.thread is not None:
            self.thread.join()
        self.socket.close()


DELIVER = """
    $body = str_repeat('x', $data['size']);
    $times = $results = [];
    for ($i = 0; $i < $data['times']; $i++) {
        $t = hrtime(true);
        $results[] = Otelwp\\Endpoint::parse($data['url'])->deliver($body);
        $times[] = (hrtime(true) - $t) / 1e6;
    }
    return [$results, $times, error_get_last()];
"""


def deliver(php, url, *, size=MESSAGE, times=1):
    results, taken, error = php(DELIVER, {"url": url, "size": size, "times": times})
    assert error is None, "other shutdown functions would take this for the page's error"
    return results, taken


@pytest.mark.parametrize("kind", ["unixgram", "unix", "udp", "http"])
def test_a_message_arrives_as_it_is(php, short, kind):
    with Peer(kind, short) as peer:
        assert deliver(php, peer.url)[0] == [""]
        (message,) = peer.wait()
    if kind in ("unix", "http"):
        head, message = message.split(b"\r\n\r\n", 1)
        lines = head.decode().split("\r\n")
        assert lines[0] == "POST /v1/traces HTTP/1.1"
        assert {
            "Content-Type: application/x-protobuf",
            f"Content-Length: {MESSAGE}",
            "Connection: close",
            "User-Agent: otelwp/0.0.0",
        } <= set(lines)
    assert message == b"x" * MESSAGE


def dead(kind, folder):
    with Peer(kind, folder, hangs=True) as peer:
        return peer.url  # A unix socket leaves its file behind.


@pytest.mark.parametrize("kind", ["unixgram", "unix", "http"])
def test_nobody_there_is_told_at_once(php, short, kind):
    results, times = deliver(php, dead(kind, short), times=50)
    assert set(results) == {"connection refused"}
    assert statistics.median(times) < LIMIT


@pytest.mark.parametrize("kind", ["unixgram", "unix", "http"])
def test_an_agent_that_hangs_holds_nobody_up(php, short, kind):
    """It takes until its queue is full; from then on that is told at once."""
    with Peer(kind, short, hangs=True, backlog=8) as peer:
        results, times = deliver(php, peer.url, times=200)
    assert results[0] == ""
    assert results[-1] == "its queue is full"
    assert statistics.median(times) < LIMIT
    assert sorted(times)[int(len(times) * 0.99) - 1] < 20 * LIMIT  # One in a hundred may meet a busy machine.


@pytest.mark.parametrize(("kind", "size"), [("unixgram", 210_000), ("udp", 65_508), ("unix", 2_000_000)])
def test_what_fits_into_no_buffer_is_told_from_an_agent_that_fails(php, short, kind, size):
    with Peer(kind, short, hangs=True) as peer:
        results, _ = deliver(php, peer.url, size=size)
    assert results == ["too large"]


@pytest.mark.parametrize("kind", ["unixgram", "unix", "http"])
def test_site_health_asks_whether_somebody_listens_and_sends_nothing(php, short, kind):
    probe = "return array_map(static function ($url) { return Otelwp\\Endpoint::parse($url)->probe(); }, $data);"
    with Peer(kind, short) as peer:
        assert php(probe, [peer.url, f"unix://{short}/absent.sock"]) == ["", "the socket does not exist"]
        if kind != "unixgram":
            assert peer.wait() == [b""]
    assert php(probe, [peer.url]) == ["connection refused"]
    assert b"".join(peer.received) == b""


def mapped(url):
    """Write a loopback address so that it does not look like one: for the plugin, another host."""
    return url.replace("127.0.0.1", "[::ffff:127.0.0.1]")


def test_another_host_has_time_to_take_the_connection(php, short):
    with Peer("http", short) as peer:
        assert deliver(php, mapped(peer.url))[0] == [""]
        assert peer.wait()[0].endswith(b"x" * MESSAGE)


def test_another_host_that_hangs_costs_50_ms_at_most(php, short):
    with Peer("http", short, hangs=True, backlog=1) as peer:
        results, times = deliver(php, mapped(peer.url), times=6)
    assert results[-1] == "connecting takes too long"
    assert 45 < times[-1] < 500


SEND = """
    $sender = new Otelwp\\Sender($data['endpoints'], new Otelwp\\Breaker());
    return [$sender->send('{}'), $sender->problems];
"""


def test_endpoints_are_tried_in_their_order(php, short):
    with Peer("unix", short) as second, Peer("unixgram", short) as first:
        absent = f"unix://{short}/absent.sock"
        taken, problems = php(SEND, {"endpoints": [absent, first.url, second.url]})
        assert (taken, problems) == (first.url, {absent: "the socket does not exist"})
        assert first.wait() == [b"{}"]
        assert second.received == []


def test_what_is_too_large_for_one_goes_to_the_next_and_breaks_nothing(php, short):
    with Peer("unix", short) as second, Peer("unixgram", short, hangs=True) as first:
        taken, problems, failing = php(
            """
            $breaker = new Otelwp\\Breaker(); $sender = new Otelwp\\Sender($data, $breaker);
            return [$sender->send(str_repeat('x', 205000)), $sender->problems, $breaker->failing()];
            """,
            [first.url, second.url],
        )
        second.wait()
    assert (taken, problems, failing) == (second.url, {first.url: "too large"}, [])


def test_an_agent_that_is_busy_for_a_moment_is_not_left_alone_for_a_minute(php, short):
    with Peer("unix", short) as second, Peer("unixgram", short, hangs=True) as first:
        taken, failing, after = php(
            """
            $breaker = new Otelwp\\Breaker(); $sender = new Otelwp\\Sender($data, $breaker);
            do { $taken = $sender->send('{}'); } while ($taken === $data[0]);
            return [$taken, $breaker->failing(), $sender->problems];
            """,
            [first.url, second.url],
        )
        second.wait()
    assert (taken, failing, after) == (second.url, [], {first.url: "its queue is full"})


def test_a_dead_agent_costs_one_attempt_a_minute(php, short):
    url = dead("unix", short)
    outcomes, since, writes = php(
        """
        $outcomes = [];
        foreach ([0, 0, 61, 0] as $passed) {
            $known = $GLOBALS['transients']['otelwp_breaker'] ?? [];
            foreach ($known as $key => $entry) {  // A minute goes by.
                $known[$key]['until'] -= $passed;
                $GLOBALS['transients']['otelwp_breaker'] = $known;
            }
            $sender = new Otelwp\\Sender([$data], new Otelwp\\Breaker());
            $sender->send('{}');
            $outcomes[] = $sender->problems[$data];
        }
        $known = $GLOBALS['transients']['otelwp_breaker'];
        return [$outcomes, $known[$data]['since'] <= time(), $GLOBALS['writes']];
        """,
        url,
    )
    left_alone = "skipped, because it failed less than a minute ago"
    assert outcomes == ["connection refused", left_alone, "connection refused", left_alone]
    assert since is True
    assert writes == 3, "the row is made, then the transient is written once a minute"


def test_an_agent_that_comes_back_is_used_again(php, short):
    with Peer("unix", short) as peer:
        taken, after = php(
            """
            $failed = ['until' => time() - 1, 'since' => 1, 'why' => 'refused'];
            $GLOBALS['transients']['otelwp_breaker'] = [$data => $failed];
            $sender = new Otelwp\\Sender([$data], new Otelwp\\Breaker());
            return [$sender->send('{}'), $GLOBALS['transients']['otelwp_breaker']];
            """,
            peer.url,
        )
        peer.wait()
    assert (taken, after) == (peer.url, [])


def test_other_error_handlers_hear_nothing(php, short):
    heard = php(
        """
        $heard = [];
        set_error_handler(function ($level, $message) use (&$heard) { $heard[] = $message; return true; });
        Otelwp\\Endpoint::parse($data)->deliver('{}');
        $last = set_error_handler(null);
        return [$heard, $last instanceof Closure];
        """,
        dead("unix", short),
    )
    assert heard == [[], True]


AGENT = """
receivers:
  otlp:
    protocols:
      http:
        endpoint: unix://{socket}
exporters:
  file:
    path: {out}
service:
  pipelines:
    traces: {{receivers: [otlp], exporters: [file]}}
"""


def test_the_agent_takes_what_is_written_and_left(php, short):
    """We are gone before the agent has answered; it must have taken the request all the same."""
    path, out = short / "otlp.sock", short / "out.jsonl"
    with Agent(AGENT.format(socket=path, out=out), short, metrics=True) as agent:
        names = php(
            """
            $names = [];
            for ($i = 0; $i < 50; $i++) {
                $trace = new Otelwp\\Trace(Otelwp\\Trace_Context::from_headers(''), 9);
                $trace->open("GET $i", 2);
                $trace->complete();
                $sender = new Otelwp\\Sender([$data], new Otelwp\\Breaker());
                $names[] = $sender->send(Otelwp\\Otlp::encode($trace, ['service.name' => 'shop'], ''));
            }
            return $names;
            """,
            f"unix://{path}",
        )
        assert names == [f"unix://{path}"] * 50
        agent.wait_for_metric("otelcol_receiver_accepted_spans", 50, receiver="otlp")
        assert agent.stop() == 0
    spans = [
        span["name"]
        for line in out.read_text("utf-8").splitlines()
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    assert sorted(spans) == sorted(f"GET {i}" for i in range(50))


ASK = """
    return Otelwp\\Agent_Client::parse($data);
"""


def test_addresses_of_the_agent(php):
    assert php(ASK, "http://127.0.0.1:13133") == {
        "socket": "tcp://127.0.0.1:13133",
        "host": "127.0.0.1:13133",
        "path": "",
    }
    assert php(ASK, "http://agent/base/")["path"] == "/base"
    assert php(ASK, "unix:///run/otelwp/health.sock")["socket"] == "unix:///run/otelwp/health.sock"
    assert php(ASK, "https://agent/base")["socket"] == "ssl://agent:443"
    for wrong in ("ftp://agent", "agent:13133", "http://a b", "unix://x", ""):
        assert php(ASK, wrong) is None
