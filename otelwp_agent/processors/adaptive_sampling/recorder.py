"""The flight recorder: compressed dropped traces, until newer ones need the memory.

Requests are collected into blocks of a quarter of a MiB, which are compressed with zstd. When memory is full, the
oldest block is removed, and written into a folder if one is configured (`recorder_files`). The files are found again
after a restart.
"""

from __future__ import annotations

import os
from collections import deque
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from otelwp_agent.at_rest.errors import FileKeyError, SealedDataError
from otelwp_agent.at_rest.loading import load_keys
from otelwp_agent.errors import ConsumeError
from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.attributes import as_string, decode, find
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.projections import parse
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.processors.adaptive_sampling.recorder_files import decode_recording, encode_recording
from otelwp_agent.processors.adaptive_sampling.verdict import TraceVerdict
from otelwp_agent.sampling.traces import read
from otelwp_agent.storage import files
from otelwp_agent.transport.compression import compress, decompress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import structlog

    from otelwp_agent.at_rest.cipher import FileCipher
    from otelwp_agent.at_rest.keys import StorageKeys
    from otelwp_agent.component import Context
    from otelwp_agent.config.storage_encryption import StorageEncryption
    from otelwp_agent.model.receipt import Ledger
    from otelwp_agent.processors.adaptive_sampling.config import Recorder
    from otelwp_agent.sampling.traces import Choice, TraceRequest

BLOCK = 2**18
"""Bytes that are compressed together."""
_ID_COST = 130
"""Memory in bytes for a trace id in a set."""
RESCUED = TraceVerdict("rescued", None, keep=True)
RESCUE_RECEIVER = "rescue"
"""Receiver that rescued items are accounted to: their own one has settled them already, as sampled out."""


class _Entry(NamedTuple):
    """A request of dropped spans."""

    size: int
    origin: Origin


class _Block:
    """Requests that were dropped at about the same time."""

    def __init__(self, begin: float) -> None:
        self.begin = self.end = begin
        """Seconds since 1970."""
        self.entries: list[_Entry] = []
        self.ids: set[bytes] = set()
        """Traces that have not been rescued."""
        self.bodies: list[bytes] = []
        self.size = 0
        self.data = b""
        """The compressed bodies, once the block is closed. They are in `file` instead if that is set."""
        self.file: Path | None = None
        self.file_size = 0
        self.cipher: FileCipher | None = None
        """Decrypts `file` if it is encrypted."""

    @property
    def cost(self) -> int:
        """Bytes of memory."""
        return (len(self.data) or self.size) + _ID_COST * len(self.ids)

    def close(self) -> None:
        """Compress the bodies."""
        self.data = compress("zstd", b"".join(self.bodies))
        self.bodies = []

    def read(self) -> Iterator[tuple[_Entry, bytes]]:
        """Yield the requests of the block."""
        if self.bodies:
            yield from zip(self.entries, self.bodies, strict=True)
            return
        data = self.data
        if self.file is not None:
            _, data, _ = decode_recording(files.read_file(self.file), None, str(self.file), self.cipher)
        plain = decompress("zstd", data, sum([entry.size for entry in self.entries]), ratio=0)
        start = 0
        for entry in self.entries:
            yield entry, plain[start : start + entry.size]
            start += entry.size


