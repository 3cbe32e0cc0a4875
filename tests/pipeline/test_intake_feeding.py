"""Which entries of the journal are fed to which pipelines, and when: a real journal, and stages that a test sets."""

import asyncio
import time

import pytest
import structlog
from structlog.testing import capture_logs

from otelwp_agent.config.service import JournalConfig
from otelwp_agent.errors import Overloaded, PermanentError
from otelwp_agent.journal.journal import Journal
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.ledgers import Ledgers
from otelwp_agent.model.message import Message
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.model.signal import Signal
from otelwp_agent.pipeline.entry import PipelineHead
from otelwp_agent.pipeline.intake import Intake, JournaledEntry
from otelwp_agent.sealing.replay_cache import MessageState
from otelwp_agent.telemetry.metrics import Registry
from tests.kit.entries import Allowance, allowed
from tests.kit.graphs import until


class Stage:
    """The first stage of a pipeline. The queue of its exporter is filled to the share `used` (0 to 1)."""

    def __init__(self, error=None, used=0.0):
        self.error, self.used, self.batches = error, used, []

    def consume(self, batch):
        self.batches.append(batch)
        if self.error is not None:
            raise self.error


class Fed:
    """A journal with requests on disk, and the stages that they are fed to."""

    def __init__(self, directory, **stages):
        self.log = structlog.get_logger()
        self.ledgers, self.stages, self.registry = Ledgers(), stages, Registry()
        self.journal = Journal(JournalConfig(directory=str(directory)), self.ledgers, self.registry, self.log)
        self.journal.open()
        self.intake = Intake(self.journal, self.ledgers, self.log)
        self.heads = {}
        for name, stage in stages.items():
            head = self.heads[name] = PipelineHead(name, self.ledgers)
            head.first, head.fills = stage, {"sink": lambda _, stage=stage: stage.used}
        self.intake.switch(self.heads, ())

    def entry(self, **settings):
        heads = list(self.heads.values())
        log, registry = self.log, self.registry
        return JournaledEntry(
            heads, "hand", Signal.TRACES, registry, clock=time.monotonic, log=log, intake=self.intake, **settings
        )

    async def put(self, *tenants, items=1):
        """Write a request of each tenant."""
        entry = self.entry()
        for tenant in tenants:
            await answered(entry.consume(Batch(Signal.TRACES, b"body", items, Origin("hand", "http", tenant), ())))

    def settle_in(self, name, outcome=Outcome.DELIVERED):
        """Settle everything that a stage has accepted."""
        for batch in self.stages[name].batches:
            batch.settle(outcome)

    def outcomes(self, name):
        """Return the items accepted, delivered, dropped and in flight in a pipeline."""
        line = self.heads[name].total
        return line.accepted, line.settled[Outcome.DELIVERED], line.settled[Outcome.DROPPED], line.in_flight


FULL = Overloaded("full")


def answered(future):
    """Wait for the answer; a request that is never answered fails the test instead of stopping it."""
    return asyncio.wait_for(future, 60)


async def test_what_waits_for_one_pipeline_is_not_fed_to_the_others_again(tmp_path):
    fed = Fed(tmp_path, a=Stage(), b=Stage(FULL), c=Stage())
    await fed.put("shop", items=3)
    fed.settle_in("a")
    fed.settle_in("c", Outcome.DROPPED)
    fed.stages["b"].error = None
    assert await fed.intake._feed_what_waits() == 1
    assert [len(fed.stages[name].batches) for name in "abc"] == [1, 2, 1]
    fed.stages["b"].batches[-1].settle(Outcome.DELIVERED)
    assert [fed.outcomes(name) for name in "abc"] == [(3, 3, 0, 0), (3, 3, 0, 0), (3, 0, 3, 0)]
    assert fed.journal.entries == 0
    await fed.journal.close()


async def test_an_entry_that_all_pipelines_have_settled_is_released_without_feeding_it(tmp_path):
    fed = Fed(tmp_path, a=Stage(FULL))
    await fed.put("")
    ((entry, _, context),) = fed.journal.replays(lambda *_: True)
    entry.done = frozenset({(0, "")})
    fed.intake.feed(entry, context.pipelines, None, fed.intake.ledgers_of(context.pipelines, "hand", ""))
    assert (fed.journal.entries, len(fed.stages["a"].batches)) == (0, 1)
    await fed.journal.close()


