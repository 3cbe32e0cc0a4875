from __future__ import annotations

import pytest

from otelwp_agent.component import Kind
from otelwp_agent.errors import Overloaded
from otelwp_agent.model.signal import Signal
from otelwp_agent.testing import Catcher
from tests.kit.stages import batch_of, build


def test_each_batch_goes_to_the_pipelines_of_its_signal():
    forward, _ = build("forward", kind=Kind.CONNECTOR)
    forward.next = {signal: Catcher() for signal in Signal}
    for signal in Signal:
        forward.consume(batch_of(b"", 1, signal))
    for signal in Signal:
        (batch,) = forward.next[signal].batches
        assert batch.signal is signal


def test_a_refusal_goes_back_to_the_sender():
    forward, catcher = build("forward", kind=Kind.CONNECTOR)
    catcher.error = Overloaded("full", retry_after=3)
    with pytest.raises(Overloaded, match="full"):
        forward.consume(batch_of(b"", 1))
