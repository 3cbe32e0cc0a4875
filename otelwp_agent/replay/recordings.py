"""Read recorded trace requests and estimate their arrival times, from files of the `file` exporter or from a journal.

Neither stores the arrival time of a request. A request arrives soon after its last span has ended, so the latest end of
a span is used, and time never goes backwards. Clocks that are far ahead of all others nearby are ignored.
"""

from __future__ import annotations

import mmap
from collections import deque
from dataclasses import dataclass
from statistics import median_low
from typing import TYPE_CHECKING

from otelwp_agent.codecs.otlp_json import decode
from otelwp_agent.errors import AgentError, ConsumeError
from otelwp_agent.journal.records import JournalDamage, RecordKind
from otelwp_agent.journal.recovery import read_directory
from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.batch import Origin
from otelwp_agent.model.projections import parse
from otelwp_agent.model.signal import Signal
from otelwp_agent.sampling.traces import read
from otelwp_agent.transport.compression import decompress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from otelwp_agent.at_rest.keys import StorageKeys
    from otelwp_agent.journal.segment import Segment

AROUND = 50
"""Number of requests before and after a request that its clock is compared with."""
AHEAD = 60.0
"""Seconds that a clock may be ahead of theirs."""
LONGEST_GAP = 3600.0
"""Longest interval between requests in seconds; longer ones are shortened to it, because all rates are forgotten by
then."""

_SECOND = 1e-9
_LENGTH_BYTES = 4
_LARGEST = 2**30
_ZSTD = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded request."""

    body: bytes
    items: int
    origin: Origin
    ended: int
    """End of its last span in nanoseconds since 1970; 0 if no span has one."""


class Recording:
    """Requests from files or a journal. `skipped` counts, by reason, what was left out while reading."""

    def __init__(self) -> None:
        """Start with zero counts."""
        self.skipped: dict[str, int] = {}

    def skip(self, why: str) -> None:
        """Count something that was left out."""
        self.skipped[why] = self.skipped.get(why, 0) + 1

    def from_files(self, paths: Sequence[Path]) -> Iterator[Recorded]:
        """Yield the requests that the `file` exporter wrote, file after file; raise `AgentError` for any other file."""
        origin = Origin("file", "file")
        for path in paths:
            try:
                for body in self._bodies(path):
                    recorded = self._recorded(body, origin)
                    if recorded is not None:
                        yield recorded
            except OSError as error:
                raise AgentError(f"cannot read {path}: {error.strerror}") from error

    def from_journal(
        self, directory: Path, pipelines: frozenset[str], wanted: str, keys: StorageKeys | None = None
    ) -> Iterator[Recorded]:
        """Yield the requests of a journal, including delivered ones that have not been deleted yet.

        Requests for other `pipelines` than `wanted` are left out. `keys` open encrypted segments. Raises `AgentError`.
        """
        try:
            segments = read_directory(directory, write=False, keys=keys).segments
        except FileNotFoundError:
            segments = []
        except OSError as error:
            raise AgentError(f"cannot read the journal {directory}: {error.strerror}") from error
        if not segments:
            raise AgentError(
                f"there is no journal in {directory}: no agent has used this directory, or the path is wrong"
            )
        seen: set[int] = set()
        try:
            for segment in segments:
                yield from self._of_segment(segment, seen, pipelines - {wanted}, wanted)
        finally:
            for segment in segments:
                segment.close()

    def _of_segment(self, segment: Segment, seen: set[int], others: frozenset[str], wanted: str) -> Iterator[Recorded]:
        for found in segment.scan():
            if isinstance(found, JournalDamage):
                self.skip("damaged")
                continue
            if found.kind not in {RecordKind.ENTRY, RecordKind.MOVED}:
                continue
            seen.add(found.seq)
            if found.kind is RecordKind.MOVED and found.moved_from() in seen:
                continue
            context = segment.contexts.get(found.context)
            if found.signal is not Signal.TRACES or context is None:
                self.skip("other signals")
            elif wanted not in context.pipelines and others.intersection(context.pipelines):
                self.skip("other pipelines")
            else:
                recorded = self._recorded(found.body(), context.origin)
                if recorded is not None:
                    yield recorded

    def _bodies(self, path: Path) -> Iterator[bytes]:
        """Yield trace requests as serialized protobuf."""
        with path.open("rb") as file:
            first = file.read(1)
            file.seek(0)
            if not first:
                return
            if first in b"{ \n\r\t\xef":
                for number, line in enumerate(file, start=1):
                    body = self._of_line(line, f"{path}, line {number}", first=number == 1)
                    if body is not None:
                        yield body
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield from self._of_messages(data, path)

    def _of_line(self, line: bytes, place: str, *, first: bool) -> bytes | None:
        if not line.strip():
            return None
        if b'"resourceSpans"' not in line[:4096] and b'"resource_spans"' not in line[:4096]:
            if first and not (b'"resourceMetrics"' in line or b'"resourceLogs"' in line):
                raise AgentError(f"{place}: not OTLP/JSON: the `file` exporter writes one request a line")
            self.skip("other signals")
            return None
        try:
            return decode(Signal.TRACES, line)
        except ConsumeError as error:
            if first:
                raise AgentError(f"{place}: not OTLP/JSON: {error}") from error
            self.skip("unreadable")
            return None

    def _of_messages(self, data: mmap.mmap, path: Path) -> Iterator[bytes]:
        """Yield length-prefixed requests, from a file of `format: proto`, or a compressed one."""
        offset = 0
        while offset < len(data):
            length = int.from_bytes(data[offset : offset + _LENGTH_BYTES], "big")
            end = offset + _LENGTH_BYTES + length
            if length > _LARGEST or end > len(data):
                if offset:
                    self.skip("cut off")
                    return
                raise AgentError(f"{path}: not a file of the `file` exporter")
            body = bytes(data[offset + _LENGTH_BYTES : end])
            offset = end
            try:
                if body.startswith(_ZSTD):
                    body = decompress("zstd", body, _LARGEST, ratio=0)
                if body.startswith(b"{"):
                    body = self._of_line(body, str(path), first=False) or b""
            except ConsumeError:
                self.skip("unreadable")
                continue
            if body:
                yield body

    def _recorded(self, body: bytes, origin: Origin) -> Recorded | None:
        try:
            request, pieces = read(body)
            spans = [span for place in range(len(pieces)) for span in request.spans(place)]
            ended = max([parse(pb.TraceSpan.FromString, span).end_time_unix_nano for span in spans], default=0)
        except ConsumeError:
            self.skip("unreadable")
            return None
        if not spans:
            self.skip("empty")
            return None
        return Recorded(body, len(spans), origin, ended)


def paced(requests: Iterable[Recorded], recording: Recording) -> Iterator[tuple[float, Recorded]]:
    """Yield requests with their arrival times, in seconds after the first one."""
    coming = iter(requests)
    ahead: deque[Recorded] = deque()
    around: deque[int] = deque(maxlen=2 * AROUND)
    begin: int | None = None
    now = 0.0
    while True:
        while len(ahead) <= AROUND and (following := next(coming, None)) is not None:
            ahead.append(following)
            if following.ended:
                around.append(following.ended)
        if not ahead:
            return
        request = ahead.popleft()
        ended = request.ended
        if ended and ended > median_low(around) + AHEAD / _SECOND:
            recording.skip("clocks ahead")
        elif ended:
            if begin is None:
                begin = ended
            at = (ended - begin) * _SECOND
            if at - now > LONGEST_GAP:
                begin += round((at - now - LONGEST_GAP) / _SECOND)
                at = now + LONGEST_GAP
            now = max(now, at)
        yield now, request
