"""Damage in the files of a journal: found, counted, and without loss of other entries."""

import os

from otelwp_agent.journal.audit import audit_directory
from tests.journal.conftest import KEYS


async def test_a_torn_last_write_is_forgotten_and_what_was_before_it_is_not(live, body):
    first = live()
    await first.put(body(0))
    size = first.journal._entry_store.segments[-1].size
    await first.put(body(1))
    first.kill()
    path = first.journal._entry_store.segments[-1].path
    os.truncate(path, size + 50)  # within the second entry
    second = live()
    assert (second.bodies(), second.sums()) == ([body(0)], (2, [0, 0, 0, 0], 2))
    assert second.recovered.torn == 50
    assert second.recovered.damage == []


async def test_an_entry_whose_commit_is_torn_may_have_been_acknowledged(live, body):
    first = live()
    await first.put(body(0))
    await first.put(body(1))
    first.kill()
    segment = first.journal._entry_store.segments[-1]
    os.truncate(segment.path, segment.size - 3)  # within the commit that follows the second entry
    second = live()
    assert (second.bodies(), second.sums()) == ([body(0), body(1)], (4, [0, 0, 0, 0], 4))


async def test_a_damaged_entry_is_counted_and_costs_no_other(live, body):
    first = live()
    for number in range(3):
        await first.put(body(number))
    first.kill()
    segment = first.journal._entry_store.segments[-1]
    with segment.path.open("r+b") as file:
        file.seek(segment.offsets[1] + 40)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    assert not audit_directory(first.journal.directory, KEYS).balances
    second = live()
    assert second.bodies() == [body(0), body(2)]
    assert second.sums() == (6, [0, 0, 0, 2], 4)
    assert second.ledgers.get("traces", "otlp", "").dropped_reasons == {"journal_damaged": 2}
    assert second.registry.value("otelwp_journal_damaged_bytes") > 0


async def test_damage_that_comes_while_the_agent_runs_is_counted_when_it_is_met(live, body):
    first = live()
    await first.put(body(0), body(1))
    first.kill()
    second = live()
    segment = second.journal._entry_store.segments[0]
    os.pwrite(segment.fd, b"\xff" * 8, segment.offsets[0] + 40)
    assert second.bodies() == [body(1)]
    assert second.sums() == (4, [0, 0, 0, 2], 2)