class FlightRecorder:
    """Stores dropped traces, and returns each at most once."""

    def __init__(  # noqa: PLR0913, PLR0917 - its settings, and what it reports to
        self,
        max_bytes: int,
        directory: str,
        max_directory_bytes: int,
        log: structlog.typing.FilteringBoundLogger,
        account: Callable[[str], Ledger],
        encryption: StorageEncryption | None = None,
    ) -> None:
        """Use up to `max_bytes` of memory and, unless `directory` is "", up to `max_directory_bytes` of that folder.

        `account` returns the account of a tenant's rescued items. Files are encrypted as `encryption` says.
        """
        self._encryption = encryption
        self._keys: StorageKeys | None = None
        self._account = account
        self._most = max_bytes
        self._directory = Path(directory) if directory else None
        self._most_in_files = max_directory_bytes
        self._log = log
        self._open: _Block | None = None
        self._blocks: deque[_Block] = deque()
        self._files: deque[_Block] = deque()
        self._number = 0
        self._size = self._in_files = 0

    @classmethod
    def of(cls, settings: Recorder, context: Context) -> FlightRecorder:
        """Return the recorder of one processor."""
        return cls(
            settings.max_bytes,
            settings.directory,
            settings.max_directory_bytes,
            context.log,
            lambda tenant: context.ledgers.get(context.pipeline, RESCUE_RECEIVER, tenant),
            settings.encryption,
        )

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return self._size + (self._open.cost if self._open is not None else 0)

    @property
    def traces(self) -> int:
        """Number of traces, or parts of them, in the recorder."""
        return sum([len(block.ids) for block in self._all()])

    def start(self) -> None:
        """Load the keys and find the files of an earlier run in the folder.

        Raises `OSError` if the folder cannot be used, `StartError` if a key cannot be loaded.
        """
        if self._directory is None:
            return
        self._keys = load_keys(self._encryption, "flight_recorder.encryption")
        locked = 0
        files.make_directory(self._directory)
        for path in sorted(self._directory / name for name in os.listdir(self._directory)):  # noqa: PTH208 - raises, unlike `glob`
            if path.suffix == ".new":
                files.remove(path)  # a write that a crash has cut off
            if path.suffix != ".recorded":
                continue
            self._number = max(self._number, int(path.stem)) if path.stem.isdigit() else self._number
            try:
                block = _read_head(path, self._keys)
            except FileKeyError:
                block = _locked(path)
                locked += 1
            except (OSError, ValueError, KeyError, TypeError, SealedDataError) as error:
                self._log.warning("flight recorder: a block cannot be read", file=str(path), error=str(error))
                continue
            self._files.append(block)
            self._in_files += block.file_size
        if locked:
            self._log.warning(
                "flight recorder: files are encrypted for keys that are not configured; their traces cannot be rescued",
                directory=str(self._directory),
                files=locked,
            )

    def record(self, body: bytes, trace_ids: Sequence[bytes], origin: Origin, now: float) -> None:
        """Store a request of dropped spans; `now` is in seconds since 1970."""
        block = self._open
        if block is None:
            block = self._open = _Block(now)
        block.end = now
        block.ids.update(trace_ids)
        block.bodies.append(body)
        block.entries.append(_Entry(len(body), origin))
        block.size += len(body)
        if block.size >= BLOCK:
            self.flush()
        while self._size > self._most and self._blocks:
            oldest = self._blocks.popleft()
            self._size -= oldest.cost
            self._spill(oldest)

    def flush(self) -> None:
        """Compress the open block."""
        if self._open is not None:
            self._open.close()
            self._blocks.append(self._open)
            self._size += self._open.cost
            self._open = None

    def shutdown(self) -> None:
        """Write all blocks into the folder, if there is one."""
        self.flush()
        if self._directory is not None:
            while self._blocks:
                self._spill(self._blocks.popleft())
            self._size = 0

    def __contains__(self, trace_id: object) -> bool:
        """Return whether the recorder has spans of a trace."""
        return any(trace_id in block.ids for block in self._all())

    def rescue(
        self,
        trace_id: bytes | None = None,
        since: float | None = None,
        where: Mapping[str, str] | None = None,
        tenant: str | None = None,
    ) -> list[Batch]:
        """Return traces as batches with new receipts, and remove them.

        Selects the trace `trace_id`, or those dropped `since`, `where` a span or its resource has attributes with these
        values (`*` matches anything); of all tenants, or of one.
        """
        found = []
        for block in list(self._all()):
            if not block.ids or (trace_id is not None and trace_id not in block.ids):
                continue
            if since is not None and block.end < since:
                continue
            before = block.cost
            found += self._rescue_from(block, trace_id, where or {}, tenant)
            if block in self._blocks:
                self._size += block.cost - before
        return found

    def _rescue_from(
        self, block: _Block, trace_id: bytes | None, where: Mapping[str, str], tenant: str | None
    ) -> list[Batch]:
        found = []
        rescued: set[bytes] = set()
        try:
            for entry, body in block.read():
                if tenant is not None and entry.origin.tenant != tenant:
                    continue
                request, pieces = read(body)
                chosen: list[Choice] = [None] * len(pieces)
                spans = 0
                for place, piece in enumerate(pieces):
                    if piece[0] not in block.ids or (trace_id is not None and piece[0] != trace_id):
                        continue
                    if where and not _has(request, place, where):
                        continue
                    rescued.add(piece[0])
                    spans += piece[1]
                    chosen[place] = RESCUED.choose(request, place, states=bool(piece[4]))
                if spans:
                    receipt = Receipt(spans)
                    origin = entry.origin
                    receipt.ledger = self._account(origin.tenant)
                    receipt.ledger.accepted += spans
                    origin = Origin(RESCUE_RECEIVER, origin.transport, origin.tenant, origin.headers)
                    body = request.select(chosen)  # noqa: PLW2901 - the selected spans
                    found.append(Batch(Signal.TRACES, body, spans, origin, [(receipt, spans)]))
        except (OSError, ValueError, ConsumeError, SealedDataError) as error:
            self._log.warning("flight recorder: block unreadable", file=str(block.file), error=str(error))
        block.ids -= rescued
        return found

    def _all(self) -> Iterator[_Block]:
        yield from self._files
        yield from self._blocks
        if self._open is not None:
            yield self._open

    def _spill(self, block: _Block) -> None:
        """Move a block into the folder, and delete the oldest files there if it is full."""
        if self._directory is None or not block.ids:
            return
        self._number += 1
        path = self._directory / f"{self._number:012d}.recorded"
        head = {
            "begin": block.begin,
            "end": block.end,
            "ids": b"".join(sorted(block.ids)).hex(),
            "entries": [(entry.size, entry.origin.receiver, entry.origin.tenant) for entry in block.entries],
        }
        data, cipher = encode_recording(head, block.data, self._keys)
        try:
            files.replace_file(path, data, sync=False)
        except OSError as error:
            self._log.warning("flight recorder: block not written", file=str(path), error=str(error))
            return
        block.file, block.data, block.file_size, block.cipher = path, b"", len(data), cipher
        self._files.append(block)
        self._in_files += len(data)
        while self._in_files > self._most_in_files and self._files:
            oldest = self._files[0]
            assert oldest.file is not None  # noqa: S101 - it stands among the files
            try:
                files.remove(oldest.file)
            except OSError as error:  # it stays, and is tried again with the next block
                self._log.warning("flight recorder: a block cannot be removed", file=str(oldest.file), error=str(error))
                break
            self._files.popleft()
            self._in_files -= oldest.file_size


