"""Convert the JSON that is posted to the paths of OTLP: OTLP's own, and Jaeger's for traces.

WordPress plugins post Jaeger's JSON (`{"data": [{"traceID", "spans": […]}]}`) to `/v1/traces` of a managed collector,
where OTLP has `{"resourceSpans": […]}`. The shape of the body decides: both have the content type `application/json`.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, TypeVar

from otelwp_agent.codecs.repairs import Repairs
from otelwp_agent.model.signal import Signal
from otelwp_agent.transport.decoding import is_long_json

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    import structlog

    from otelwp_agent.codecs.jaeger.receiving import Traces
    from otelwp_agent.model.stepwise_checking import StepwiseChecker
    from otelwp_agent.telemetry.metrics import Registry
    from otelwp_agent.transport.decoding import Decoding, Steps

    Deliver = Callable[[bytes, int | None], "Answer | asyncio.Future[Answer]"]
    """Forwards a request in protobuf with the number of its items, `None` if they are not counted yet."""

Answer = TypeVar("Answer")

_FIRST_KEY = re.compile(rb'(?:\xef\xbb\xbf)?\s*\{\s*"(\w*)"\s*:\s*(.)', re.DOTALL)
_OTLP_KEYS = (b'"resourceSpans"', b'"resource_spans"')


def is_jaeger(body: bytes) -> bool:
    """Return whether a JSON body with traces is an object with Jaeger's `data`, and has nothing of OTLP."""
    first = _FIRST_KEY.match(body)
    if first is None:
        return False
    if first[1] == b"data" and first[2] == b"[":
        return True
    return b'"data"' in body and not any(key in body for key in _OTLP_KEYS)


class JsonBodies:
    """Converts the JSON bodies of one receiver."""

    def __init__(
        self, receiver: str, max_items: int, log: structlog.typing.FilteringBoundLogger, registry: Registry
    ) -> None:
        """Refuse bodies with more than `max_items` items; count repairs of Jaeger's JSON for `receiver`."""
        self._max_items = max_items
        self._repairs = Repairs(receiver, log, registry)

    def read(  # noqa: PLR0913 - a body, and what is to be done with it
        self,
        signal: Signal,
        body: bytes,
        *,
        user_agent: str,
        stepwise: StepwiseChecker,
        decoding: Decoding[Answer],
        deliver: Deliver[Answer],
    ) -> Answer | asyncio.Future[Answer]:
        """Convert the body to protobuf and deliver it; what takes long is converted and checked in a thread."""
        if signal is Signal.TRACES and is_jaeger(body):
            return self._read_jaeger(body, user_agent, decoding, deliver)
        from otelwp_agent.codecs.otlp_json import decode  # noqa: PLC0415 - the full messages are needed only for JSON

        if not is_long_json(body):
            return deliver(decode(signal, body, self._max_items), None)

        def steps() -> Steps:
            converted = decode(signal, body, self._max_items)
            yield
            items = (yield from stepwise.steps(converted)) if len(converted) >= stepwise.large else None
            return converted, items

        return decoding.run(steps(), len(body), lambda decoded: deliver(*decoded), in_thread=True)

    def _read_jaeger(
        self, body: bytes, user_agent: str, decoding: Decoding[Answer], deliver: Deliver[Answer]
    ) -> Answer | asyncio.Future[Answer]:
        from otelwp_agent.codecs.jaeger import from_json  # noqa: PLC0415 - only for senders of Jaeger's JSON

        def accept(traces: Traces, converted: bytes) -> Answer | asyncio.Future[Answer]:
            answer = deliver(converted, traces.spans)
            if traces.repairs:
                self._repairs.add(traces, user_agent)
            return answer

        if not is_long_json(body):
            traces = from_json.decode(body, time.time_ns(), self._max_items)
            return accept(traces, traces.body())

        def steps() -> Steps:
            traces = yield from from_json.decoding(body, time.time_ns(), self._max_items)
            return traces, traces.body()

        return decoding.run(steps(), len(body), lambda decoded: accept(*decoded), in_thread=True)
