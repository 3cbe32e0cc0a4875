"""Append-only audit log, in which each row's hash covers the row before it.

`hash` is SHA-256 of `previous_hash`, a line feed, and the row as JSON with sorted keys and without spaces. The table
`store_state` has the hash of the last row. A user who can write the database can also compute all hashes again: keep
the head that `verify` returns in another place, and give it to the next `verify`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import insert, select, update

from otelwp_agent.control.errors import InvalidValueError
from otelwp_agent.control.tables import AUDIT, STATE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Row

FIRST_HASH = "0" * 64
"""The hash before the first row."""
MAX_PROBLEMS = 100
"""Problems that `verify` lists."""
_LONGEST_NAME = 200
_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class Event:
    """The content of a row of the audit log. `before` and `after` are JSON."""

    time: datetime
    actor: str
    action: str
    target: str
    before: str
    after: str
    request_id: str


class LoggedEvent(NamedTuple):
    """A row of the audit log."""

    sequence: int
    hash: str
    event: Event

    def to_json(self) -> dict[str, Any]:
        """Return the row for JSON output."""
        event = self.event
        return {
            "sequence": self.sequence,
            "time": event.time.isoformat(),
            "actor": event.actor,
            "action": event.action,
            "target": event.target,
            "before": _decoded(event.before),
            "after": _decoded(event.after),
            "request_id": event.request_id,
            "hash": self.hash,
        }


class LogHead(NamedTuple):
    """The last row of an audit log: its sequence number and hash."""

    sequence: int
    hash: str

    @classmethod
    def parse(cls, text: str) -> LogHead:
        """Parse `SEQUENCE:HASH`; raise `InvalidValueError`."""
        sequence, _, hash_ = text.partition(":")
        if not (sequence.isascii() and sequence.isdecimal() and len(hash_) == len(FIRST_HASH)):
            raise InvalidValueError(
                f"{text!r} is not a head of an audit log: write SEQUENCE:HASH, as `verify` prints it"
            )
        return cls(int(sequence), hash_.lower())

    def __str__(self) -> str:
        """Return `SEQUENCE:HASH`."""
        return f"{self.sequence}:{self.hash}"


@dataclass(frozen=True, slots=True)
class AuditVerification:
    """The result of `verify`: number of rows, head and problems (at most `MAX_PROBLEMS`)."""

    rows: int
    head: LogHead
    problems: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the result for JSON output."""
        return {
            "intact": not self.problems,
            "rows": self.rows,
            "head": str(self.head),
            "problems": list(self.problems),
        }


def canonical(value: Mapping[str, Any] | None) -> str:
    """Return `value` as JSON with sorted keys and without spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def append(connection: Connection, event: Event) -> None:
    """Append a row. The caller's transaction has locked the row of `store_state`."""
    sequence, previous = connection.execute(select(STATE.c.audit_sequence, STATE.c.audit_hash)).one()
    sequence += 1
    # A client may choose names of any length; the columns are as long as this.
    event = Event(
        event.time,
        event.actor[:_LONGEST_NAME],
        event.action,
        event.target[:_LONGEST_NAME],
        event.before,
        event.after,
        event.request_id[:_LONGEST_NAME],
    )
    hash_ = _hash(previous, sequence, event)
    connection.execute(
        insert(AUDIT).values(
            sequence=sequence,
            time=event.time,
            actor=event.actor,
            action=event.action,
            target=event.target,
            before=event.before,
            after=event.after,
            request_id=event.request_id,
            previous_hash=previous,
            hash=hash_,
        )
    )
    connection.execute(update(STATE).values(audit_sequence=sequence, audit_hash=hash_))


def list_events(
    connection: Connection, *, before: int | None = None, limit: int = 100, target: str | None = None
) -> list[LoggedEvent]:
    """Return up to `limit` rows, newest first: those with a sequence number below `before`, and about `target`."""
    query = select(AUDIT).order_by(AUDIT.c.sequence.desc()).limit(limit)
    if before is not None:
        query = query.where(AUDIT.c.sequence < before)
    if target is not None:
        query = query.where(AUDIT.c.target == target)
    return [LoggedEvent(row.sequence, row.hash, _event(row)) for row in connection.execute(query)]


def verify(connection: Connection, expected: Sequence[LogHead] = ()) -> AuditVerification:
    """Check all hashes, that no row is missing, and that the log still contains the `expected` heads."""
    problems: list[str] = []
    wanted = {head.sequence: head.hash for head in expected}
    last = LogHead(0, FIRST_HASH)
    rows = 0
    query = select(AUDIT).order_by(AUDIT.c.sequence).execution_options(stream_results=True, yield_per=_CHUNK)
    result = connection.execute(query)
    for row in result:
        rows += 1
        if row.sequence != last.sequence + 1:
            problems.append(f"{_rows(last.sequence + 1, row.sequence - 1)} missing: deleted from the log")
        elif row.previous_hash != last.hash:
            problems.append(f"row {row.sequence} does not continue row {last.sequence}: one of them was replaced")
        if _hash(row.previous_hash, row.sequence, _event(row)) != row.hash:
            problems.append(f"row {row.sequence} was altered: its content does not match its hash")
        if row.sequence in wanted and wanted.pop(row.sequence) != row.hash:
            problems.append(f"row {row.sequence} is not the one of the given head: the log was written again")
        last = LogHead(row.sequence, row.hash)
        if len(problems) >= MAX_PROBLEMS:
            result.close()
            return AuditVerification(rows, last, tuple(problems[:MAX_PROBLEMS]))
    state = LogHead(*connection.execute(select(STATE.c.audit_sequence, STATE.c.audit_hash)).one())
    if state != last:
        problems.append(
            f"the store's last row is {state.sequence}, the log's {last.sequence}: the log's end was changed"
        )
    problems += [
        f"row {sequence} of the given head is missing: the log was cut or written again"
        for sequence, hash_ in sorted(wanted.items())
        if (sequence, hash_) != (0, FIRST_HASH)
    ]
    return AuditVerification(rows, last, tuple(problems))


def _rows(first: int, last: int) -> str:
    return f"row {first} is" if first == last else f"rows {first} to {last} are"


def _decoded(text: str) -> Any:  # noqa: ANN401 - JSON
    try:
        return json.loads(text)
    except ValueError:
        return text  # an altered row


def _event(row: Row[Any]) -> Event:
    return Event(row.time, row.actor, row.action, row.target, row.before, row.after, row.request_id)


def _hash(previous: str, sequence: int, event: Event) -> str:
    content = canonical(
        {
            "sequence": sequence,
            "time": event.time.astimezone(UTC).isoformat(timespec="microseconds"),
            "actor": event.actor,
            "action": event.action,
            "target": event.target,
            "before": event.before,
            "after": event.after,
            "request_id": event.request_id,
        }
    )
    return hashlib.sha256(f"{previous}\n{content}".encode()).hexdigest()