def _locked(path: Path) -> _Block:
    """Return a block for a file that cannot be opened: it is removed in its turn when the folder is full."""
    found = path.stat()
    block = _Block(found.st_mtime)
    block.file, block.file_size = path, found.st_size
    return block


def _read_head(path: Path, keys: StorageKeys | None) -> _Block:
    """Return the block in a file; raises the errors of `decode_recording`, `OSError`, `KeyError`, `TypeError`."""
    data = files.read_file(path)
    head, _, cipher = decode_recording(data, keys, str(path))
    ids = bytes.fromhex(head["ids"])
    block = _Block(float(head["begin"]))
    block.end = float(head["end"])
    block.ids = {ids[start : start + 16] for start in range(0, len(ids), 16)}
    block.entries = [
        _Entry(int(size), Origin(str(receiver), "flight_recorder", str(tenant)))
        for size, receiver, tenant in head["entries"]
    ]
    block.file, block.file_size, block.cipher = path, len(data), cipher
    return block


def _has(request: TraceRequest, place: int, where: Mapping[str, str]) -> bool:
    """Return whether each attribute is on a span of a trace or on its resource."""
    sets = [parse(pb.SpanAttributes.FromString, item).attributes for item in request.spans(place)]
    for head in {head for (head, _), _, _, _ in request.parts([place], request.heads(), None)[0]}:
        resource = parse(pb.ResourceSlice.FromString, head).resource
        sets.append(parse(pb.Resource.FromString, resource).attributes)
    for name, pattern in where.items():
        found = [attribute for attributes in sets if (attribute := find(attributes, name.encode())) is not None]
        if not any(fnmatchcase(as_string(decode(attribute.value)), pattern) for attribute in found):
            return False
    return True
