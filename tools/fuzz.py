"""Throw broken input at what reads a stranger's bytes, and fail when it does anything but refuse.

Four targets: `front` (raw bytes to the `otlp` receiver's HTTP server over loopback), `json` (the OTLP/JSON codec),
`wire` (projections: check, split by items and by bytes) and `inflate` (decompression). Inputs are good ones with bytes
flipped, cut, repeated, and pieces of others put in. What is found is written to a file, and told with the seed that
makes it again. Run by `make fuzz`, for `--seconds` each; a test runs a few inputs of each.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import structlog
import uvloop

from otelwp_agent.component import ComponentId, Context, Kind
from otelwp_agent.errors import ConsumeError, MalformedError
from otelwp_agent.model import otlp_json
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.projections import check, count, split_bytes, split_items
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.model.sample import Sample
from otelwp_agent.model.signal import Signal
from otelwp_agent.receivers import otlp
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.transport.compression import compress, decompress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from otelwp_agent.component import Receiver

SLOW_SECONDS = 5.0
"""An input of a few kilobytes that takes longer has found something."""

INFLATE_LIMIT = 64 * 1024
CASES_A_PROBE = 20
SPLIT_ITEMS, SPLIT_BYTES = 3, 400
ENCODINGS = ("gzip", "zstd", "deflate", "zlib")
MAX_EDITS = 8

PIECES = (
    b"\r\n", b"\r\n\r\n", b"\n", b"\0", b"\xff" * 10, b"Transfer-Encoding: chunked\r\n", b"Content-Length: -1\r\n",
    b"Content-Length: 18446744073709551616\r\n", b"Expect: 100-continue\r\n", b"Content-Encoding: gzip\r\n",
    b"FFFFFFFFFFFFFFFFF\r\n", b"0\r\n\r\n", b"[" * 500, b'{"a":' * 200, b"1e999", b'"\\ud800"', b"null", b"-0", b"{}",
)  # fmt: skip


class FoundError(Exception):
    """Something did what it must not."""


def mutate(chance: random.Random, good: Sequence[bytes]) -> bytes:
    """Return one of `good` after a few edits."""
    data = bytearray(chance.choice(good))
    for _ in range(chance.randint(1, MAX_EDITS)):
        at = chance.randrange(len(data) + 1)
        to = min(len(data), at + chance.randint(1, 16))
        match chance.randrange(6):
            case 0 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                del data[at:to]
            case 2:
                data[at:at] = chance.choice(PIECES)
            case 3:
                data[at:at] = data[at:to] * chance.randint(1, 20)
            case 4:
                other = chance.choice(good)
                data[at:] = other[chance.randrange(len(other)) :]
            case _:
                data[at:to] = chance.randbytes(to - at)
    return bytes(data)


def good_bodies() -> dict[Signal, bytes]:
    """Return a request of each signal."""
    sample = Sample(seed=1, errors=0.5)
    return {signal: sample.make(signal, 3, 1_700_000_000_000_000_000) for signal in Signal}


def try_json(signal: Signal, data: bytes) -> None:
    """Decode; what decodes must be a request, and must come back the same from JSON."""
    try:
        wire = otlp_json.decode(signal, data)
    except MalformedError:
        return
    check(signal, wire)
    again = otlp_json.decode(signal, otlp_json.encode(signal, wire))
    if otlp_json.encode(signal, again) != otlp_json.encode(signal, wire):
        raise FoundError("JSON → wire → JSON → wire changes it")


def try_wire(signal: Signal, data: bytes) -> None:
    """Check; what passes must be divisible without losing an item."""
    try:
        items = check(signal, data)
    except MalformedError:
        return
    for cut, size in ((split_items, SPLIT_ITEMS), (split_bytes, SPLIT_BYTES)):
        receipt = Receipt(items)
        batch = Batch(signal, data, items, Origin(), [(receipt, items)] if items else [])
        parts = cut(batch, size)
        if [count(signal, part.body) for part in parts] != [part.items for part in parts]:
            raise FoundError(f"{cut.__name__}: parts do not hold what they say")
        for part in parts:
            part.settle(Outcome.DELIVERED)
        if receipt.pending:
            raise FoundError(f"{cut.__name__}: {receipt.pending} of {items} items are gone")


def try_inflate(encoding: str, data: bytes) -> None:
    """Decompress; no more than the limit may come out."""
    try:
        out = decompress(encoding, data, INFLATE_LIMIT)
    except ConsumeError:
        return
    if len(out) > INFLATE_LIMIT:
        raise FoundError(f"{encoding}: {len(out)} bytes came out, above the limit of {INFLATE_LIMIT}")


class Sink:
    """What stands behind the receiver: takes batches that must be what they say, and settles them."""

    def __init__(self, wrong: list[str]) -> None:
        """Note in `wrong` what is not as it must be."""
        self.wrong = wrong

    def admit(self) -> None:
        """Have room."""

    def consume(self, batch: Batch) -> None:
        """Take a batch."""
        if count(batch.signal, batch.body) != batch.items:
            self.wrong.append("a batch does not hold what it says")
        batch.settle(Outcome.DELIVERED)


class NoHost:
    """A service that runs the receiver alone."""

    ready = True
    status: Literal["ready"] = "ready"
    started_at = 0.0

    def components(self) -> tuple[()]:
        """Tell nothing."""
        return ()


class Front:
    """A receiver on a free port, and what goes wrong in its event loop."""

    def __init__(self) -> None:
        """Build it; `start` opens the port."""
        quiet = structlog.wrap_logger(None, wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        settings = {"protocols": {"http": {"endpoint": "127.0.0.1:0", "max_request_body_size": "256KiB"}}}
        context = Context(ComponentId("otlp"), Kind.RECEIVER, Registry(), quiet, time.monotonic, NoHost())
        self.wrong: list[str] = []
        self.receiver = cast("Receiver", otlp.FACTORY.build(otlp.Config.model_validate(settings), context))
        self.receiver.next = dict.fromkeys(Signal, Sink(self.wrong))
        self.port = 0

    async def start(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, told: self.wrong.append(str(told)))
        await self.receiver.start()
        self.port = int(self.receiver.endpoints()["http"].rpartition(":")[2].split("/")[0])

    async def throw(self, data: bytes, chance: random.Random) -> None:
        """Send bytes in pieces, read what comes, hang up."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            cut = chance.randrange(len(data) + 1)
            for piece in (data[:cut], data[cut:]):
                writer.write(piece)
                await writer.drain()
            if chance.random() < 0.5:  # noqa: PLR2004 - a coin
                writer.write_eof()
            async with asyncio.timeout(0.05):
                answer = b""
                while piece := await reader.read(65536):
                    answer += piece
                    if b"HTTP/1.1 500" in answer:
                        self.wrong.append(answer.decode("latin-1"))
        except (TimeoutError, OSError):
            pass
        finally:
            writer.close()

    async def probe(self, good: bytes) -> None:
        """Fail unless a good request is still taken."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(good)
        async with asyncio.timeout(SLOW_SECONDS):
            line = await reader.readline()
        writer.close()
        if b" 200 " not in line:
            raise FoundError(f"a good request was answered {line!r}")
        if self.wrong:
            raise FoundError(f"the event loop or a handler says: {self.wrong[0]}")


def http_requests() -> list[bytes]:
    """Return good requests; the first is the one that probes."""
    found = []
    for signal, body in good_bodies().items():
        for media, data in (("x-protobuf", body), ("json", otlp_json.encode(signal, body))):
            for encoding in ("", *ENCODINGS):
                payload = compress(encoding, data)
                head = f"POST /v1/{signal.value} HTTP/1.1\r\nHost: a\r\nContent-Type: application/{media}\r\n"
                if encoding:
                    head += f"Content-Encoding: {encoding}\r\n"
                plain = f"{head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload
                chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n{len(payload):x}\r\n".encode() + payload
                found += [plain, plain + plain, chunked + b"\r\n0\r\n\r\n"]
    return found


async def fuzz_front(chance: random.Random, more: Iterator[int]) -> int:
    """Fuzz the HTTP front; return how many inputs it got."""
    good = http_requests()
    front = Front()
    await front.start()
    done = 0
    recent: list[bytes] = []
    try:
        for done in more:
            recent = [*recent[1 - CASES_A_PROBE :], mutate(chance, good)]
            await front.throw(recent[-1], chance)
            if done % CASES_A_PROBE == 0:
                await front.probe(good[0])
        await front.probe(good[0])
    except Exception as error:
        keep("front", b"\n--8<--\n".join(recent), error)
        raise
    finally:
        await front.receiver.shutdown()
    return done


def fuzz_codec(
    name: str, trial: Callable[[Any, bytes], None], good: Mapping[Any, Sequence[bytes]], chance: random.Random,
    more: Iterator[int],
) -> int:  # fmt: skip
    """Fuzz a function of a kind and bytes; return how many inputs it got."""
    done = 0
    for done in more:  # noqa: B007 - the last one is the answer
        kind = chance.choice(list(good))
        data = mutate(chance, good[kind])
        began = time.monotonic()
        try:
            trial(kind, data)
            in_time(time.monotonic() - began)
        except Exception as error:
            keep(name, data, error)
            raise
    return done


def in_time(took: float) -> None:
    """Fail if an input took too long."""
    if took > SLOW_SECONDS:
        raise FoundError(f"took {took:.1f} s")


def keep(name: str, data: bytes, error: Exception) -> None:
    """Write what was found to a file."""
    path = Path(f"fuzz-{name}.bin")
    path.write_bytes(data)
    print(f"{name}: {type(error).__name__}: {error}\nthe input is in {path}", file=sys.stderr)


def run(name: str, seed: int, more: Iterator[int]) -> int:
    """Run one target while `more` gives numbers; return how many inputs it got."""
    chance = random.Random(seed)  # noqa: S311 - must be the same for the same seed
    bodies = good_bodies()
    if name == "front":
        return uvloop.run(fuzz_front(chance, more))
    if name == "json":
        texts = {signal: [otlp_json.encode(signal, body)] for signal, body in bodies.items()}
        return fuzz_codec(name, try_json, texts, chance, more)
    if name == "wire":
        return fuzz_codec(name, try_wire, {signal: [body] for signal, body in bodies.items()}, chance, more)
    packed = {encoding: [compress(encoding, body) for body in bodies.values()] for encoding in ENCODINGS}
    return fuzz_codec(name, try_inflate, packed, chance, more)


def until(seconds: float) -> Iterator[int]:
    """Count from 1 for so long."""
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        number += 1
        yield number


TARGETS = ("front", "json", "wire", "inflate")


def main() -> int:
    """Run the targets one after the other."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=15, help="for each target (15)")
    options.add_argument("--seed", type=int, default=None, help="to make the same inputs again")
    options.add_argument("--target", choices=TARGETS, action="append", help="one of them alone; may be repeated")
    chosen = options.parse_args()
    seed = random.SystemRandom().randrange(2**32) if chosen.seed is None else chosen.seed
    for name in chosen.target or TARGETS:
        try:
            done = run(name, seed, until(chosen.seconds))
        except Exception:  # noqa: BLE001 - anything at all is what we look for
            traceback.print_exc()
            print(f"make it again: make fuzz FUZZ_ARGS='--target {name} --seed {seed}'", file=sys.stderr)
            return 1
        print(f"{name}: {done} inputs, nothing found (seed {seed})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
