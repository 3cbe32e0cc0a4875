"""Requests of a sender with an allowance."""

import time

import pytest
import structlog

from otelwp_agent.errors import InternalError, Overloaded, PermanentError
from otelwp_agent.pipeline.entry import (
    ConnectorEntry,
)
from otelwp_agent.telemetry.metrics import Registry
from tests.kit.entries import Allowance, allowed, entry_of, head


def test_an_accepted_request_is_charged_and_one_above_the_limit_is_refused():
    registry, allowance, pipeline = Registry(), Allowance(3), head()
    entry = entry_of([pipeline], registry)
    entry.consume(allowed(allowance))
    with pytest.raises(Overloaded, match="limit `items`") as caught:
        entry.consume(allowed(allowance))
    assert (caught.value.retry_after, caught.value.items) == (2.5, 2)
    assert (allowance.items, allowance.size) == (2, 3)
    assert [each.items for each in pipeline.first.taken] == [2]
    labels = {"receiver": "otlp", "transport": "http"}
    assert registry.value("otelcol_receiver_accepted_spans", **labels) == 2
    assert registry.value("otelcol_receiver_refused_spans", **labels) == 2


@pytest.mark.parametrize("error", [Overloaded("full"), PermanentError("no"), ZeroDivisionError()])
def test_what_the_pipeline_refuses_is_not_charged(error):
    allowance, pipeline = Allowance(3), head()
    pipeline.first.error = error
    with pytest.raises((Overloaded, PermanentError, InternalError)):
        entry_of([pipeline]).consume(allowed(allowance))
    assert (allowance.items, allowance.size) == (0, 0)


def test_a_connector_charges_nothing_again():
    allowance, pipeline = Allowance(3), head()
    entry = ConnectorEntry([pipeline], clock=time.monotonic, log=structlog.get_logger())
    entry.consume(allowed(allowance, 2))
    entry.consume(allowed(allowance, 2))
    assert allowance.items == 0
    entry.close()
