"""Every item reaches exactly one backend, whatever happens to the backends."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

import pytest

from otelwp_agent.config.blocks import Queue
from otelwp_agent.errors import Overloaded, PermanentError
from otelwp_agent.model.receipt import HELD, Outcome
from otelwp_agent.model.signal import Signal
from otelwp_agent.routing.outlets import Move
from otelwp_agent.sending.balanced import INTERVAL, BalancedSender
from tests.kit.balanced import FAST, Group, everything, expected, settled, traces
from tests.kit.senders import Letters, outcomes


@pytest.fixture
def balance(loop):
    """Run a scenario with a group and its sender."""

    def run(scenario, *names, queue=None, retry=FAST, **options):
        async def all_of_it():
            group = Group(loop.time, names, queue, retry)
            sender = BalancedSender(group, Signal.TRACES, random=lambda: 0.5, **options)
            await sender.start()
            await scenario(group, sender)
            assert not sender.line().problems()
            await sender.shutdown()
            assert not sender.line().problems()

        loop.run_until_complete(all_of_it())

    return run


def test_every_trace_is_whole_at_one_backend(balance):
    async def scenario(group, sender):
        one, two = traces(*range(40)), traces(*range(40))
        sender.consume(one)
        sender.consume(two)
        await settled(one, two)
        for name in "abc":
            own = {span.partition("/")[0] for span in group[name].spans}
            assert 5 < len(own) < 25
            assert Counter(group[name].spans) == Counter([f"{trace}/{n}" for trace in own for n in (0, 1)] * 2)
        assert everything(group) == expected(range(40)) + expected(range(40))
        assert sender.line().delivered == 160
        assert group.context.registry.value("otelcol_exporter_sent_spans", exporter="test/a") == len(group["a"].spans)

    balance(scenario, "a", "b", "c")


def test_what_waits_for_a_dead_backend_moves_and_its_traces_return_when_it_answers(balance):
    async def scenario(group, sender):
        group["a"].up = False
        first = [traces(number) for number in range(60)]
        for batch in first:
            sender.consume(batch)
        await settled(*first)
        assert not group["a"].spans
        assert everything(group) == expected(range(60))
        assert group.context.registry.value("otelwp_loadbalancer_moved_items") > 0
        assert sender.health().healthy
        assert "a: sending has failed for" in sender.health().message
        group["a"].up = True
        await asyncio.sleep(10)  # until the breaker lets a probe through
        again = traces(*range(60, 120))
        sender.consume(again)
        await settled(again)
        later = traces(*range(120, 160))
        sender.consume(later)
        await settled(later)
        assert len(group["a"].spans) > 10
        assert everything(group) == expected(range(160))

    balance(scenario, "a", "b", "c")


def test_a_probe_that_fails_moves_on(balance):
    async def scenario(group, sender):
        group["a"].up = False
        for round_ in range(10):
            batches = [traces(number) for number in range(round_ * 20, round_ * 20 + 20)]
            for batch in batches:
                sender.consume(batch)
            await settled(*batches)
            await asyncio.sleep(6)
        assert everything(group) == expected(range(200))
        assert not group["a"].spans

    balance(scenario, "a", "b")


def test_without_another_backend_batches_wait_for_their_own(balance):
    async def scenario(group, sender):
        group["a"].up = group["b"].up = False
        batch = traces(*range(20))
        sender.consume(batch)
        await asyncio.sleep(60)
        assert not everything(group)
        assert not sender.health().healthy
        group["a"].up = True
        await settled(batch)
        assert everything(group) == expected(range(20))
        assert not group["b"].spans

    balance(scenario, "a", "b")


def test_a_lost_backend_gives_its_queue_to_the_others_and_is_closed(balance):
    async def scenario(group, sender):
        group["a"].seconds = 2.0
        batches = [traces(number) for number in range(60)]
        for batch in batches:
            sender.consume(batch)
        await asyncio.sleep(0.1)
        registry = group.context.registry
        assert registry.value("otelcol_exporter_queue_size", exporter="test/a") > 10
        group.use("b", "c")
        await settled(*batches)
        await asyncio.sleep(3 * INTERVAL)
        assert everything(group) == expected(range(60))
        assert len({*group["a"].spans}) == 20, "ten batches of two spans were being sent"
        assert group["a"].closed
        assert sender.line().delivered == 120
        assert "test/a" not in registry.expose()
        assert sorted(sender.health().details["backends"]) == ["b", "c"]

    balance(scenario, "a", "b", "c")


def test_a_backend_that_comes_back_at_once_goes_on(balance):
    async def scenario(group, sender):
        group["a"].seconds = 2.0
        batches = [traces(number) for number in range(40)]
        for batch in batches:
            sender.consume(batch)
        await asyncio.sleep(0.1)
        group.use("b")
        group.use("a", "b")
        await settled(*batches)
        assert everything(group) == expected(range(40))
        assert not group["a"].closed

    balance(scenario, "a", "b")


def test_a_batch_is_refused_as_a_whole_when_one_queue_is_full(balance):
    async def scenario(group, sender):
        group["a"].seconds = 1.0
        accepted = []
        for number in range(0, 60, 20):
            accepted.append(traces(*range(number, number + 20)))
            assert sender.refusal(accepted[-1]) is None
            sender.consume(accepted[-1])
        batch = traces(*range(60, 80))
        with pytest.raises(Overloaded, match=r"queue of test/[ab] is full") as caught:
            sender.consume(batch)
        assert caught.value.capacity is not None
        assert batch.shares[0][0].pending == 2
        await asyncio.sleep(0.5)
        assert "test/a" in str(sender.refusal(batch))
        sender.admit()  # the queue of the other backend has capacity
        assert sender.fill("") == 1.0
        await settled(*accepted)
        assert everything(group) == expected(range(len(accepted) * 20))

    balance(scenario, "a", "b", queue=Queue(queue_size=3, num_consumers=1))


def test_without_backends_everything_is_refused_until_there_is_one(balance):
    async def scenario(group, sender):
        batch = traces(1, 2)
        for refused in (lambda: sender.consume(batch), sender.admit):
            with pytest.raises(Overloaded, match="has no backend now"):
                refused()
        refusal = sender.refusal(batch)
        assert refusal.reason == "no_backend"
        assert sender.fill("") == 1.0
        assert sender.health().message == "there is no backend"
        freed = asyncio.Event()
        refusal.capacity.observers.append(freed.set)
        group.use("a")
        assert not refusal.capacity.short
        sender.consume(batch)
        await settled(batch)

    balance(scenario)


def test_retries_end_also_for_batches_that_move(balance):
    async def scenario(group, sender):
        group["a"].up = group["b"].up = False
        batch = traces(*range(8))
        sender.consume(batch)
        await settled(batch)
        assert {outcome[2] for outcome in outcomes(batch)} == {"retries_exhausted"}
        assert asyncio.get_running_loop().time() < 60

    balance(scenario, "a", "b", retry=FAST.model_copy(update={"max_elapsed_time": 30.0}))


def test_dead_letters_are_those_of_the_group(balance):
    letters = Letters()

    async def scenario(group, sender):
        group["a"].up, group["a"].error = False, PermanentError("never", reason="http_400")
        batch = traces(1)
        sender.consume(batch)
        await settled(batch)
        assert [exporter for _, exporter, *_ in letters.letters] == ["test/balance"]
        assert sender.line().dropped == 2
        sender.resent(2, "http_400")
        assert (sender.line().dropped, sender.line().accepted) == (0, 0)

    balance(scenario, "a", dead_letters=letters)


def test_a_stop_leaves_in_the_journal_what_no_backend_has_accepted(balance):
    async def scenario(group, sender):
        group["a"].up = group["b"].up = False
        batch = traces(*range(6))
        for receipt, _ in batch.shares:
            receipt.claim = HELD
        sender.consume(batch)
        drained = await sender.drain(asyncio.get_running_loop().time() + 1)
        assert (drained.delivered, drained.left, drained.kept) == (0, 0, 12)
        with pytest.raises(Overloaded, match="shutting down"):
            sender.consume(traces(9))

    balance(scenario, "a", "b", keeps=True)


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_lost_or_doubled_under_random_failures(balance, seed):
    """Five backends fail, return, join and leave for ten minutes."""
    random = Random(seed)

    async def scenario(group, sender):
        batches, number = [], 0
        for _ in range(300):
            count = random.randint(1, 8)
            batch = traces(*range(number, number + count))
            try:
                sender.consume(batch)
            except Overloaded:
                pass
            else:
                batches.append(batch)
                number += count
            for backend in "abcde":
                if random.random() < 0.05:
                    group[backend].up = not group[backend].up
                group[backend].seconds = random.choice([0.0, 0.1, 3.0])
            if random.random() < 0.05:
                group.use(*sorted(random.sample("abcde", random.randint(1, 5))))
            assert not sender.line().problems()
            await asyncio.sleep(random.choice([0.0, 1.0, 5.0]))
        for backend in "abcde":
            group[backend].up = True
        await settled(*batches)
        assert all(receipt.count(Outcome.DELIVERED) == items for batch in batches for receipt, items in batch.shares)
        assert sum(everything(group).values()) == 2 * number
        assert {*everything(group).values()} <= {1}
        assert sender.line().in_flight == 0

    balance(scenario, *"abcde", queue=Queue(queue_size=20, num_consumers=2))


class Watching:
    """Moves what it is told has failed, by settling it."""

    def __init__(self):
        self.failures = []
        self.successes = 0

    def delivered(self, _seconds):
        self.successes += 1

    def failed(self, batch, _error, _pipeline):
        self.failures.append(batch)
        batch.settle(Outcome.FILTERED)
        return Move.DONE


def test_a_connector_sees_one_exporter_that_fails_when_all_backends_do(balance):
    async def scenario(group, sender):
        watcher = Watching()
        sender.watch(watcher)
        group["a"].up = False
        batches = [traces(number) for number in range(30)]
        for batch in batches:
            sender.consume(batch)
        await settled(*batches)
        assert not watcher.failures
        assert (watcher.successes, sender.broken, sender.backlog) == (30, False, 0)
        group["b"].up = False
        batches = [traces(number) for number in range(30, 60)]
        for batch in batches:
            sender.consume(batch)
        await settled(*batches)
        assert watcher.failures
        assert sender.broken
        assert sender.blocked_until > 0
        sender.unwatch(watcher)
        sender.unwatch(watcher)
        assert sender.line().delivered == 60

    balance(scenario, "a", "b")


def test_a_connector_may_move_what_waits(balance):
    async def scenario(group, sender):
        group["a"].seconds = group["b"].seconds = 5.0
        batches = [traces(number) for number in range(60)]
        for batch in batches:
            sender.consume(batch)
        await asyncio.sleep(0.1)
        moved = []
        sender.move("", lambda batch: moved.append(batch) or True)
        assert len(moved) == 40, "twenty are being sent"
        for batch in moved:
            batch.settle(Outcome.FILTERED)
        await settled(*batches)

    balance(scenario, "a", "b")
