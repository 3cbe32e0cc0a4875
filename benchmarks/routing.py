"""Measure what routing costs: spans per CPU-second of the rules alone, at 100 spans a request.

    python benchmarks/routing.py [--requests 2000]

The requests come from `generate`'s sample. Each row is the best of five rounds, which alternate with the other rows, on
one core: deciding, dividing and forwarding to nothing. "resource": 50 rules about `service.name`, of which the last one
matches. "two services": the same, and half of the resources go elsewhere. "span": 50 rules about a span's name and an
attribute. "duration": one rule whose fact cannot be remembered. "hash": traces of ten spans are divided among 16
backends by trace id, as in `loadbalancing`; "hash, single": the same for traces of one span.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from otelwp_agent.cli.generate.sample import Sample
from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.routing.balancing import by_trace
from otelwp_agent.routing.division import divide
from otelwp_agent.routing.parser import parse
from otelwp_agent.routing.rendezvous import Rendezvous
from otelwp_agent.routing.table import RoutingRule, RoutingTable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SPANS, RULES, ROUNDS = 100, 50, 5


def table(conditions: Sequence[str]) -> RoutingTable:
    """Return a table with a destination for each condition."""
    rules = [
        RoutingRule(f"rule {number}", parse(text, "span", Signal.TRACES), (f"traces/{number}",))
        for number, text in enumerate(conditions)
    ]
    return RoutingTable(rules, ("traces/rest",))


def bodies(per_trace: int = 10) -> list[bytes]:
    """Return 16 requests of one service, with `per_trace` spans in each trace."""
    sample = Sample(spans_per_trace=per_trace)  # `make` gets the number of traces
    return [sample.make(Signal.TRACES, SPANS // per_trace, time.time_ns()) for _ in range(16)]


def service_of(body: bytes) -> str:
    """Return the name of the service of the first resource."""
    resource = pb.Resource.FromString(pb.Resources.FromString(body).resources[0].resource)
    return next(
        pb.AnyValue.FromString(each.value).string_value for each in resource.attributes if each.key == b"service.name"
    ).decode()


def ruled(rules: RoutingTable) -> Callable[[bytes], object]:
    """Return a function that divides a request by the rules of a table."""
    return lambda body: divide(rules, Signal.TRACES, body, Origin("otlp", "http"), whole_traces=True)


def hashed() -> Callable[[bytes], object]:
    """Return a function that divides a request among 16 backends by trace id."""
    group, receipt = Rendezvous([f"10.0.0.{number}:4317" for number in range(16)]), Receipt(SPANS)
    origin = Origin("otlp", "http")
    return lambda body: by_trace(Batch(Signal.TRACES, body, SPANS, origin, [(receipt, SPANS)]), group.choose)


def main() -> None:
    """Measure and print the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=2000)
    requests = parser.parse_args().requests
    plain = bodies()
    service = service_of(plain[0])
    other = [body.replace(service.encode(), b"x" * len(service)) for body in plain]
    names = [f'resource.attributes["service.name"] == "service {number}"' for number in range(RULES - 1)]
    resource = table([*names, f'resource.attributes["service.name"] == "{service}"'])
    spans = table(
        [f'name == "name {n}" and attributes["http.route"] == "/{n}"' for n in range(RULES - 1)] + ['name != ""']
    )
    rows: dict[str, tuple[Callable[[bytes], object], list[bytes]]] = {
        "resource": (ruled(resource), plain),
        "two services": (ruled(resource), [one + two for one, two in zip(plain, other, strict=True)]),
        "span": (ruled(spans), plain),
        "duration": (ruled(table(["duration_ms > 5"])), plain),
        "hash": (hashed(), plain),
        "hash, single": (hashed(), bodies(1)),
    }
    best = dict.fromkeys(rows, 0.0)
    for _ in range(ROUNDS):
        for name, (work, given) in rows.items():
            began = time.process_time()
            for number in range(requests):
                work(given[number % len(given)])
            per_request = SPANS * (2 if name == "two services" else 1)
            best[name] = max(best[name], requests * per_request / (time.process_time() - began))
    for name, rate in best.items():
        print(f"{name:<14} {rate / 1e6:6.2f} M spans per CPU-second")


if __name__ == "__main__":
    main()
