"""The bounded file of dead letters: counts them and syncs them to disk a few times a second.

A letter is in the file before `put` returns, which survives a crash of the agent; it is on disk `SYNC_INTERVAL` later
at most, which survives a power cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from otelwp_agent.dead_letters.file import LetterFile, LockedError, new_id
from otelwp_agent.dead_letters.records import LONGEST_ERROR, Fate, Letter
from otelwp_agent.errors import AgentError, StartError
from otelwp_agent.fair_share import DEFAULT_SHARE
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.storage import files
from otelwp_agent.telemetry.log_limit import LogLimit
from otelwp_agent.telemetry.metrics import Instrument, InstrumentKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import structlog

    from otelwp_agent.at_rest.keys import StorageKeys
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.telemetry.metrics import Registry

KEPT = Instrument(
    "otelwp_dead_letter_items",
    "Items kept as dead letters. A letter that is resent and refused again is not counted again.",
    labels=("exporter", "reason"),
)
FAILED = Instrument(
    "otelwp_dead_letter_failed_items",
    "Items that could not be written: the file is `full`, or the share of their tenant is (`tenant_full`), or writing "
    "failed (`error`). With a journal, the latter are sent again, and counted each time.",
    labels=("exporter", "cause"),
)
BYTES = Instrument("otelwp_dead_letter_bytes", "Size of the dead-letter file.", InstrumentKind.GAUGE)

SYNC_INTERVAL = 0.1
"""Seconds between two fsyncs: ten a second cost a slow disk (20 ms each) a fifth of its time."""

RETRY_INTERVAL = 1.0
"""Seconds after a failed fsync or rewrite until the next one."""

_CAUSES = {
    "full": "the file is full: resend or purge letters, or raise max_size",
    "tenant_full": "the tenant's letters fill its share of the file: resend or purge them, or raise max_tenant_share",
}
"""Messages about letters that are not kept, by the label `cause`."""

_WORTH_REWRITING = 64 * 1024
"""Bytes to be got back, below which a file with letters in it is not rewritten."""


class Resent(Receipt):
    """The receipt of a letter that is sent once more."""

    __slots__ = ("letter", "replaced", "rewritten")

    def __init__(self, letter: Letter, on_settled: Callable[[Receipt], None]) -> None:
        """Open an account for the letter's items."""
        super().__init__(letter.items, on_settled)
        self.letter = letter
        self.rewritten = 0
        """Items that were refused again and are in the file with the new reason."""
        self.replaced = False
        """Whether the letter is in the file with the new reason and its old id."""

    @property
    def letter_reason(self) -> str:
        """Reason of the letter, which stays in the file until its items are delivered."""
        return self.letter.reason


