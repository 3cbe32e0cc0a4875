import pytest

from otelwp_agent.component import Connector, Exporter, Kind, Processor, Receiver
from otelwp_agent.errors import Overloaded, PermanentError
from otelwp_agent.model.signal import Signal
from otelwp_agent.testing import Catcher, FakeClock, batch_of, make_context, request


class Full(Processor):
    def admit(self):
        raise Overloaded("the processor is full")


@pytest.fixture
def batch():
    return batch_of(Signal.TRACES, request(Signal.TRACES))


def after(stage, error=None):
    stage.next = Catcher()
    stage.next.error = error
    return stage


def test_a_processor_refuses_what_the_next_stage_refuses(batch):
    full = Overloaded("the queue is full")
    assert after(Processor(make_context(Kind.PROCESSOR, "x")), full).refusal(batch) is full
    assert after(Processor(make_context(Kind.PROCESSOR, "x"))).refusal(batch) is None


def test_a_processor_that_admits_nothing_does_not_ask_the_next_stage(batch):
    stage = after(Full(make_context(Kind.PROCESSOR, "x")), Overloaded("the queue is full"))
    assert str(stage.refusal(batch)) == "the processor is full"


def test_a_permanent_error_of_the_next_stage_is_no_refusal(batch):
    assert after(Processor(make_context(Kind.PROCESSOR, "x")), PermanentError("bad")).refusal(batch) is None


def test_a_connector_asks_the_pipelines_of_the_signal_only(batch):
    connector = Connector(make_context(Kind.CONNECTOR, "x"))
    full = Catcher()
    full.error = Overloaded("the pipeline is full")
    connector.next = {Signal.LOGS: full}
    assert connector.refusal(batch) is None
    connector.next = {Signal.TRACES: full}
    assert connector.refusal(batch) is full.error


def test_a_receiver_is_unhealthy_for_a_minute_after_a_drop():
    clock = FakeClock(100.0)
    receiver = Receiver(make_context(Kind.RECEIVER, "x", clock=clock))
    assert receiver.health() is None
    receiver.drops.add(Overloaded("the journal is full"))
    health = receiver.health()
    assert (health.kind, health.id, health.healthy) == (Kind.RECEIVER, "x", False)
    assert "the journal is full" in health.message
    clock.now += 61
    assert receiver.health().healthy


@pytest.mark.parametrize("stage", [Processor, Connector])
def test_a_stage_must_implement_consume(stage, batch):
    with pytest.raises(NotImplementedError):
        stage(make_context(Kind.PROCESSOR, "x")).consume(batch)


async def test_an_exporter_must_implement_export(batch):
    with pytest.raises(NotImplementedError):
        await Exporter(make_context(Kind.EXPORTER, "x")).export(batch)
