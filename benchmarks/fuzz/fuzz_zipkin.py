"""Feed any bytes to Zipkin's codecs: v2 JSON, v1 JSON and protobuf may raise only MalformedError.

A decoded body is a valid request with the number of spans that the codec reports; it can be written as JSON and as
protobuf and read again without losing a span. OTLP is encoded twice, by encoders with and without cached results: the
output must be the same.

`python benchmarks/fuzz/fuzz_zipkin.py --seconds 10 --seed 1`
"""

from __future__ import annotations

import contextlib
import random
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from fuzzing import main  # noqa: E402 - beside this file

from otelwp_agent.codecs.zipkin import from_json, from_proto, from_v1  # noqa: E402
from otelwp_agent.codecs.zipkin.to_json import JsonEncoder  # noqa: E402
from otelwp_agent.codecs.zipkin.to_proto import ProtoEncoder  # noqa: E402
from otelwp_agent.errors import MalformedError  # noqa: E402
from otelwp_agent.model.messages import request_class  # noqa: E402
from otelwp_agent.model.projections import count  # noqa: E402
from otelwp_agent.model.signal import Signal  # noqa: E402
from tests.kit.otlp import Maker  # noqa: E402

CAPTURES = ROOT / "tests/data/captures"
NOW = 1_795_186_135_000_000_000
MADE = 40
"""Number of generated requests in the corpus, in each format, in addition to the captures."""

_json, _proto = JsonEncoder("fuzz"), ProtoEncoder("fuzz")


def zipkin(data: bytes) -> None:
    """Read `data` in each format and as OTLP; write every result again."""
    for form in (from_json, from_v1, from_proto):
        try:
            traces = decoded(form, data)
        except MalformedError:
            continue
        body = traces.body()
        request_class(Signal.TRACES).FromString(body)
        assert count(Signal.TRACES, body) == traces.spans
        otlp(body)
    with contextlib.suppress(MalformedError):
        otlp(data)


def otlp(body: bytes) -> None:
    """Write a request in both formats, and read them again."""
    for encoder, fresh, form in (
        (_json, JsonEncoder("fuzz"), from_json),
        (_proto, ProtoEncoder("fuzz"), from_proto),
    ):
        made = encoder.encode(body)
        assert made == fresh.encode(body)
        if made.spans:
            again = decoded(form, made.body)
            assert again.spans + again.repairs.get("repeated_span", 0) == made.spans


def decoded(form: Any, data: bytes) -> Any:
    """Return the decoded contents of a body."""
    steps = form.decoding(data, NOW)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value.traces


def corpus() -> list[bytes]:
    """Return captures, and generated requests in OTLP and in Zipkin's formats."""
    bodies = [path.read_bytes() for path in sorted((CAPTURES / "zipkin").glob("*.json"))]
    bodies += [path.read_bytes() for path in sorted(CAPTURES.glob("*.pb"))]
    for seed in range(MADE):
        body = Maker(random.Random(seed), breadth=1 + seed % 3, repeats=True).request(Signal.TRACES)
        bodies += [body, JsonEncoder("fuzz").encode(body).body, ProtoEncoder("fuzz").encode(body).body]
    return [body for body in bodies if body]


if __name__ == "__main__":
    sys.exit(main(zipkin, corpus(), __doc__))
