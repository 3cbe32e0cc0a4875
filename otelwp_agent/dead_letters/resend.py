"""Send dead letters once more.

A letter stays in the file until each of its items was delivered or is in the file again with a new reason. So a stop or
a crash on the way loses nothing; what was delivered just before a crash may be sent again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from otelwp_agent.dead_letters.file import read_bodies, read_letters
from otelwp_agent.dead_letters.sink import Resent
from otelwp_agent.errors import ConsumeError, Overloaded
from otelwp_agent.model.receipt import Outcome, Receipt

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from otelwp_agent.at_rest.keys import StorageKeys
    from otelwp_agent.dead_letters.records import Letter
    from otelwp_agent.dead_letters.sink import DeadLetterFile
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.model.signal import Signal

AT_ONCE = 8
"""Letters under way at once: what newly arrives has the most of an exporter's queue to itself."""

PATIENCE = 0.05
"""Seconds until a full queue is asked again."""

_CHUNK_BYTES = 4 * 2**20
_CHUNK_LETTERS = 1000
"""Bodies read from the file at a time."""


class Destination(Protocol):
    """Sender that letters are resent to (`sending.sender.Sender`)."""

    def consume(self, batch: Batch) -> None:
        """Accept the batch, or raise a `ConsumeError`."""

    def resent(self, items: int, reason: str) -> None:
        """Count items that it had kept as a letter because of `reason` as in flight again."""


@dataclass(slots=True)
class Choice:
    """Which letters to resend, and where to. Without ids, all; `exporter` restricts that to those of one."""

    ids: Collection[str] | None = None
    exporter: str = ""
    to: str = ""
    """The exporter that gets them; each letter's own if empty."""

    def takes(self, letter: Letter) -> bool:
        """Whether a letter is among them."""
        return (self.ids is None or letter.id in self.ids) and self.exporter in {"", letter.exporter}


@dataclass(slots=True)
class Progress:
    """Outcomes so far of the letters to resend."""

    letters: int = 0
    """To be resent in all."""
    delivered: int = 0
    refused: int = 0
    """Refused again, with a new reason."""
    kept: int = 0
    """Not delivered and not refused: the agent stops, or the queue gave them up."""
    unknown: list[str] = field(default_factory=list)
    """Ids that no letter has."""
    without_exporter: dict[str, int] = field(default_factory=dict)
    """Letters of exporters that do not run, by exporter."""
    error: str = ""
    """Why the run ended before its time."""

    @property
    def pending(self) -> int:
        """Letters whose outcome is not known yet."""
        return self.letters - self.delivered - self.refused - self.kept - sum(self.without_exporter.values())

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "letters": self.letters,
            "delivered": self.delivered,
            "refused": self.refused,
            "kept": self.kept,
            "pending": self.pending,
            "unknown": self.unknown,
            "without_exporter": self.without_exporter,
        }


class Resending:
    """One run over the letters of `sink` that `choice` takes. `sender(exporter, signal)` finds where each goes now."""

    def __init__(
        self, sink: DeadLetterFile, choice: Choice, sender: Callable[[str, Signal], Destination | None]
    ) -> None:
        """Send nothing yet."""
        self.progress = Progress()
        self._sink = sink
        self._choice = choice
        self._sender = sender
        self._under_way = 0
        self._news = asyncio.Event()

    async def run(self) -> Progress:
        """Send all of them; return their outcomes once all are known."""
        path, choice, progress = self._sink.path, self._choice, self.progress
        letters = [letter for letter in (await asyncio.to_thread(read_letters, path)).letters if choice.takes(letter)]
        progress.letters = len(letters)
        progress.unknown = sorted(set(choice.ids or ()) - {letter.id for letter in letters})
        for chunk in _chunks(letters):
            for letter, body in await asyncio.to_thread(_bodies, path, chunk, self._sink.keys):
                await self._send(letter, body)
        await self._until(lambda: not self._under_way)
        self._sink.flush()  # the caller may read the file at once
        return progress

    async def _send(self, letter: Letter, body: bytes) -> None:
        await self._until(lambda: self._under_way < AT_ONCE)
        receipt = Resent(letter, self._settled)
        batch = letter.batch(body, ((receipt, letter.items),))
        name = self._choice.to or letter.exporter
        while True:
            sender = self._sender(name, letter.signal)
            if sender is None:
                missing = self.progress.without_exporter
                missing[name] = missing.get(name, 0) + 1
                return
            try:
                sender.consume(batch)
            except Overloaded:
                await self._pause()
            except ConsumeError:
                self.progress.kept += 1
                return
            else:
                self._under_way += 1
                if name == letter.exporter:
                    sender.resent(letter.items, letter.reason)
                return

    def _settled(self, receipt: Receipt) -> None:
        assert isinstance(receipt, Resent)  # noqa: S101 - see `_send`
        if not receipt.count(Outcome.DROPPED):
            self.progress.delivered += 1
        elif receipt.rewritten:
            self.progress.refused += 1
        else:
            self.progress.kept += 1
        self._under_way -= 1
        self._news.set()
        self._sink.settled(receipt)

    async def _pause(self) -> None:
        """Wait until one of ours has left the queue, or a little."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._wait()
        except TimeoutError:
            return

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._wait()

    async def _wait(self) -> None:
        self._news.clear()
        await self._news.wait()


def _bodies(path: Path, ids: Collection[str], keys: StorageKeys | None) -> list[tuple[Letter, bytes]]:
    return list(read_bodies(path, ids, keys))


def _chunks(letters: Sequence[Letter]) -> Iterator[set[str]]:
    """Yield the letters' ids in groups whose bodies fit into memory."""
    group: set[str] = set()
    size = 0
    for letter in letters:
        if group and (size + letter.size > _CHUNK_BYTES or len(group) == _CHUNK_LETTERS):
            yield group
            group, size = set(), 0
        group.add(letter.id)
        size += letter.size
    if group:
        yield group
