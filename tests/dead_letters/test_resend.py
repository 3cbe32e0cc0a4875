import asyncio

import pytest
import structlog

from otelwp_agent.dead_letters import resend as module
from otelwp_agent.dead_letters.file import read_letters
from otelwp_agent.dead_letters.resend import Choice, Resending
from otelwp_agent.dead_letters.sink import DeadLetterFile
from otelwp_agent.errors import Overloaded, PermanentError
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.telemetry.metrics import Registry
from tests.kit.graphs import until


class Peer:
    """A sender that a test settles by hand, unless it `delivers` at once."""

    def __init__(self, *, delivers=True):
        self.delivers = delivers
        self.taken = []
        self.refuses = []
        self.again = []

    def consume(self, batch):
        if self.refuses:
            raise self.refuses.pop()
        self.taken.append(batch)
        if self.delivers:
            asyncio.get_running_loop().call_soon(batch.settle, Outcome.DELIVERED)

    def resent(self, items, reason):
        self.again.append((items, reason))


@pytest.fixture
async def sink(tmp_path):
    sink = DeadLetterFile(tmp_path / "dead-letters", 2**20, Registry(), structlog.get_logger())
    sink.open()
    for exporter, signal, body in (("a", Signal.TRACES, b"1"), ("b", Signal.LOGS, b"2"), ("a", Signal.TRACES, b"3")):
        batch = Batch(signal, body, 2, Origin("otlp", "http", "shop"), ((Receipt(2), 2),))
        sink.put(batch, exporter=exporter, reason="malformed", error="no")
    yield sink
    sink.close()


def left(sink):
    return read_letters(sink.path).letters


async def resend(sink, senders, **choice):
    return await Resending(sink, Choice(**choice), lambda name, signal: senders.get((name, signal))).run()


async def test_all_go_where_they_were_refused(sink):
    a, b = Peer(), Peer()
    progress = await resend(sink, {("a", Signal.TRACES): a, ("b", Signal.LOGS): b})
    assert (progress.letters, progress.delivered, progress.pending) == (3, 3, 0)
    assert [batch.body for batch in a.taken] == [b"1", b"3"]
    assert a.again == [(2, "malformed"), (2, "malformed")], "they are not new items of this exporter"
    assert [(batch.body, batch.items, batch.origin.tenant) for batch in b.taken] == [(b"2", 2, "shop")]
    sink.close()
    assert left(sink) == []


async def test_only_those_that_were_asked_for(sink):
    a = Peer()
    wanted = left(sink)[2].id
    progress = await resend(sink, {("a", Signal.TRACES): a}, ids=[wanted, "77"])
    assert [batch.body for batch in a.taken] == [b"3"]
    assert (progress.delivered, progress.unknown) == (1, ["77"])
    sink.close()
    assert len(left(sink)) == 2


async def test_only_those_of_one_exporter(sink):
    a, b = Peer(), Peer()
    progress = await resend(sink, {("a", Signal.TRACES): a, ("b", Signal.LOGS): b}, exporter="b")
    assert (progress.letters, len(a.taken), len(b.taken)) == (1, 0, 1)


async def test_to_another_exporter(sink):
    other = Peer()
    progress = await resend(sink, {("c", Signal.TRACES): other}, exporter="a", to="c")
    assert (progress.delivered, len(other.taken)) == (2, 2)
    assert other.again == [], "for another exporter they are new items"


async def test_an_exporter_that_does_not_run_is_named_and_its_letters_stay(sink):
    progress = await resend(sink, {("a", Signal.TRACES): Peer()})
    assert (progress.delivered, progress.without_exporter, progress.pending) == (2, {"b": 1}, 0)
    sink.close()
    assert [letter.exporter for letter in left(sink)] == ["b"]


async def test_what_is_refused_again_counts_as_refused(sink):
    peer = Peer(delivers=False)
    running = asyncio.create_task(resend(sink, {("b", Signal.LOGS): peer}, exporter="b"))
    await until(lambda: peer.taken)
    sink.put(peer.taken[0], exporter="b", reason="late", error="too late")
    peer.taken[0].settle(Outcome.DROPPED, "late")
    progress = await running
    assert (progress.refused, progress.delivered) == (1, 0)
    assert [letter.reason for letter in left(sink) if letter.exporter == "b"] == ["late"]


async def test_what_a_stop_drops_stays(sink):
    peer = Peer(delivers=False)
    running = asyncio.create_task(resend(sink, {("b", Signal.LOGS): peer}, exporter="b"))
    await until(lambda: peer.taken)
    assert peer.taken[0].abandon() == 2
    assert (await running).kept == 1
    assert len(left(sink)) == 3


async def test_a_full_queue_is_asked_again(sink, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.001)
    peer = Peer()
    peer.refuses = [Overloaded("full"), Overloaded("full")]
    assert (await resend(sink, {("b", Signal.LOGS): peer}, exporter="b")).delivered == 1


async def test_a_sender_that_refuses_for_good_leaves_the_letter(sink):
    peer = Peer()
    peer.refuses = [PermanentError("no")]
    progress = await resend(sink, {("b", Signal.LOGS): peer}, exporter="b")
    assert (progress.kept, progress.pending) == (1, 0)


async def test_few_are_under_way_at_once(sink):
    for _ in range(20):
        batch = Batch(Signal.LOGS, b"x", 1, Origin(), ((Receipt(1), 1),))
        sink.put(batch, exporter="b", reason="malformed", error="no")
    peer = Peer(delivers=False)
    running = asyncio.create_task(resend(sink, {("b", Signal.LOGS): peer}, exporter="b"))
    await until(lambda: len(peer.taken) == module.AT_ONCE)
    await asyncio.sleep(0)
    assert len(peer.taken) == module.AT_ONCE
    peer.delivers = True
    for batch in list(peer.taken):
        batch.settle(Outcome.DELIVERED)
    assert (await running).delivered == 21


async def test_bodies_are_read_a_few_at_a_time(sink, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_LETTERS", 1)
    progress = await resend(sink, {("a", Signal.TRACES): Peer(), ("b", Signal.LOGS): Peer()})
    assert progress.delivered == 3


async def test_a_letter_that_is_purged_meanwhile_is_no_trouble(sink):
    peer = Peer(delivers=False)
    running = asyncio.create_task(resend(sink, {("b", Signal.LOGS): peer}, exporter="b"))
    await until(lambda: peer.taken)
    assert len(sink.purge(lambda _: True)) == 3
    peer.taken[0].settle(Outcome.DELIVERED)
    assert (await running).delivered == 1
    sink.close()
    assert left(sink) == []
