"""Feed any bytes to the HTTP server of the `otlp` receiver, over loopback.

For any input: no handler fails, nothing is raised in the event loop, every accepted batch contains the number of items
that it states, and a valid request is accepted afterwards. `python benchmarks/fuzz/fuzz_front.py --seconds 10 --seed 1`
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import structlog  # noqa: E402
import uvloop  # noqa: E402
from fuzzing import main  # noqa: E402 - beside this file

from otelwp_agent.cli.generate.sample import Sample  # noqa: E402
from otelwp_agent.codecs import otlp_json  # noqa: E402
from otelwp_agent.component import ComponentId, Context, Kind  # noqa: E402
from otelwp_agent.model.projections import count  # noqa: E402
from otelwp_agent.model.receipt import Outcome  # noqa: E402
from otelwp_agent.model.signal import Signal  # noqa: E402
from otelwp_agent.receivers import otlp  # noqa: E402
from otelwp_agent.telemetry.metrics import Registry  # noqa: E402
from otelwp_agent.transport.compression import compress  # noqa: E402

if TYPE_CHECKING:
    from otelwp_agent.component import Receiver
    from otelwp_agent.model.batch import Batch

ENCODINGS = ("", "gzip", "zstd", "deflate")
ODD_HEADERS = (
    "Transfer-Encoding: chunked", "Content-Length: -1", "Content-Length: 18446744073709551616", "Content-Length: 5",
    "Expect: 100-continue", "Content-Encoding: gzip", "Connection: close", "Content-Encoding: br", "A: " + "a" * 9000,
)  # fmt: skip
PATIENCE = 0.02
"""Seconds to wait for an answer to an invalid request; most get none, because they are incomplete."""
GOOD_PATIENCE = 5.0


class Sink:
    """The end of the pipeline: checks the item counts of batches and settles them."""

    def __init__(self, wrong: list[str]) -> None:
        """Add problems to `wrong`."""
        self.wrong = wrong

    def admit(self) -> None:
        """Accept every batch."""

    def consume(self, batch: Batch, answer: object = None, rejected: object = None) -> None:  # noqa: ARG002 - an entry's
        """Check and settle a batch."""
        if count(batch.signal, batch.body) != batch.items:
            self.wrong.append("a batch contains another number of items than it states")
        batch.settle(Outcome.DELIVERED)


class NoHost:
    """A service that runs only the receiver."""

    ready = True
    status: Literal["ready"] = "ready"
    started_at = 0.0

    def components(self) -> tuple[()]:
        """Return no components."""
        return ()

    def providers(self, _capability: type) -> tuple[()]:
        """Return no providers."""
        return ()


class Front:
    """A receiver on a free port, and the problems found."""

    def __init__(self) -> None:
        """Start the receiver."""
        self.wrong: list[str] = []
        self.loop = uvloop.new_event_loop()
        self.loop.set_exception_handler(lambda _loop, problem: self.wrong.append(str(problem)))
        quiet = structlog.wrap_logger(None, wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        context = Context(ComponentId("otlp"), Kind.RECEIVER, Registry(), quiet, time.monotonic, NoHost())
        settings = {"protocols": {"http": {"endpoint": "127.0.0.1:0", "max_request_body_size": "256KiB"}}}
        config = otlp.Config.model_validate(settings)
        self.receiver = cast("Receiver", otlp.FACTORY.build(config, context))
        self.receiver.next = dict.fromkeys(Signal, Sink(self.wrong))
        self.loop.run_until_complete(self.receiver.start())
        self.port = int(self.receiver.endpoints()["http"].rpartition(":")[2])
        self.good = corpus()[0]

    def close(self) -> None:
        """Stop listening."""
        self.loop.run_until_complete(self.receiver.shutdown())
        self.loop.close()

    def front(self, data: bytes) -> None:
        """Send `data`, then a valid request on another connection."""
        self.loop.run_until_complete(self._throw(data))
        answer = self.loop.run_until_complete(self._send([self.good], GOOD_PATIENCE, until=b"\r\n"))
        assert b" 200 " in answer, f"a good request was answered {answer!r}"
        assert not self.wrong, self.wrong[0]

    async def _throw(self, data: bytes) -> None:
        chance = random.Random(data)
        cut = chance.randrange(len(data) + 1)
        answer = await self._send([data[:cut], data[cut:]], PATIENCE, hang_up=chance.random() < 0.5)
        assert b"HTTP/1.1 500 " not in answer, answer

    async def _send(
        self, pieces: list[bytes], patience: float, *, until: bytes | None = None, hang_up: bool = False
    ) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        answer = b""
        try:
            async with asyncio.timeout(patience):
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                if hang_up:
                    writer.write_eof()
                while (until is None or until not in answer) and (more := await reader.read(65536)):
                    answer += more
        except (TimeoutError, OSError):
            pass
        finally:
            writer.close()
        return answer


def corpus() -> list[bytes]:
    """Return requests: valid ones first, then some with unusual headers."""
    sample = Sample(seed=1, errors=0.5)
    good = []
    for signal in Signal:
        wire = sample.make(signal, 2, 1_700_000_000_000_000_000)
        for media, body in (("x-protobuf", wire), ("json", otlp_json.encode(signal, wire))):
            for encoding in ENCODINGS:
                payload = compress(encoding, body)
                head = f"POST /v1/{signal.value} HTTP/1.1\r\nHost: a\r\nContent-Type: application/{media}\r\n"
                if encoding:
                    head += f"Content-Encoding: {encoding}\r\n"
                plain = f"{head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload
                chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n{len(payload):x}\r\n".encode() + payload
                good += [plain, plain + plain, chunked + b"\r\n0\r\n\r\n"]
    odd = [good[0].replace(b"Host: a\r\n", f"Host: a\r\n{header}\r\n".encode(), 1) for header in ODD_HEADERS]
    return good + odd


if __name__ == "__main__":
    front = Front()
    try:
        status = main(front.front, corpus(), __doc__)
    finally:
        front.close()
    sys.exit(status)