async def test_what_is_dropped_is_logged_with_its_reason_pipeline_and_items(tmp_path):
    broken = Stage(ZeroDivisionError("a bug"))
    fed = Fed(tmp_path, a=Stage(PermanentError("never", reason="forbidden")), b=broken, c=Stage())
    entry = fed.entry()
    fed.intake.switch({name: fed.heads[name] for name in "ab"}, ())
    with capture_logs() as logs:
        await answered(entry.consume(Batch(Signal.TRACES, b"body", 3, Origin("hand", "http"), ())))
    dropped = [line for line in logs if line["event"] == "items dropped"]
    assert [{key: line[key] for key in line if key not in {"event", "log_level"}} for line in dropped] == [
        {"reason": "forbidden", "pipeline": "a", "items": 3, "error": "never"},
        {"reason": "internal_error", "pipeline": "b", "items": 3},
        {"reason": "pipeline_removed", "pipeline": "c", "items": 3},
    ]
    assert [fed.heads[name].total.dropped_reasons for name in "abc"] == [
        {"forbidden": 3}, {"internal_error": 3}, {"pipeline_removed": 3}
    ]  # fmt: skip
    (bug,) = [line for line in logs if "bug" in line["event"]]
    assert isinstance(bug["exc_info"], ZeroDivisionError)
    assert fed.journal.entries == 0
    await fed.journal.close()


async def test_a_bug_after_a_part_was_settled_drops_the_rest(tmp_path):
    fed = Fed(tmp_path, a=Stage())

    def settle_some_and_break(batch):
        ((receipt, _),) = batch.shares
        receipt.settle(Outcome.DELIVERED, 1)
        receipt.park(1)
        raise ZeroDivisionError

    fed.stages["a"].consume = settle_some_and_break
    await fed.put("", items=4)
    assert fed.journal.waiting == 1, "what is parked is fed again"
    assert fed.outcomes("a") == (4, 0, 0, 4), "an entry is settled as a whole"
    await fed.journal.close()


@pytest.mark.parametrize(
    ("done", "used", "ready"),
    [
        (set(), {"a": 0.499, "b": 1.0}, True),
        (set(), {"a": 0.5, "b": 0.5}, False),
        (set(), {"a": 1.0, "b": 0.0}, True),
        ({(0, "")}, {"a": 0.0, "b": 0.5}, False),
        ({(0, "")}, {"a": 1.0, "b": 0.0}, True),
        ({(0, "sink")}, {"a": 0.0, "b": 1.0}, False),
        ({(0, "sink")}, {"a": 1.0, "b": 0.0}, True),
        ({(1, "sink")}, {"a": 0.0, "b": 0.0}, True),
        ({(0, ""), (1, "sink")}, {"a": 0.0, "b": 0.0}, False),
        (set(), {"a": 1.0}, True),
        ({(1, "")}, {"a": 1.0}, False),
    ],
)
async def test_an_entry_is_fed_again_if_an_exporter_that_has_not_settled_it_has_capacity(tmp_path, done, used, ready):
    """A pipeline that no longer exists drops it, so it needs no capacity."""
    fed = Fed(tmp_path, **{name: Stage(used=share) for name, share in used.items()})
    assert fed.intake._has_capacity(("a", "b"), "", frozenset(done)) is ready
    await fed.journal.close()


async def test_the_capacity_is_that_for_the_tenant_of_the_entry(tmp_path):
    fed = Fed(tmp_path, a=Stage(FULL))
    await fed.put("flood", "shop", "flood")
    fed.heads["a"].fills = {"sink": {"flood": 1.0, "shop": 0.0}.get}
    fed.stages["a"].error = None
    fed.stages["a"].batches.clear()
    assert await fed.intake._feed_what_waits() == 1
    assert [batch.origin.tenant for batch in fed.stages["a"].batches] == ["shop"]
    await fed.journal.close()


