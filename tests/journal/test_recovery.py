import errno
import os

import pytest

from otelwp_agent.journal import reserve
from otelwp_agent.journal.audit import audit_directory
from otelwp_agent.journal.recovery import read_directory
from otelwp_agent.journal.segment import RELEASED, Segment


@pytest.fixture
async def left(live, body, tmp_path):
    """Return the bytes of a segment that a killed agent left, some of its requests settled, and a file to put them."""
    life = live()
    for number in range(8):
        (request,) = await life.put(body(number))
        if number in {1, 4}:
            request.settle()
    await life.flush()
    life.kill()
    (path,) = life.journal.directory.glob("*.journal")
    copy = tmp_path / "copy" / path.name
    copy.parent.mkdir()
    return path.read_bytes(), copy


async def test_a_flipped_byte_anywhere_is_seen_and_costs_one_entry_at_most_and_no_sums(left):
    data, file = left
    whole, _, accepted = read(data, file)
    assert (len(whole), accepted) == (6, 16)
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 0x10
        bodies, damage, now = read(bytes(flipped), file)
        assert len(whole - bodies) <= 1, f"byte {place} of {len(data)}"
        assert damage, f"byte {place} of {len(data)}"
        assert now == accepted, f"byte {place} of {len(data)}"


async def test_a_torn_write_is_no_damage_even_after_another_run(live, body):
    first = live()
    await first.put(body(0))
    first.kill()
    path = first.journal._entry_store.segments[-1].path
    path.write_bytes(path.read_bytes() + b"\xff" * 50)
    second = live()
    await second.put(body(1))
    second.kill()
    third = live()
    assert third.recovered.damage == []
    assert third.bodies() == [body(0), body(1)]


async def test_a_full_disk_has_room_for_saying_what_is_settled(live, body, monkeypatch):
    monkeypatch.setattr(reserve, "SIZE", 2_000)
    life = live()
    write, hold, room = Segment.write, os.posix_fallocate, 3_000

    def used():
        return sum(path.stat().st_size for path in life.journal.directory.iterdir())

    def on_a_small_disk(segment, parts, *, sync):
        if used() + sum(map(len, parts)) > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(segment, parts, sync=sync)

    def held_on_a_small_disk(fd, offset, size):
        if used() + size > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        hold(fd, offset, size)

    monkeypatch.setattr(Segment, "write", on_a_small_disk)
    monkeypatch.setattr(os, "posix_fallocate", held_on_a_small_disk)
    taken = []
    while (request := (await life.put(body(len(taken))))[0]).error is None:
        taken.append(request)
    assert len(taken) > 2
    for request in taken:
        request.settle()
    await life.flush()
    life.journal._store._deleter.close()
    life.journal._failure.refuse_until = 0.0
    (request,) = await life.put(body(99))
    assert request.error is None
    assert audit_directory(life.journal.directory).balances
    life.kill()
    assert live().bodies() == [body(99)]


async def test_a_file_that_was_only_just_made_costs_no_release(live, body):
    first = live()
    one, _ = await first.put(body(0), body(1))
    one.settle()
    await first.flush()
    first.kill()
    Segment.create(first.journal.directory, 2, 3).close()  # and then came the power cut
    second = live()
    assert second.sums() == (4, [2, 0, 0, 0], 2)
    assert second.bodies() == [body(1)]


def read(data, file):
    """Return the bodies that are not released, the damaged bytes, and the items accepted."""
    file.write_bytes(data)
    recovered = read_directory(file.parent, write=False)
    (segment,) = recovered.segments
    records = [segment.entry(index) for index, state in enumerate(segment.states) if state != RELEASED]
    bodies = {record.body() for record in records if record is not None and record.context in segment.contexts}
    segment.close()
    damage = recovered.torn + sum(damage.length for _, damage in recovered.damage)
    return bodies, damage, sum(row[3] for row in recovered.accounts.values())