class DeadLetterFile:
    """Takes what exporters' other sides refused for good (`sending.delivery.DeadLetters`). For the event loop alone."""

    def __init__(  # noqa: PLR0913 - its settings, and what it reports to
        self,
        path: Path,
        max_size: int,
        registry: Registry,
        log: structlog.typing.FilteringBoundLogger,
        wall: Callable[[], float] = time.time,
        *,
        max_tenant_share: float = DEFAULT_SHARE,
        keys: StorageKeys | None = None,
    ) -> None:
        """Open nothing. With `keys`, letters are encrypted."""
        self.path = path
        self.keys = keys
        self._file = LetterFile(path, max_size, max_tenant_share, keys)
        self._registry = registry
        self._log = log.bind(file=str(path))
        self._wall = wall
        self._last_id = ""
        self._limit = LogLimit(time.monotonic)
        self._sync_limit = LogLimit(time.monotonic)
        self._gone: list[Letter] = []
        self._dirty = False
        self._timer: asyncio.TimerHandle | None = None
        self._synced_at = float("-inf")

    def open(self) -> None:
        """Open the file, making it and its directory if they are missing; raise `StartError` that says what to do."""
        try:
            files.make_directory(self.path.parent)
            reading = self._file.open()
        except LockedError as error:
            raise StartError(f"service.dead_letter.path: {error} Give each agent a file of its own") from error
        except AgentError as error:
            raise StartError(f"service.dead_letter.path: {error}: give another path, or move it away") from error
        except OSError as error:
            raise StartError(
                f"service.dead_letter.path: cannot write {self.path}: {error.strerror}: let this user write there, "
                "give another path, or `none`"
            ) from error
        self._last_id = max((letter.id for letter in reading.letters), default="")
        self._registry.gauge(BYTES, lambda: self._file.size)
        if reading.damaged:
            self._log.error(
                "dead letters damaged; parts skipped",
                places=reading.damaged,
                damaged_bytes=reading.damaged_bytes,
            )
        if reading.letters:
            self._log.info("dead letters wait: see `otelwp-agent dead-letter list`", letters=len(reading.letters))

    def close(self) -> None:
        """Force everything to disk and close the file."""
        self.flush()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._file.close()

    def put(self, batch: Batch, *, exporter: str, reason: str, error: str) -> Fate:
        """Keep a batch that `exporter` gives up because of `reason`, and return whether it is kept. Never raises."""
        try:
            new = self._put(batch, exporter, reason, error)
        except Exception as problem:  # noqa: BLE001 - a failure here must not affect the sender that drops the batch
            what = problem.strerror if isinstance(problem, OSError) else repr(problem)
            self._failed(batch, exporter, "error", f"cannot write: {what}")
            return Fate.FAILED
        if isinstance(new, str):
            self._failed(batch, exporter, new, _CAUSES[new])
            return Fate.LOST
        self._registry.counter(KEPT, exporter=exporter, reason=reason).add(new)
        return Fate.KEPT

    def settled(self, receipt: Receipt) -> None:
        """Take the letter of a `Resent` away, unless it is needed still. Never raises."""
        assert isinstance(receipt, Resent)  # noqa: S101 - nothing else is given this callback
        if not receipt.replaced and receipt.count(Outcome.DROPPED) <= receipt.rewritten:
            self._gone.append(receipt.letter)
            self._soon()

    def purge(self, drop: Callable[[Letter], bool]) -> list[Letter]:
        """Take letters away, bytes and all; return them. Raises `OSError`."""
        self.flush()
        return self._file.rewrite(drop)

    def _put(self, batch: Batch, exporter: str, reason: str, error: str) -> int | str:
        """Write a letter; return how many of its items no earlier letter had, or the cause if there is no capacity."""
        if not self._file.is_in_place:
            self._reopen()
        resent = [(receipt, items) for receipt, items in batch.shares if isinstance(receipt, Resent)]
        whole = len(batch.shares) == 1 and len(resent) == 1 and resent[0][1] == resent[0][0].items
        now, origin = self._wall(), batch.origin
        if whole:
            identifier = resent[0][0].letter.id
        else:
            identifier = self._last_id = new_id(now, self._last_id)
        letter = Letter(
            identifier,
            now,
            exporter,
            batch.signal,
            batch.items,
            len(batch.body),
            reason,
            error[:LONGEST_ERROR],
            origin.receiver,
            origin.transport,
            origin.tenant,
            batch.encodings,
        )
        if self._file.exceeds_share(letter):
            return "tenant_full"
        if not self._file.append(letter, batch.body):
            return "full"
        for receipt, items in resent:
            receipt.rewritten += items
        if whole:
            resent[0][0].replaced = True
            self._file.replaced(resent[0][0].letter)
        self._dirty = True
        self._soon()
        return batch.items - sum([items for _, items in resent])

    def _reopen(self) -> None:
        """Begin a new file in the place of one that was removed or replaced; raises `OSError`, `AgentError`."""
        if self._file.is_open:
            self._log.error(
                "dead-letter file was removed or replaced; a new one begins",
                advice="remove letters with `otelwp-agent dead-letter purge`; these are lost unless the file was moved",
            )
            self._file.close()
            self._gone = []
        files.make_directory(self.path.parent)
        self._file.open()

    def _failed(self, batch: Batch, exporter: str, cause: str, why: str) -> None:
        self._registry.counter(FAILED, exporter=exporter, cause=cause).add(batch.items)
        items = self._limit.take(batch.items)
        if items:
            self._log.error("dead letters not written", exporter=exporter, items=items, error=why)

    def _soon(self) -> None:
        """Have what was written forced to disk: now, or when it is time for that again."""
        if self._timer is not None:
            return
        loop = asyncio.get_running_loop()
        wait = self._synced_at + SYNC_INTERVAL - loop.time()
        if wait <= 0:
            self._synced_at = loop.time()
            self.flush()
        else:
            self._timer = loop.call_later(wait, self._on_time)

    def _on_time(self) -> None:
        self._synced_at = asyncio.get_running_loop().time()
        self.flush()

    def flush(self) -> None:
        """Note what is gone, force it all to disk, rewrite the file if half of it is dead. Never raises."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._file.is_open:
            return
        try:
            if self._gone:
                self._file.remove(self._gone)
                self._gone = []
                self._dirty = True
            dead, living = self._file.dead_bytes, self._file.living_bytes
            if (dead and not living) or dead > max(living, _WORTH_REWRITING):
                self._file.rewrite()
            elif self._dirty:
                self._file.sync()
            self._dirty = False
        except OSError as error:
            self._dirty = True
            what = self._sync_limit.take()
            if what:
                self._log.error("dead letters not on disk", error=error.strerror, retry_seconds=RETRY_INTERVAL)
            self._retry()

    def _retry(self) -> None:
        """Try again in `RETRY_INTERVAL`; at a stop nothing more can be done."""
        with contextlib.suppress(RuntimeError):
            self._timer = asyncio.get_running_loop().call_later(RETRY_INTERVAL, self._on_time)
