"""Measure the cost of adaptive sampling: spans per CPU-second, and memory of waiting traces.

There are three loads with errors, latency and 1 000 active keys: requests of ten whole traces of ten spans, requests of
one whole trace of a hundred spans, and traces whose spans arrive in two requests and must wait. The last is compared
with an implementation of the same decisions that fully parses every span, as tail samplers usually do. Requests of one
trace run again with `by_trace_id`, where only the budget counts. All loads run a second time without the extension
module in C.

Run: `.venv/bin/python benchmarks/adaptive_sampling.py`. It needs no peer and takes about two minutes. Compare only
figures of one machine and one run.
"""

from __future__ import annotations

import gc
import random
import resource
import time
from typing import Any

import structlog
from fresh import Request, again, body, halves, trace, whole
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from otelwp_agent.component import ComponentId, Context, Kind
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.processors.adaptive_sampling import AdaptiveSampling, Config
from otelwp_agent.sampling import traces
from otelwp_agent.sampling.adaptive.controller import Controller
from otelwp_agent.sampling.adaptive.trace import Trace
from otelwp_agent.sampling.consistent import TraceState, randomness_of
from otelwp_agent.service.memory import release, tune
from otelwp_agent.telemetry.metrics import Registry

KEPT = 0.1
"""Share of spans that fits the budget."""
RATE = 250_000
"""Spans per second of the simulated traffic."""
WARM_UP = 10.0
"""Simulated seconds before the measurement, after which the rates match the budget."""
PASSES = 5
ROUNDS = 3
IN_FLIGHT = 100_000
"""Number of waiting traces when memory is measured."""
SETTINGS: dict[str, Any] = {
    "target": {"spans_per_second": RATE * KEPT},
    "per": ["service.name", "http.route"],
    "always_keep": {"slow": {"percentile": 99}},
    "max_bytes": "1GiB",
    "remember": 200_000,
}
SHORT = {"decision_wait": "50ms", "max_wait": "100ms"}
"""Settings with short waits, so that decisions are made all the time."""
BY_TRACE_ID: dict[str, Any] = {
    "by_trace_id": True,
    "per": [],
    "always_keep": {
        name: {"enabled": False} for name in ("errors", "slow", "first_seen", "releases", "debug")
    },
}  # fmt: skip
ORIGIN = Origin("otlp", "http")


class Clock:
    """Simulated time, advanced by the traffic."""

    now = 0.0

    def __call__(self) -> float:
        """Return it."""
        return self.now


class Sink:
    """Accepts and settles every batch."""

    spans = 0

    def consume(self, batch: Batch) -> None:
        """Count the spans."""
        self.spans += batch.items
        batch.settle(Outcome.DELIVERED)


class NoHost:
    """A host without components."""

    ready = True


def other(requests: list[Request], turn: int) -> list[tuple[bytes, int]]:
    """Return the requests with the trace ids of this turn, and their spans."""
    return [(again(request, turn), request.spans) for request in requests]


class FullParse:
    """The same decisions in the usual way: parse every span, hold traces as messages, serialize them again."""

    def __init__(self, config: Config, clock: Clock) -> None:
        """Use the waits of `config`."""
        self.controller = Controller(config.policy(), clock())
        self.clock = clock
        self.wait, self.most = config.decision_wait, config.max_wait
        self.traces: dict[bytes, dict[str, Any]] = {}
        self.decided: dict[bytes, Any] = {}
        self.next: Any = None

    def consume(self, batch: Batch) -> None:
        """Accept a request."""
        now = self.clock()
        if now - self.controller.ticked >= 1:
            self.controller.tick(now)
        receipt = batch.shares[0][0]
        for group in ExportTraceServiceRequest.FromString(batch.body).resource_spans:
            for scope in group.scope_spans:
                for span in scope.spans:
                    held = self.traces.get(span.trace_id)
                    if held is None:
                        held = self.traces[span.trace_id] = {
                            "spans": [], "error": False, "root": None, "due": now + self.most, "group": group,
                        }  # fmt: skip
                    held["spans"].append((span, group, scope, receipt))
                    if span.status.code == Status.STATUS_CODE_ERROR:
                        held["error"] = True
                    if not span.parent_span_id:
                        held["root"], held["group"], held["due"] = span, group, now + self.wait
        for trace_id in [trace_id for trace_id, held in self.traces.items() if held["due"] <= now]:
            self.decide(trace_id, self.traces.pop(trace_id), now)

    def decide(self, trace_id: bytes, held: dict[str, Any], now: float) -> None:
        """Decide about a trace; forward or settle it."""
        attributes = {each.key: each.value.string_value for each in held["group"].resource.attributes}
        root, duration = held["root"], 0.0
        if root is not None:
            attributes |= {each.key: each.value.string_value for each in root.attributes}
            duration = (root.end_time_unix_nano - root.start_time_unix_nano) / 1e9
        decision = self.controller.decide(
            Trace(
                randomness_of(trace_id) or 0,
                key=(attributes.get("service.name", ""), attributes.get("http.route", "")),
                spans=len(held["spans"]),
                duration=duration,
                error=held["error"],
                release=f"{attributes.get('service.name')} {attributes.get('service.version')}",
            ),
            now,
        )
        self.decided[trace_id] = decision
        if not decision.keep:
            for _, _, _, receipt in held["spans"]:
                receipt.settle(Outcome.SAMPLED_OUT, 1)
            return
        request = ExportTraceServiceRequest()
        places: dict[int, Any] = {}
        for span, group, scope, _ in held["spans"]:
            place = places.get(id(scope))
            if place is None:
                resource_spans = request.resource_spans.add()
                resource_spans.resource.CopyFrom(group.resource)
                place = places[id(scope)] = resource_spans.scope_spans.add()
                place.scope.CopyFrom(scope.scope)
            copy = place.spans.add()
            copy.CopyFrom(span)
            if decision.threshold is None:
                copy.attributes.add(key="sampling.reason").value.string_value = decision.reason
            else:
                copy.trace_state = TraceState.parse(copy.trace_state).with_threshold(decision.threshold).text
        shares = [(receipt, 1) for _, _, _, receipt in held["spans"]]
        self.next.consume(Batch(Signal.TRACES, request.SerializeToString(), len(shares), ORIGIN, shares))


