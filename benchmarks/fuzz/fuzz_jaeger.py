"""Feed any bytes to Jaeger's codecs: JSON, Thrift and protobuf may raise only MalformedError.

A decoded body is a valid request with the number of spans that the codec reports; it can be written as Thrift and as
protobuf and read again without losing a span. JSON is read twice, and once more without the learned layouts: the result
must be the same.

`python benchmarks/fuzz/fuzz_jaeger.py --seconds 10 --seed 1`
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import orjson  # noqa: E402 - what is above
from fuzzing import main  # noqa: E402 - beside this file

from otelwp_agent.codecs.jaeger import from_json, from_proto, from_thrift, layouts, to_proto, to_thrift  # noqa: E402
from otelwp_agent.errors import MalformedError  # noqa: E402
from otelwp_agent.model.messages import request_class  # noqa: E402
from otelwp_agent.model.projections import count  # noqa: E402
from otelwp_agent.model.signal import Signal  # noqa: E402
from tests.kit.jaeger import span, trace  # noqa: E402
from tests.kit.otlp import Maker  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.codecs.jaeger.receiving import Traces

CAPTURES = ROOT / "tests/data/captures/jaeger"
NOW = 1_795_186_135_000_000_000
MADE = 40
"""Number of generated requests in the corpus, in each format, in addition to the captures."""


def jaeger(data: bytes) -> None:
    """Read `data` as JSON, Thrift and protobuf; write every result again."""
    first = decoded(from_json.decode, data, NOW)
    assert decoded(from_json.decode, data, NOW) == first
    known, layouts._layouts[:] = layouts._layouts[:], []  # noqa: SLF001 - so that the JSON parser reads it
    assert decoded(from_json.decode, data, NOW) == first
    layouts._layouts[:] = known  # noqa: SLF001
    for outcome in (first, decoded(from_thrift.decode, data), decoded(from_proto.decode, data)):
        if isinstance(outcome, tuple):
            written(*outcome[:2])


def decoded(decode: Callable[..., Traces], *arguments: object) -> tuple[bytes, int, dict[str, int]] | str:
    """Return a request, its spans and its repairs, or the reason why it was refused."""
    try:
        traces = decode(*arguments)
    except MalformedError as error:
        return str(error)
    return traces.body(), traces.spans, traces.repairs


def written(body: bytes, spans: int) -> None:
    """Check that a request is valid, and that no format loses a span of it."""
    request_class(Signal.TRACES).FromString(body)
    assert count(Signal.TRACES, body) == spans
    if spans:
        assert from_proto.decode(to_proto.encode(body)).spans == spans
        assert sum(from_thrift.decode(batch).spans for batch in to_thrift.encode(body)) == spans


def corpus() -> list[bytes]:
    """Return captures, regular documents, and generated requests in Jaeger's formats."""
    bodies = [path.read_bytes() for path in sorted(CAPTURES.glob("*.*")) if path.suffix in {".json", ".thrift"}]
    for seed in range(MADE):
        body = Maker(random.Random(seed), breadth=1 + seed % 3, repeats=True).request(Signal.TRACES)
        bodies += [to_proto.encode(body), *to_thrift.encode(body)]
        tags = [{"key": f"k{key}", "type": "string", "value": f"v{seed % 3}"} for key in range(seed % 5)]
        bodies.append(
            orjson.dumps(trace(*[span(spanID=f"{number + 1:016x}", tags=tags) for number in range(1 + seed % 4)]))
        )
    return [body for body in bodies if body]


if __name__ == "__main__":
    sys.exit(main(jaeger, corpus(), __doc__))
