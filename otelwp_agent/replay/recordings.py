"""Recorded traces, and when they came: what the `file` exporter wrote, or what stands in a journal.

Neither tells when a request came. A request comes when its last span has ended, give or take what the sender held it
back; so the latest end of a span is taken for the time, and time never goes back. Clocks that are far ahead of all
others around are not believed.
"""

from __future__ import annotations

import mmap
from collections import deque
from dataclasses import dataclass
from statistics import median_low
from typing import TYPE_CHECKING

from otelwp_agent.codecs.otlp_json import decode
from otelwp_agent.errors import AgentError, ConsumeError
from otelwp_agent.journal.records import Damage, Kind
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

    from otelwp_agent.journal.segment import Segment

AROUND = 50
"""Requests before and after one, which tell whether its clock can be believed."""
AHEAD = 60.0
"""Seconds that a clock may be ahead of theirs."""
LONGEST_GAP = 3600.0
"""Seconds without a request; a longer time counts as this long, for by then all rates are forgotten."""

_SECOND = 1e-9
_LENGTH_BYTES = 4
_LARGEST = 2**30
_ZSTD = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, slots=True)
class Recorded:
    """One request."""

    body: bytes
    items: int
    origin: Origin
    ended: int
    """When its last span ended, in nanoseconds since 1970; 0 if no span says."""


class Recording:
    """Requests from files or a journal. `skipped` counts what is no request of traces, by why, once it was read."""

    def __init__(self) -> None:
        """Have read nothing."""
        self.skipped: dict[str, int] = {}

    def skip(self, why: str) -> None:
        """Count something that was left out."""
        self.skipped[why] = self.skipped.get(why, 0) + 1

    def from_files(self, paths: Sequence[Path]) -> Iterator[Recorded]:
        """Yield what the `file` exporter wrote, file after file. Raises `AgentError` if a file is something else."""
        origin = Origin("file", "file")
        for path in paths:
            try:
                for body in self._bodies(path):
                    recorded = self._recorded(body, origin)
                    if recorded is not None:
                        yield recorded
            except OSError as error:
                raise AgentError(f"cannot read {path}: {error.strerror}") from error

    def from_journal(self, directory: Path, pipelines: frozenset[str], wanted: str) -> Iterator[Recorded]:
        """Yield the requests in a journal, those already delivered as far as they still stand there.

        What came for other `pipelines` than the one `wanted` is left out. Raises `AgentError`.
        """
        try:
            segments = read_directory(directory, write=False).segments
        except FileNotFoundError:
            segments = []
        except OSError as error:
            raise AgentError(f"cannot read the journal {directory}: {error.strerror}") from error
        if not segments:
            raise AgentError(
                f"there is no journal in {directory}: no agent has run with it, or it is another directory"
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
            if isinstance(found, Damage):
                self.skip("damaged")
                continue
            if found.kind not in {Kind.ENTRY, Kind.MOVED}:
                continue
            seen.add(found.seq)
            if found.kind is Kind.MOVED and found.moved_from() in seen:
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
        """Yield requests of traces in wire form."""
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
                raise AgentError(f"{place}: this is no OTLP/JSON: the `file` exporter writes one request a line")
            self.skip("other signals")
            return None
        try:
            return decode(Signal.TRACES, line)
        except ConsumeError as error:
            if first:
                raise AgentError(f"{place}: this is no OTLP/JSON: {error}") from error
            self.skip("unreadable")
            return None

    def _of_messages(self, data: mmap.mmap, path: Path) -> Iterator[bytes]:
        """Yield what stands behind its length, in a file of `format: proto`, or compressed."""
        offset = 0
        while offset < len(data):
            length = int.from_bytes(data[offset : offset + _LENGTH_BYTES], "big")
            end = offset + _LENGTH_BYTES + length
            if length > _LARGEST or end > len(data):
                if offset:
                    self.skip("cut off")
                    return
                raise AgentError(f"{path}: this is nothing that the `file` exporter wrote")
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
    """Yield requests with the seconds after the first at which each came."""
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
