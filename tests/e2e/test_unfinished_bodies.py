"""Bodies that never arrive whole do not use more memory than the limit, and others are still served."""

import socket
import time
from pathlib import Path

import pytest

from otelwp_agent.cli.generate.sample import Sample
from otelwp_agent.model.signal import Signal
from tests.kit.agent import PATIENCE, Agent, post

LIMIT_MIB, ALLOWANCE_MIB = 256, 64
SENDERS = 60
SIZE = 20 * 2**20
SECONDS = 2.0
"""Time for which bodies are sent after the first one was refused: the limit has been reached."""
BODY = Sample(spans_per_trace=4, seed=1).make(Signal.TRACES, 1, 1_760_000_000_000_000_000)
CONFIG = f"""
receivers: {{otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:0'}}}}}}}}
processors: {{memory_limiter: {{limit_mib: {LIMIT_MIB}}}}}
exporters: {{debug: {{}}}}
service:
  pipelines:
    traces: {{receivers: [otlp], processors: [memory_limiter], exporters: [debug]}}
"""
FRAMINGS = {
    "length": (b"Content-Length: %d\r\n\r\n" % SIZE, b""),
    "chunked": (b"Transfer-Encoding: chunked\r\n\r\n", b"%x\r\n" % (SIZE - 1)),
}


class Sender:
    """Sends all of a body but its last byte, as fast as the agent reads."""

    def __init__(self, port, framing):
        self.socket = socket.create_connection(("127.0.0.1", port))
        head, chunk = FRAMINGS[framing]
        self.socket.sendall(b"POST /v1/traces HTTP/1.1\r\nContent-Type: application/x-protobuf\r\n" + head + chunk)
        self.socket.settimeout(0)
        self.left = SIZE - 2

    def send(self, block=b"\0" * 262_144):
        """Send a block, or what the agent reads of it."""
        try:
            self.left -= self.socket.send(block[: self.left])
        except BlockingIOError:
            pass
        except OSError:
            self.left = 0

    def answer(self):
        """Return the status code of an answer that has just arrived, or nothing."""
        try:
            return self.socket.recv(4096)[9:12]  # the answer is shorter, and arrives at once
        except OSError:
            return b""


def peak_mib(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM:"))


@pytest.mark.parametrize("framing", FRAMINGS)
def test_unfinished_bodies_stay_within_the_memory_limit(tmp_path, framing):
    with Agent(CONFIG, tmp_path) as agent:
        port = agent.port()
        senders = [Sender(port, framing) for _ in range(SENDERS)]
        end, slowest, answers = time.monotonic() + PATIENCE, 0.0, []
        while time.monotonic() < end:
            for sender in senders:
                sender.send()
                if answer := sender.answer():
                    answers.append(answer)
                    end = min(end, time.monotonic() + SECONDS)
            began = time.monotonic()
            assert post(port, "/v1/traces", BODY) == 200
            slowest = max(slowest, time.monotonic() - began)
        for sender in senders:
            sender.socket.close()
        assert set(answers) == {b"503"}, "bodies that do not end are refused in favour of those that wait"
        assert slowest < 10, "a body that does not end is waited for for 30 s"
        assert peak_mib(agent.pid) < LIMIT_MIB + ALLOWANCE_MIB
        assert agent.stop() == 0
