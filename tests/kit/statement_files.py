"""Statements of delivery in the database of an agent that does not run, as files, and changed by a cheat."""

import json
import sqlite3
from contextlib import closing

from otelwp_agent.codecs.compact_jws import decode_base64url
from otelwp_agent.licensing.public_keys import encode_base64url
from otelwp_agent.statements.recorder import HOUR
from otelwp_agent.statements.store import StatementStore


def an_hour_passes(folder):
    """Move the time of the last statements an hour back, so that the next start makes some."""
    with closing(sqlite3.connect(f"{folder}/statements.db")) as connection, connection:
        connection.execute("UPDATE meta SET value = value - ? WHERE name = 'cut'", (HOUR,))


def texts_of(folder, tenant):
    """Return the statements of a tenant, the first one first."""
    store = StatementStore(folder / "statements.db")
    store.open()
    try:
        return [each.text for each in store.statements(tenant, 0, 1000)]
    finally:
        store.close()


def with_another_figure(text):
    """Return a statement in which one item more was accepted and delivered, so that it still adds up."""
    head, payload, signature = text.split(".")
    claims = json.loads(decode_base64url(payload))
    for figures in claims["pipelines"].values():
        figures["accepted"] += 1
        figures["delivered"] += 1
    return ".".join([head, encode_base64url(json.dumps(claims).encode()), signature])


def tampered(texts, others):
    """Yield descriptions and changed copies of a chain of at least three statements; `others` is another tenant's."""
    for number, text in enumerate(texts):
        before, after = texts[:number], texts[number + 1 :]
        yield f"a changed figure in {number + 1}", [*before, with_another_figure(text), *after]
        yield f"{number + 1} cut off in its signature", [*before, text[:-4], *after]
        yield f"{number + 1} twice", [*before, text, text, *after]
        yield f"{number + 1} dropped", [*before, *after]
        if number < len(others):
            yield f"{number + 1} of the other tenant", [*before, others[number], *after]
        if after:
            yield f"{number + 1} and the next one swapped", [*before, after[0], text, *after[1:]]
