import time
from itertools import pairwise

import pytest
import structlog
from structlog.testing import capture_logs

from otelwp_agent.component import (
    ComponentConfig,
    ComponentId,
    Context,
    Factory,
    Kind,
    Processor,
)
from otelwp_agent.component_errors import Bugs, component_in
from otelwp_agent.errors import InternalError, Overloaded
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.ledgers import Ledgers
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.pipeline.building import build_component
from otelwp_agent.pipeline.entry import PipelineHead, ReceiverEntry
from otelwp_agent.pipeline.plan_types import ComponentPlan
from otelwp_agent.telemetry import logging
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing import NoHost


def context_of(kind=Kind.PROCESSOR, type_="acme_redact"):
    log = logging.get(f"{kind.value}/{type_}")
    return Context(ComponentId(type_), kind, Registry(), log, time.monotonic, NoHost())


def built(build, kind=Kind.PROCESSOR):
    factory = Factory(kind, "acme_redact", ComponentConfig, build)
    planned = ComponentPlan(kind, ComponentId("acme_redact"), factory, ComponentConfig())
    return build_component(planned, context_of(kind))


class Good(Processor):
    def __init__(self, config, context):
        super().__init__(context)

    def consume(self, batch):
        self.next.consume(batch)


class Broken(Good):
    def consume(self, batch):
        helper(batch)

    def admit(self):
        raise LookupError("nothing to admit")


def helper(batch):
    raise ZeroDivisionError("division by zero")


def pipeline(*stages):
    head = PipelineHead("traces", Ledgers())
    for stage, following in pairwise(stages):
        stage.next = following
    head.first = stages[0]
    head.admits = [stage.admit for stage in stages]
    log = structlog.get_logger()
    return head, ReceiverEntry([head], "otlp", Signal.TRACES, Registry(), clock=time.monotonic, log=log)


def a_batch():
    receipt = Receipt(1)
    return Batch(Signal.TRACES, b"", 1, Origin("otlp", "http"), ((receipt, 1),))


def test_an_exception_in_consume_is_logged_once_under_the_id_of_the_component_that_raised_it():
    head, entry = pipeline(Good(None, context_of(type_="first")), Broken(None, context_of()))
    with capture_logs() as logs:
        for _ in range(3):
            with pytest.raises(InternalError, match="internal error; the agent's log has the details"):
                entry.consume(a_batch())
    assert [(log["event"], log["component"]) for log in logs] == [
        ("component failed: a bug in the component", "processors/acme_redact")
    ]
    assert isinstance(logs[0]["exc_info"], ZeroDivisionError)
    (ledger,) = head.ledgers.values()
    assert (ledger.accepted, ledger.in_flight) == (0, 0)


def test_the_same_bug_is_counted_in_later_lines_without_a_traceback():
    bugs, clock = Bugs(structlog.get_logger), iter((0, 1, 2, 20))
    broken = Broken(None, context_of())
    with capture_logs() as logs:
        for _ in range(4):
            with pytest.raises(ZeroDivisionError) as caught:
                broken.consume(None)
            bugs.report(caught.value, lambda: next(clock))
    assert [("exc_info" in log, log.get("times")) for log in logs] == [(True, None), (False, 3)]


def test_an_exception_in_admit_is_reported_in_the_same_way():
    _, entry = pipeline(Broken(None, context_of()))
    with capture_logs() as logs, pytest.raises(InternalError):
        entry.admit()
    assert [log["component"] for log in logs] == ["processors/acme_redact"]


def test_refusals_pass_as_they_are():
    class Full(Good):
        def consume(self, batch):
            raise Overloaded("full")

    _, entry = pipeline(Full(None, context_of()))
    with capture_logs() as logs, pytest.raises(Overloaded):
        entry.consume(a_batch())
    assert logs == []


def test_an_error_outside_any_component_is_reported_under_the_pipeline():
    head, entry = pipeline(Good(None, context_of()))
    head.first = lambda batch: None  # has no `consume`
    with capture_logs() as logs, pytest.raises(InternalError):
        entry.consume(a_batch())
    assert [log["pipeline"] for log in logs] == ["traces"]


def test_no_component_is_found_where_none_raised():
    with pytest.raises(ZeroDivisionError) as caught:
        helper(None)
    assert component_in(caught.value) is None
