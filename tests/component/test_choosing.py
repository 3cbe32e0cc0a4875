from __future__ import annotations

import pytest
import structlog

from otelwp_agent.component import ComponentId, Context, Kind
from otelwp_agent.component.choosing import ChoosingConfig, ChoosingConnector
from otelwp_agent.errors import Overloaded
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.signal import Signal
from otelwp_agent.routing.strategies import Strategy
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing import Catcher, NoHost
from tests.kit.senders import a_request


def connector():
    context = Context(
        ComponentId("choosing"), Kind.CONNECTOR, Registry(), structlog.get_logger(), lambda: 0.0, NoHost()
    )
    destinations = {"a": ["traces/a"], "b": ["traces/b", "traces/c"]}
    stage = ChoosingConnector(ChoosingConfig(), context, destinations, Strategy)
    entries = {}
    stage.next = dict.fromkeys(Signal, Catcher())
    stage.choose = lambda _signal, pipelines: entries.setdefault(",".join(pipelines), Catcher())
    stage.consume(a_request("x"))
    entries["traces/b,traces/c"] = Catcher()
    return stage, entries


def test_a_batch_goes_to_one_destination():
    stage, entries = connector()
    entries["traces/a"].error = Overloaded("full")
    assert stage.refusal(a_request("y")) is None
    stage.consume(a_request("y"))
    assert {name: len(entry.batches) for name, entry in entries.items()} == {"traces/a": 1, "traces/b,traces/c": 1}
    entries["traces/b,traces/c"].error = Overloaded("full")
    assert stage.refusal(a_request("z")) is not None
    with pytest.raises(Overloaded):
        stage.consume(a_request("z"))


def test_the_destination_with_the_most_capacity_decides_on_the_fill():
    stage, _ = connector()
    assert stage.fill(Signal.TRACES, {"traces/a": 0.9, "traces/b": 0.2, "traces/c": 0.4}) == 0.4
    assert stage.fill(Signal.LOGS, {"logs/a": 0.9, "logs/b": 0.2}) == 0.9


def test_batches_of_signals_without_destination_go_to_all_pipelines():
    stage, entries = connector()
    stage.consume(Batch(Signal.LOGS, b"", 0, Origin(), []))
    stage.admit(Signal.LOGS)
    assert stage.refusal(Batch(Signal.LOGS, b"", 0, Origin(), [])) is None
    assert len(stage.next[Signal.LOGS].batches) == 1
    assert len(entries["traces/a"].batches) == 1


async def test_its_gauges_end_with_it():
    stage, _ = connector()
    assert stage.context.registry.value("otelwp_destination_share", connector="choosing") == 2
    await stage.shutdown()
    assert stage.context.registry.value("otelwp_destination_share", connector="choosing") == 0
