"""Feed any bytes to the OTLP/JSON codec and the projections: they may raise only MalformedError.

In addition, all of them must agree: the check in steps has the verdict of the check in one call; decoded JSON is a
valid request; and a request that is completely valid passes the check, is split without losing an item, and is the same
after conversion to JSON and back.

`python benchmarks/fuzz/fuzz_codecs.py --seconds 10 --seed 1`
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from fuzzing import main  # noqa: E402 - beside this file
from google.protobuf.message import DecodeError  # noqa: E402

from otelwp_agent.codecs.otlp_json import decode, encode  # noqa: E402
from otelwp_agent.errors import MalformedError  # noqa: E402
from otelwp_agent.model.batch import Batch, Origin  # noqa: E402
from otelwp_agent.model.messages import request_class  # noqa: E402
from otelwp_agent.model.projections import check, count, split_bytes, split_items  # noqa: E402
from otelwp_agent.model.receipt import Outcome, Receipt  # noqa: E402
from otelwp_agent.model.signal import Signal  # noqa: E402
from tests.kit.checking import same_verdict  # noqa: E402
from tests.kit.otlp import Maker  # noqa: E402
from tests.kit.otlp_json import same_as_python  # noqa: E402

CAPTURES = ROOT / "tests/data/captures"
MADE = 60
"""Number of generated requests of each signal in the corpus, in addition to the captures."""


def codecs(data: bytes) -> None:
    """Process `data` as JSON or as protobuf, as a request of each signal."""
    for signal in Signal:
        if data[:1] in {b"{", b"["}:
            as_json(signal, data)
        else:
            as_wire(signal, data)


def as_json(signal: Signal, data: bytes) -> None:
    """Decode JSON; the result must be that of the Python code, valid, and the same after encoding and decoding."""
    same_as_python(signal, data)
    try:
        body = decode(signal, data)
    except MalformedError:
        return
    request_class(signal).FromString(body)
    as_wire(signal, body)
    text = encode(signal, body)
    assert encode(signal, decode(signal, text)) == text


def as_wire(signal: Signal, body: bytes) -> None:
    """Check, count, split and encode. Each may refuse `body`, unless protobuf can parse all of it."""
    good = parses(signal, body)
    same_verdict(signal, body)
    try:
        encode(signal, body)
    except MalformedError:
        assert not good
    try:
        items = check(signal, body)
    except MalformedError:
        assert not good
        return
    assert items == count(signal, body)
    for split, size in ((split_items, 2), (split_bytes, max(1, len(body) // 3))):
        receipt = Receipt(items)
        batch = Batch(signal, body, items, Origin(), [(receipt, items)] if items else [])
        parts = split(batch, size)
        assert [count(signal, part.body) for part in parts] == [part.items for part in parts]
        for part in parts:
            assert parses(signal, part.body) or not good
            part.settle(Outcome.DELIVERED)
        assert receipt.pending == 0


def parses(signal: Signal, body: bytes) -> bool:
    """Return whether protobuf can parse all of `body`."""
    try:
        request_class(signal).FromString(body)
    except DecodeError:
        return False
    return True


def corpus() -> list[bytes]:
    """Return requests of every signal in both formats, generated and captured from real senders."""
    bodies = [path.read_bytes() for path in sorted(CAPTURES.glob("*.*")) if path.suffix in {".json", ".pb"}]
    for seed in range(MADE):
        for signal in Signal:
            body = Maker(random.Random(seed), breadth=1 + seed % 3, repeats=True).request(signal)
            bodies += [body, encode(signal, body)]
    return bodies


if __name__ == "__main__":
    sys.exit(main(codecs, corpus(), __doc__))
