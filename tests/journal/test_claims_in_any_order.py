"""Every way in which requests may go through fan-outs, and crashes: no item is lost, and all accounts balance."""

import asyncio
import re
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from otelwp_agent.errors import ConsumeError, Overloaded
from otelwp_agent.journal.audit import audit_directory
from otelwp_agent.journal.claims import JournalClaim
from otelwp_agent.journal.segment import Segment
from otelwp_agent.model.batch import Batch, Origin, merge
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.model.signal import Signal
from tests.journal.conftest import KEYS, Life
from tests.kit.branches import fan
from tests.kit.otlp import delimited

BRANCHES = {0: ("x", "y", "z"), 1: ("v", "w")}


ITEM = re.compile(rb"\x2a\x04(\d{4})")


OUTCOMES = st.sampled_from(Outcome)


WHICH = st.integers(0, 999)


def body_of(numbers):
    return delimited(1, delimited(2, b"".join(delimited(2, b"\x2a\x04%04d" % number) for number in numbers)))


class Branch:
    def __init__(self):
        self.full = False
        self.held = []
        """Of each share: receipt, and the numbers of its items."""

    def consume(self, batch):
        if self.full:
            raise Overloaded("full")
        numbers = [int(number) for number in ITEM.findall(batch.body)]
        for receipt, items in batch.shares:
            self.held.append((receipt, numbers[:items]))
            numbers = numbers[items:]
        assert not numbers