async def test_a_tenant_whose_entry_was_refused_is_not_offered_again_in_the_same_pass(tmp_path):
    fed = Fed(tmp_path, a=Stage(FULL), b=Stage(FULL))
    await fed.put("flood", "flood", "shop", "flood", "shop")
    fed.stages["a"].batches.clear()
    assert await fed.intake._feed_what_waits() == 0
    assert [batch.origin.tenant for batch in fed.stages["a"].batches] == ["flood", "shop"]
    fed.stages["b"].error = None
    assert await fed.intake._feed_what_waits() == 5, "one pipeline accepts them"
    await fed.journal.close()


async def test_other_tasks_run_after_each_turn(tmp_path, monkeypatch):
    fed = Fed(tmp_path, a=Stage(FULL))
    await fed.put(*[""] * 12)
    fed.stages["a"].error = None
    now = [0.0]
    consume, turns = fed.stages["a"].consume, []

    def slowly(batch):
        now[0] += 1.0
        consume(batch)

    async def other():
        while True:
            turns.append(len(fed.stages["a"].batches) - 12)
            await asyncio.sleep(0)

    fed.stages["a"].consume = slowly
    monkeypatch.setattr("otelwp_agent.pipeline.intake.TURN", 2.0)
    monkeypatch.setattr("otelwp_agent.pipeline.intake.time.perf_counter", lambda: now[0])
    task = asyncio.ensure_future(other())
    await fed.intake._feed_what_waits()
    task.cancel()
    assert turns == [3, 6, 9, 12]
    await fed.journal.close()


async def test_waiting_entries_are_tried_again_without_a_report_of_capacity(tmp_path, monkeypatch):
    monkeypatch.setattr("otelwp_agent.pipeline.intake.PAUSE", 0.001)
    fed = Fed(tmp_path, a=Stage(FULL))
    await fed.put("")
    fed.intake.start()
    await until(lambda: len(fed.stages["a"].batches) > 3)
    fed.stages["a"].error = None
    await until(lambda: not fed.journal.waiting)
    fed.intake.stop()
    await fed.journal.close()


async def test_nothing_runs_while_nothing_waits_and_after_the_stop(tmp_path, monkeypatch):
    fed = Fed(tmp_path, a=Stage())
    fed.intake.stop()
    pauses = []
    timeout = asyncio.timeout
    monkeypatch.setattr(asyncio, "timeout", lambda seconds: pauses.append(seconds) or timeout(seconds))
    fed.intake.start()
    (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "feed from the journal"]
    await asyncio.sleep(0)
    assert pauses == [None]
    assert fed.journal._commits._check is not None, "the checks of the journal's files have started"
    fed.intake.stop()
    fed.intake.stop()
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()
    await fed.journal.close()


async def test_what_the_journal_stores_of_a_sender_is_made_once_for_each(tmp_path, monkeypatch):
    monkeypatch.setattr("otelwp_agent.pipeline.intake.REMEMBERED_SENDERS", 2)
    fed = Fed(tmp_path, a=Stage(), b=Stage())
    fed.intake.switch(fed.heads, ["x-site", "user-agent", "x-site"])
    entry = fed.entry()
    headers = {"x-site": "7", "cookie": "secret", "user-agent": "WordPress"}
    one, two, three = (Origin("hand", "http", tenant, headers) for tenant in ("shop", "blog", "news"))
    key, ledgers = entry.sender(one)
    assert key == ("hand", "http", "shop", (("user-agent", "WordPress"), ("x-site", "7")), ("a", "b"))
    assert [ledger.key for ledger in ledgers] == [("a", "hand", "shop"), ("b", "hand", "shop")]
    first = entry.sender(one)
    assert entry.sender(one) is first
    entry.sender(two)
    assert entry.sender(one) is first
    entry.sender(three)
    assert entry.sender(one) is not first, "two are remembered"
    assert entry.sender(Origin("hand", "http", "shop"))[0][3] == ()
    await fed.journal.close()


async def test_a_request_is_replayed_with_its_origin_signal_and_size(tmp_path):
    fed = Fed(tmp_path, a=Stage(FULL))
    fed.intake.switch(fed.heads, ["user-agent"])
    origin = Origin("hand", "grpc", "shop", {"user-agent": "WordPress"})
    await answered(fed.entry().consume(Batch(Signal.LOGS, b"body", 7, origin, ())))
    await fed.intake._feed_what_waits()
    batch = fed.stages["a"].batches[-1]
    assert (batch.signal, batch.body, batch.items) == (Signal.LOGS, b"body", 7)
    assert [items for _, items in batch.shares] == [7]
    found = batch.origin
    assert (found.receiver, found.transport, found.tenant, dict(found.headers)) == (
        "hand", "grpc", "shop", {"user-agent": "WordPress"}
    )  # fmt: skip
    await fed.journal.close()


