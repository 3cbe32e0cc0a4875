import asyncio
import os
from pathlib import Path

import pytest
import structlog

from otelwp_agent.at_rest.loading import load_keys
from otelwp_agent.config.service import JournalConfig
from otelwp_agent.config.storage_encryption import StorageEncryption
from otelwp_agent.journal.claims import JournalClaim
from otelwp_agent.journal.entry_store import EntryStore
from otelwp_agent.journal.journal import Journal
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.ledgers import Ledgers
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.model.signal import Signal
from otelwp_agent.telemetry.metrics import Registry
from tests.journal.entries import make
from tests.kit.otlp import delimited

ENCRYPTION = {"key": "A" * 43 + "="}
"""The section `encryption` with a key."""
PLAIN = pytest.mark.parametrize("encryption", [None], ids=["plain"])
"""Runs a test without encryption only."""
KEYS = load_keys(StorageEncryption(**ENCRYPTION), "encryption")
"""Its keys, which also read what is not encrypted."""


class Request:
    """What the journal is given to write, which remembers what became of it."""

    def __init__(self, life, body, items, pipelines, tenant):
        self.life = life
        self.batch = Batch(Signal.TRACES, body, items, Origin("otlp", "http", tenant), ())
        self.pipelines = pipelines
        self.key = (tenant, pipelines)
        self.ledgers = [life.ledgers.get(pipeline, "otlp", tenant) for pipeline in pipelines]
        self.entry = None
        self.claims = []
        self.error = None

    def origin(self):
        return self.batch.origin

    def written(self, entry):
        self.entry = entry
        self.claims = [JournalClaim(entry, place, ledger) for place, ledger in enumerate(self.ledgers)]

    def refused(self, error):
        self.error = error

    def settle(self, outcome=Outcome.DELIVERED, reason=""):
        for claim in self.claims:
            claim.receipt.settle(outcome, claim.receipt.pending, reason)


class Life:
    """One run of an agent's journal, until it is closed or killed."""

    def __init__(self, directory, **settings):
        self.ledgers = Ledgers()
        self.registry = Registry()
        config = JournalConfig(directory=str(directory), **settings)
        self.journal = Journal(config, self.ledgers, self.registry, structlog.get_logger())
        self.recovered = self.journal.open()

    async def put(self, *bodies, pipelines=("traces",), tenant="", items=2):
        """Write requests and return them once they are on disk, or refused."""
        requests = [Request(self, body, items, pipelines, tenant) for body in bodies]
        for request in requests:
            self.journal.append(request)
        await self._quiet()
        return requests

    async def flush(self):
        self.journal._commits.commit()
        await self._quiet()

    async def _quiet(self):
        async with asyncio.timeout(60):  # a request that is never answered fails the test instead of stopping it
            await self.journal._commits.quiet()

    def replay(self, limit=10**9):
        """Read what waits, and leave it running."""
        found = []
        for replay in self.journal.replays(lambda _context, _done: True):
            found.append(replay)
            if len(found) >= limit:
                break
        return found

    def bodies(self):
        return [replay[1].body() for replay in self.replay()]

    def kill(self):
        """Leave the directory as a `kill -9` does."""
        self.journal._commits.stop()
        segments = list(self.journal._entry_store.segments)
        self.journal._store.close()
        self.journal._entry_store.segments = segments

    def sums(self, pipeline="traces", tenant=""):
        ledger = self.ledgers.get(pipeline, "otlp", tenant)
        return (ledger.accepted, ledger.settled, ledger.in_flight)


@pytest.fixture(params=[None, ENCRYPTION], ids=["plain", "encrypted"])
def encryption(request):
    """Return the section `encryption`; tests that write records themselves set it to `None`."""
    return request.param


@pytest.fixture
def live(encryption, tmp_path):
    """Return what begins a run on the same directory."""
    lives = []

    def begin(**settings):
        settings = {"encryption": encryption, **settings}
        lives.append(Life(tmp_path / "journal", **settings))
        return lives[-1]

    yield begin
    for life in lives:
        life.kill()


def open_files(directory):
    """Return the files below `directory` that this process has open."""
    links = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    return sorted(link for link in links if link.startswith(str(directory)))


@pytest.fixture
def body():
    """Return a body of two spans that tells its number."""
    return lambda number: delimited(1, delimited(2, delimited(2, b"\x2a\x04%04d" % number) * 2))


@pytest.fixture
def opened(monkeypatch):
    """Return a list that gets the flags of each file that is opened."""
    real, flags_of_each = os.open, []

    def spy(path, flags, *arguments, **options):
        flags_of_each.append(flags)
        return real(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", spy)
    return flags_of_each


@pytest.fixture
def entry_store():
    return EntryStore(None, structlog.get_logger())


@pytest.fixture
def segment(tmp_path):
    """Return a segment whose first entry has number 10, with the pipelines `a` and `b` as contexts 0 and 1."""
    segment = make(tmp_path, 4, 10, "a", "b")
    yield segment
    segment.close()


@pytest.fixture
def other(tmp_path):
    segment = make(tmp_path, 5, 20, "b", "a")
    yield segment
    segment.close()
