"""Answers to mutating requests by their `Idempotency-Key`, so that a repeated request is not carried out again.

Call `find_answer` and `store_answer` in the transaction of the operation. An answer that contains a new secret must be
stored without it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import delete, insert, select

from otelwp_agent.control.errors import ConflictError
from otelwp_agent.control.tables import IDEMPOTENCY

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from otelwp_agent.control.mutation import Actor

KEPT = timedelta(days=1)
"""How long answers are kept."""


class StoredAnswer(NamedTuple):
    """A stored answer: the HTTP status and the body."""

    status: int
    response: str


def find_answer(connection: Connection, actor: Actor, key: str, request: str) -> StoredAnswer | None:
    """Return the stored answer, or `None` if the key is new.

    `request` is a SHA-256, in hexadecimal digits, of method, path and body; raises `ConflictError` if the key was used
    for another request.
    """
    row = connection.execute(
        select(IDEMPOTENCY).where(
            IDEMPOTENCY.c.actor == actor.name,
            IDEMPOTENCY.c.key == key,
            IDEMPOTENCY.c.created > datetime.now(UTC) - KEPT,
        )
    ).one_or_none()
    if row is None:
        return None
    if row.request != request:
        raise ConflictError("this Idempotency-Key was used for another request: use a new one")
    return StoredAnswer(row.status, row.response)


def store_answer(connection: Connection, actor: Actor, key: str, request: str, answer: StoredAnswer) -> None:
    """Store an answer, and delete answers that are older than `KEPT`."""
    now = datetime.now(UTC)
    connection.execute(delete(IDEMPOTENCY).where(IDEMPOTENCY.c.created <= now - KEPT))
    connection.execute(
        insert(IDEMPOTENCY).values(
            actor=actor.name,
            key=key,
            request=request,
            status=answer.status,
            response=answer.response,
            created=now,
        )
    )