async def test_encoded_requests_are_replayed_with_their_encodings(tmp_path):
    fed = Fed(tmp_path, a=Stage(FULL))
    fed.intake.switch(fed.heads, [])
    origin = Origin("hand", "http", "shop")
    entry = fed.entry()
    for body, encodings in ((b"plain", ()), (b"zstd", ("zstd",)), (b"sealed", ("zstd", "sealed"))):
        await answered(entry.consume(Batch(Signal.TRACES, body, 1, origin, (), encodings)))
    fed.stages["a"] = fed.heads["a"].first = Stage()
    await fed.intake._feed_what_waits()
    assert [(batch.body, batch.encodings) for batch in fed.stages["a"].batches] == [
        (b"plain", ()), (b"zstd", ("zstd",)), (b"sealed", ("zstd", "sealed"))
    ]  # fmt: skip
    await fed.journal.close()


async def test_a_message_is_accepted_once_its_request_is_on_disk(tmp_path):
    fed = Fed(tmp_path, a=Stage())
    cache = fed.journal.messages.cache("hand", 600.0, 10, 100)
    message = Message("hand", "shop", bytes(16), int(time.time() * 1000))
    assert cache.begin("shop", message, time.time()) is MessageState.NEW
    batch = Batch(Signal.TRACES, b"sealed", 1, Origin("hand", "http", "shop"), ())
    batch.message = message
    await answered(fed.entry().consume(batch))
    assert cache.begin("shop", message, time.time()) is MessageState.ACCEPTED
    await fed.journal.close()


async def test_requests_are_counted_as_accepted_when_they_are_on_disk_and_as_refused_if_they_cannot_be(tmp_path):
    fed = Fed(tmp_path, a=Stage())
    entry = fed.entry()
    assert (entry.answers_late, entry.waits, entry.pipelines) == (True, False, ("a",))
    assert fed.entry(acknowledge="delivered").waits is True
    accepted, refused = (f"otelcol_receiver_{what}_spans" for what in ("accepted", "refused"))
    batch = Batch(Signal.TRACES, b"body", 3, Origin("hand", "http"), ())
    told = entry.consume(batch, "yes")
    assert fed.registry.value(accepted) == 0
    assert await answered(told) == "yes"
    assert fed.registry.value(accepted, receiver="hand", transport="http") == 3
    fed.journal._store.newest = lambda: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    with pytest.raises(Overloaded, match="No space left on device") as error:
        await answered(entry.consume(batch, "yes"))
    assert (fed.registry.value(refused, receiver="hand", transport="http"), error.value.items) == (3, 3)
    with pytest.raises(Overloaded) as error:
        entry.consume(batch)
    assert (fed.registry.value(refused), error.value.items) == (6, 3)
    with pytest.raises(Overloaded):
        entry.admit()
    assert fed.registry.value(accepted) == 3
    fed.stages["a"].batches[0].settle(Outcome.DELIVERED)
    await fed.journal.close()


async def test_what_the_journal_does_not_keep_is_not_charged(tmp_path):
    fed, allowance = Fed(tmp_path, a=Stage()), Allowance(9)
    entry = fed.entry()
    assert await answered(entry.consume(allowed(allowance), "yes")) == "yes"
    assert (allowance.items, allowance.size) == (2, 3)
    with pytest.raises(Overloaded, match="limit `items`"):
        entry.consume(allowed(Allowance(1)))
    fed.journal._store.newest = lambda: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    with pytest.raises(Overloaded, match="No space left on device"):
        await answered(entry.consume(allowed(allowance)))
    assert (allowance.items, allowance.size) == (2, 3), "it was charged when it arrived, and got it back"
    with pytest.raises(Overloaded):
        entry.consume(allowed(allowance))
    assert (allowance.items, allowance.size) == (2, 3)
    fed.stages["a"].batches[0].settle(Outcome.DELIVERED)
    await fed.journal.close()