def processor(clock: Clock, **settings: Any) -> AdaptiveSampling:
    """Return the processor, connected to a sink."""
    host: Any = NoHost()
    context = Context(ComponentId("adaptive_sampling"), Kind.PROCESSOR, Registry(), structlog.get_logger(), clock, host)
    made = AdaptiveSampling(config(**settings), context)
    made.next = Sink()
    return made


def config(**settings: Any) -> Config:
    """Return settings."""
    return Config.model_validate({**SETTINGS, **settings})


def run(stage: Any, clock: Clock, requests: list[tuple[bytes, int]]) -> tuple[float, float]:
    """Process requests at `RATE`; return spans per CPU-second and the share that was kept."""
    batches = [Batch(Signal.TRACES, data, items, ORIGIN, [(Receipt(items), items)]) for data, items in requests]
    spans = sum(batch.items for batch in batches)
    before = stage.next.spans
    gc.collect()
    start = time.process_time()
    for batch in batches:
        stage.consume(batch)
        clock.now += batch.items / RATE
    return spans / (time.process_time() - start), (stage.next.spans - before) / spans


def rounds(name: str, stage: Any, clock: Clock, requests: list[Request]) -> float:
    """Print and return the best of several rounds."""
    best = kept = 0.0
    turn = 0
    while clock.now < WARM_UP:
        turn -= 1
        run(stage, clock, other(requests, turn))
    for turn in range(ROUNDS):
        parts = [other(requests, turn * PASSES + each) for each in range(PASSES)]
        speed, kept = run(stage, clock, [each for part in parts for each in part])
        best = max(best, speed)
    print(f"{name:44}{best:14,.0f} spans a CPU-second, {kept:6.1%} kept")
    return best


def memory() -> None:
    """Print the memory of waiting traces."""
    clock = Clock()
    stage = processor(clock, decision_wait="1h", max_wait="1h")
    gc.collect()
    before = _resident()
    chance = random.Random(3)
    size = 0
    for _ in range(IN_FLIGHT // 10):
        data = body([span for _ in range(10) for span in trace(6, chance)[:5]])
        size += len(data)
        stage.consume(Batch(Signal.TRACES, bytes(data), 50, ORIGIN, [(Receipt(50), 50)]))
    health = stage.health()
    took = _resident() - before
    print(
        f"{health.details['waiting_traces']:,} traces of 5 spans wait: {took / 1e6:.0f} MB "
        f"({size / 1e6:.0f} MB of spans; counted as {health.details['waiting_bytes'] / 1e6:.0f} MB)"
    )


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - a fixed path
        return int(file.read().split()[1]) * resource.getpagesize()


def at_once() -> None:
    """Measure immediate decisions, and those by trace id only."""
    one = whole(1, 100)
    for name, requests, settings in (
        ("at once, 1 trace of 100 spans", one, {}),
        ("at once, 10 traces of 10 spans", whole(10, 10), {}),
        ("by trace id, 1 trace of 100 spans", one, BY_TRACE_ID),
    ):
        clock = Clock()
        rounds(name, processor(clock, **settings), clock, requests)


def waiting(requests: list[Request]) -> float:
    """Measure traces that wait."""
    clock = Clock()
    return rounds("waiting, traces in two requests", processor(clock, **SHORT), clock, requests)


def parsing(requests: list[Request]) -> float:
    """Measure the same traces with `FullParse`."""
    clock = Clock()
    full = FullParse(config(**SHORT), clock)
    full.next = Sink()
    return rounds("by parsing everything, traces in two requests", full, clock, requests)


def main() -> None:
    """Print a table, with the memory settings of the agent."""
    tune()
    release()
    memory()
    requests = halves()
    slow = parsing(requests)
    for native in (traces._native, None):  # noqa: SLF001 - the only switch at run time
        print("in Python" if native is None else "with the extension module")
        traces._native = native  # noqa: SLF001
        at_once()
        print(f"{'':44}{waiting(requests) / slow:14.1f} times the speed of parsing everything")


if __name__ == "__main__":
    main()
