"""A small life of each component that keeps files, run while one system call fails, and the restart after it.

`run` returns what the component has promised to keep; `check` starts it again and holds it to that. Both add what an
operator would see to `reports`, beside the log.
"""

import asyncio
import json
from types import SimpleNamespace

import structlog
from structlog.testing import capture_logs

from otelwp_agent.config.storage_encryption import StorageEncryption
from otelwp_agent.dead_letters.file import read_bodies, read_letters
from otelwp_agent.dead_letters.records import Fate
from otelwp_agent.dead_letters.sink import DeadLetterFile, Resent
from otelwp_agent.errors import Overloaded, StartError
from otelwp_agent.journal.audit import audit_directory
from otelwp_agent.journal.claims import JournalClaim
from otelwp_agent.journal.recovery import read_directory
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Ledger, Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.processors.adaptive_sampling.recorder import FlightRecorder
from otelwp_agent.processors.adaptive_sampling.state_file import StateFile
from otelwp_agent.sampling.adaptive.controller import Controller
from otelwp_agent.sampling.adaptive.state import state_of
from otelwp_agent.telemetry.metrics import Registry
from tests.journal.conftest import ENCRYPTION, KEYS, Life, Request
from tests.kit.graphs import until
from tests.processors.adaptive_sampling.test_recorder import request, trace_id
from tests.sampling.adaptive.test_state import POLICY, traces

START_REFUSED = "the start is refused"
REFUSED = "senders are refused"
UNHEALTHY = "health is bad"
KEPT_BY_SENDER = "put returns False"


class Journal:
    """Requests of three segments, some settled, on top of what an earlier run has left."""

    def __init__(self, encryption=None):
        self.encryption = encryption
        self.name = self.kind + (", encrypted" if encryption else "")

    kind = "journal"

    def _life(self, directory):
        return Life(directory, max_size="1MiB", encryption=self.encryption)

    def prepare(self, folder):
        async def play():
            life = self._life(folder / "journal")
            await life.put(b"earlier", b"waits")
            await life.journal.close()

        asyncio.run(play())
        (segment,) = (folder / "journal").glob("*.journal")
        with segment.open("ab") as file:
            file.write(b"half a record")  # a write that a crash has cut off

    async def run(self, folder, reports, faults):
        promised = {b"earlier", b"waits"}
        try:
            life = self._life(folder / "journal")
        except StartError:
            reports.add(START_REFUSED)
            return promised
        for entry, record, _ in life.replay():
            if record.body() == b"earlier":
                promised.discard(b"earlier")
                claim = JournalClaim(entry, 0, life.ledgers.get("traces", "otlp", ""))
                claim.receipt.settle(Outcome.DELIVERED, 2)
            else:
                entry.parked = True  # its exporter has no capacity: it waits again
                life.journal.closed(entry)
        running = {}
        for body in (b"a", *[letter * 150_000 for letter in (b"b", b"c", b"d", b"e", b"f")], b"g"):
            await self._put(life, body, running, reports)
            await until(lambda: not life.journal._store._deleting)  # or threads would race for the Nth call
            while len(running) > 2:
                running.pop(next(iter(running))).settle()
        promised |= set(running)
        await self._meanwhile(life, faults)
        await life.journal._commits.quiet()
        if life.journal.health().message:
            reports.add(UNHEALTHY)
        await until(lambda: not life.journal._store._deleting)
        await life.journal.close()
        await asyncio.sleep(0)  # what the deleting thread reports
        return promised

    async def _put(self, life, body, running, reports):
        for _ in range(2):  # a sender that is refused tries once more
            request = Request(life, body, 2, ("traces",), "")
            try:
                life.journal.append(request)
                await life.journal._commits.quiet()
            except Overloaded:
                pass
            life.journal._failure.refuse_until = 0.0
            if request.entry is not None:
                running[body] = request
                return
            reports.add(REFUSED)

    async def _meanwhile(self, life, _faults):
        life.journal._store.find_displaced()

    async def check(self, folder, promised):
        self._hold(folder / "journal", promised, set())

    def _hold(self, directory, promised, found, *, audit=True):
        """Start again, and hold the journal to what was acknowledged; `found` is elsewhere."""
        life = self._life(directory)
        try:
            missing = promised - found - {replay[1].body() for replay in life.replay()}
            assert not missing, f"acknowledged requests are lost: {[body[:9] for body in missing]}"
            assert life.recovered.missing == 0, "a lost tail is reported where none is lost"
            assert life.recovered.damage == [], "damage is reported where no byte was changed"
        finally:
            life.kill()
        report = audit_directory(directory, KEYS)
        assert report.balances or not audit, report.all_problems()


class MovedJournal(Journal):
    """The first start of a journal, whose directory somebody moves away while it runs."""

    kind = "journal, moved away"

    def prepare(self, folder):
        pass

    async def run(self, folder, reports, faults):
        try:
            life = self._life(folder / "made" / "journal")
        except StartError:
            reports.add(START_REFUSED)
            return set()
        running = {}
        await self._put(life, b"before", running, reports)
        with faults.aside():
            (folder / "made" / "journal").rename(folder / "moved")
        await self._put(life, b"after", running, reports)
        life.journal._store.find_displaced()
        life.journal._commits.commit()
        await life.journal._commits.quiet()
        if life.journal.health().message:
            reports.add(UNHEALTHY)
        await life.journal.close()
        return set(running)

    async def check(self, folder, promised):
        moved = folder / "moved"
        found = set(bodies_in(moved)) if moved.exists() else set()
        self._hold(folder / "made" / "journal", promised, found, audit=False)  # the accounts know what was moved away