class Requests(RuleBasedStateMachine):
    """An agent that takes requests, divides and merges them, hands them to branches that may be full, and dies.

    Whatever happens: no item that was taken is ever forgotten, for no branch; none comes twice to a branch but after a
    crash or from what had to wait; and the accounts balance at each step, in memory and on disk.
    """

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = Path(tempfile.mkdtemp())
        self.items = 0
        self.taken = {}
        """Of each item: how many pipelines it enters."""
        self.again = set()
        """Items that were read from the journal again."""
        self.settled = Counter()
        """How often an item has been settled, by pipeline, branch and item."""
        self.failing = 0
        self.begin()

    def begin(self):
        self.life = Life(self.directory, sync="none")
        journal = self.life.journal
        journal._store._segment_bytes = 600  # so that entries move
        journal._store._max_size = journal._admission.max_size = 2500
        journal._admission.measure()
        self.upstream = []
        """Of each part of a request that is on its way: place of its pipeline, receipt, numbers of its items."""
        self.branches = {place: [Branch() for _ in names] for place, names in BRANCHES.items()}

    def run(self, work):
        async def go():
            result = work()
            return await result if asyncio.iscoroutine(result) else result

        return self.loop.run_until_complete(go())

    def feed(self, claims, numbers, cut):
        for claim in claims:
            cut = min(cut, len(numbers))
            for part in (numbers[:cut], numbers[cut:]):
                if part:
                    self.upstream.append((claim.pipeline, claim.receipt.part(len(part)), part))

    @rule(items=st.integers(1, 5), pipelines=st.integers(1, 2), cut=st.integers(0, 5))
    def arrive(self, items, pipelines, cut):
        numbers = list(range(self.items, self.items + items))
        self.items += items
        names = ("a", "b")[:pipelines]
        try:
            (request,) = self.run(lambda: self.life.put(body_of(numbers), pipelines=names, items=items))
        except Overloaded:
            return
        if request.error is None:
            self.taken.update(dict.fromkeys(numbers, pipelines))
            self.feed(request.claims, numbers, cut)

    # No rule has a precondition: the journal's timers run in real time, so a repeated example may have other parts.

    @rule(which=WHICH, more=st.booleans(), full=st.sets(st.integers(0, 2)))
    def hand_on(self, which, more, full):
        if not self.upstream:
            return
        place, *part = self.upstream.pop(which % len(self.upstream))
        parts = [part]
        others = [each for each in self.upstream if each[0] == place]
        if more and others:
            self.upstream.remove(others[0])
            parts.append(others[0][1:])
        batches = [
            Batch(Signal.TRACES, body_of(numbers), len(numbers), Origin(), ((receipt, len(numbers)),))
            for receipt, numbers in parts
        ]
        for at, branch in enumerate(self.branches[place]):
            branch.full = at in full
        fan_out = fan(self.branches[place], BRANCHES[place])
        try:
            self.run(lambda: fan_out.consume(merge(batches)))
        except ConsumeError:
            self.upstream += [(place, *part) for part in parts]

    @rule(which=WHICH, outcome=OUTCOMES, wait=st.booleans())
    def end_upstream(self, which, outcome, wait):
        if not self.upstream:
            return
        place, receipt, numbers = self.upstream.pop(which % len(self.upstream))
        if wait:
            self.run(lambda: receipt.park(len(numbers)))
        else:
            self.run(lambda: receipt.settle(outcome, len(numbers), "told to"))
            self.settled.update((place, name, number) for number in numbers for name in BRANCHES[place])

    @rule(place=st.sampled_from((0, 0, 1)), at=st.integers(0, 2), which=WHICH, outcome=OUTCOMES, part=st.integers(1, 9))
    def settle(self, place, at, which, outcome, part):
        at %= len(BRANCHES[place])
        held = self.branches[place][at].held
        if held:
            receipt, numbers = held.pop(which % len(held))
            if numbers[part:]:
                held.append((receipt, numbers[part:]))
            self.run(lambda: receipt.settle(outcome, len(numbers[:part]), "told to"))
            self.settled.update((place, BRANCHES[place][at], number) for number in numbers[:part])

    @rule(keep=st.integers(0, 3))
    def settle_most(self, keep):
        while len(self.upstream) > keep:
            self.hand_on(which=0, more=False, full=set())
        for place, branches in self.branches.items():
            for at, branch in enumerate(branches):
                while len(branch.held) > keep:
                    self.settle(place, at, 0, Outcome.DELIVERED, 9)

    @rule(place=st.integers(0, 1), at=st.integers(0, 2), which=WHICH)
    def abandon(self, place, at, which):
        held = self.branches[place][at % len(BRANCHES[place])].held
        if held:
            receipt, numbers = held.pop(which % len(held))
            self.run(lambda: receipt.park(len(numbers)))

    @rule(most=st.integers(1, 4), cut=st.integers(0, 5))
    def read_again(self, most, cut):
        self.run(lambda: self.replay(most, cut))

    @rule(fails=st.booleans())
    def commit(self, fails):
        write = Segment.write

        def fail(*_, **__):
            raise OSError(28, "No space left on device")

        Segment.write = fail if fails else write
        try:
            self.run(self.life.flush)
        finally:
            Segment.write = write
        self.life.journal._failure.refuse_until = 0.0

    @rule()
    def crash(self):
        self.life.kill()
        report = audit_directory(self.directory, KEYS)
        assert report.balances, report.all_problems()
        self.begin()

    @invariant()
    def accounts_balance(self):
        found = self.life.journal.live()
        for ledger in self.life.ledgers:
            assert ledger.in_flight == found.get(ledger.key, 0)

    @invariant()
    def nothing_comes_twice_that_came_once(self):
        for (place, name, number), times in self.settled.items():
            assert times == 1 or number in self.again, (place, name, number)

    def replay(self, most, cut):
        for entry, record, context in self.life.replay(most):
            numbers = [int(number) for number in ITEM.findall(record.body())]
            self.again.update(numbers)
            for place, done in entry.done:
                for name in [done] if done else BRANCHES[place]:
                    assert all(self.settled[place, name, number] for number in numbers), "not done at all"
            ledgers = [self.life.ledgers.get(pipeline, "otlp", "") for pipeline in context.pipelines]
            claims = [
                JournalClaim(entry, place, ledger)
                for place, ledger in enumerate(ledgers)
                if (place, "") not in entry.done
            ]
            self.feed(claims, numbers, cut)
            if not claims:
                self.life.journal.closed(entry)

    def teardown(self):
        try:
            for branch in [branch for branches in self.branches.values() for branch in branches]:
                branch.full = False
            for _ in range(100):
                if not self.life.journal.entries:
                    break
                self.read_again(most=1000, cut=0)
                while self.upstream:
                    self.hand_on(which=0, more=False, full=set())
                for place, names in BRANCHES.items():
                    for at in range(len(names)):
                        while self.branches[place][at].held:
                            self.settle(place, at, 0, Outcome.DELIVERED, 9)
            assert self.life.journal.entries == 0
            missing = [
                (place, name, number)
                for number, pipelines in self.taken.items()
                for place in range(pipelines)
                for name in BRANCHES[place]
                if not self.settled[place, name, number]
            ]
            assert missing == []
            self.accounts_balance()
            self.run(self.life.journal.close)
            assert audit_directory(self.directory, KEYS).balances
        finally:
            self.life.kill()
            self.loop.close()
            shutil.rmtree(self.directory)


TestRequests = Requests.TestCase
TestRequests.settings = settings(
    max_examples=50, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