def bodies_in(directory):
    """Yield the bodies in a directory, which the operator would have to bring back."""
    recovered = read_directory(directory, write=False, keys=KEYS)
    for segment in recovered.segments:
        for index in range(len(segment.states)):
            record = segment.entry(index)
            if record is not None:
                yield record.body()
    recovered.close()


class DeadLetters:
    """Letters that are put, sent once more, delivered and removed, in a file that an earlier run has left."""

    def __init__(self, encryption=None):
        self.keys = KEYS if encryption else None
        self.name = "dead letters" + (", encrypted" if encryption else "")

    def prepare(self, folder):
        async def play():
            sink = self._sink(folder)
            sink.open()
            sink.put(_batch(b"earlier"), exporter="x", reason="malformed", error="")
            sink.close()

        asyncio.run(play())

    def _sink(self, folder):
        return DeadLetterFile(folder / "letters" / "dead", 2**20, Registry(), structlog.get_logger(), keys=self.keys)

    async def run(self, folder, reports, faults):
        promised = {b"earlier"}
        sink = self._sink(folder)
        try:
            sink.open()
        except StartError:
            reports.add(START_REFUSED)
            return promised
        for body in (b"one", b"two" * 30_000, b"three"):
            for _ in range(2):  # with a journal, what is not written is sent again
                if sink.put(_batch(body), exporter="x", reason="malformed", error="") is not Fate.FAILED:
                    promised.add(body)
                    break
                reports.add(KEPT_BY_SENDER)
            sink.flush()
        try:
            letters = read_letters(sink.path).letters
        except OSError:
            reports.add("reading fails for `dead-letter list`")
            letters = []
        for letter in letters:
            if letter.size == 90_000:
                receipt = Resent(letter, sink.settled)
                receipt.settle(Outcome.DELIVERED, letter.items)
                promised.discard(b"two" * 30_000)
        sink.flush()
        sink.flush()
        sink.close()
        return promised

    async def check(self, folder, promised):
        sink = self._sink(folder)
        sink.open()
        sink.close()
        path = folder / "letters" / "dead"
        found = {body for _, body in read_bodies(path, [letter.id for letter in read_letters(path).letters], KEYS)}
        missing = promised - found
        assert not missing, f"dead letters are lost: {[body[:9] for body in missing]}"


def _batch(body):
    return Batch(Signal.TRACES, body, 1, Origin("otlp", "http", ""), ((Receipt(1), 1),))


class Recorder:
    """Dropped traces that go to files, of which the oldest are removed, and one that is rescued."""

    def __init__(self, encryption=None):
        self.encryption = StorageEncryption(**encryption) if encryption else None
        self.name = "flight recorder" + (", encrypted" if encryption else "")

    def prepare(self, folder):
        recorder = self._recorder(folder)
        recorder.start()
        self._record(recorder, range(1, 5))
        recorder.shutdown()

    def _recorder(self, folder):
        return FlightRecorder(
            0, str(folder / "recorded"), 500_000, structlog.get_logger(), lambda _: Ledger(), self.encryption
        )

    def _record(self, recorder, numbers):
        for number in numbers:
            recorder.record(request(number, size=140_000), [trace_id(number)], Origin("o", "h", ""), 1000.0)

    async def run(self, folder, reports, faults):
        recorder = self._recorder(folder)
        try:
            recorder.start()
        except OSError:
            reports.add(START_REFUSED)  # as the processor makes of it
            return
        self._record(recorder, range(5, 9))
        recorder.rescue(trace_id(7))
        recorder.shutdown()
        return

    async def check(self, folder, _promised):
        recorder = self._recorder(folder)
        recorder.start()
        recorder.rescue(since=0.0)
        recorder.shutdown()
        assert not list((folder / "recorded").glob("*.new")), "a part of a file is left"


class State:
    """What a controller has learned, read at the start and written twice."""

    name = "sampling state"

    def prepare(self, folder):
        file = self._file(folder, 1.0)
        file.load()
        asyncio.run(file.save())
        self._earlier = self._read(folder)

    def _file(self, folder, now):
        """Return the file of a controller that says when it was written, so that versions differ."""
        log = structlog.get_logger()
        context = SimpleNamespace(id="s", pipeline="p", clock=lambda: now, log=log)
        return StateFile(str(folder / "state"), Controller(POLICY, now), context)

    async def run(self, folder, reports, faults):
        versions = [self._earlier]
        for now in (2.0, 3.0):
            file = self._file(folder, now)
            try:
                file.load()
            except StartError:
                reports.add(START_REFUSED)
                return versions
            for _, trace in traces(20, seed=int(now)):
                file._controller.decide(trace, now)
            versions.append(json.loads(json.dumps(state_of(file._controller, now))))
            await file.save()
        return versions

    def _read(self, folder):
        return json.loads((folder / "state" / "s p.json").read_bytes())

    async def check(self, folder, versions):
        assert self._read(folder) in versions, "the state is neither the old one nor the new one"
        with capture_logs() as log:
            self._file(folder, 4.0).load()
        assert log == [], "the state cannot be read"
        assert [path.name for path in (folder / "state").iterdir()] == ["s p.json"], "a part of a file is left"


SCENARIOS = (
    *[kind(encryption) for kind in (Journal, MovedJournal, DeadLetters, Recorder) for encryption in (None, ENCRYPTION)],
    State(),
)
