"""A journal that an agent left when it was killed, read with each of its bytes flipped, and cut off at each."""

import random
import time

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.journal.recovery import read_directory
from otelwp_agent.journal.segment import RELEASED
from tests.chaos.trial import KEYS, Trial, encryptions

MOST_FLIPS = 1200


@pytest.fixture(params=["plain", "encrypted"])
def left(request, tmp_path, seed):
    """Return a segment in which some requests are settled and some are not; it was written in many commits."""
    encryption = encryptions(tmp_path)[0] if request.param == "encrypted" else ""
    with Trial(tmp_path, seed=seed, rate=40, faults=False, directory=tmp_path / "j", encryption=encryption) as trial:
        trial.start()
        trial.load.ask("go")
        time.sleep(0.4)  # some requests are delivered before the backend goes away
        trial.sink.ask("set", listens=False)
        time.sleep(0.7)  # some requests wait in the journal before the agent is killed
        trial.kill()
        (segment,) = trial.segments()
        folder = tmp_path / "read"
        folder.mkdir()
        yield segment.read_bytes(), folder / segment.name


def test_a_flipped_byte_costs_one_request_at_most_and_is_seen(left, seed):
    data, file = left
    whole, accepted, _ = read(data, file)
    assert len(whole) > 5
    places = range(len(data))
    if len(data) > MOST_FLIPS:
        places = sorted(random.Random(seed).sample(places, MOST_FLIPS - 600) + list(range(600)))
    for place in places:
        flipped = bytearray(data)
        flipped[place] ^= 0x10
        entries, now, damage = read(bytes(flipped), file)
        assert len(whole - entries) <= 1, f"byte {place} of {len(data)}"
        assert damage, f"byte {place} of {len(data)}"
        assert now == accepted, f"byte {place} of {len(data)}"


def test_a_torn_write_costs_what_was_torn_and_is_no_damage(left):
    data, file = left
    whole, _, _ = read(data, file)
    for size in range(len(data) - 1, max(0, len(data) - 800), -1):
        file.write_bytes(data[:size])
        recovered = read_directory(file.parent, write=False, keys=KEYS)
        damage = recovered.damage
        close(recovered)
        assert not damage, f"{size} of {len(data)} bytes"
        entries, _, _ = read(data[:size], file)
        cut = sum(end > size for _, end in whole - entries)
        assert cut == len(whole - entries), f"{size} of {len(data)} bytes"


def read(data, file):
    """Return the entries of a segment that are not released, as (number, end), the items accepted, and the damage."""
    file.write_bytes(data)
    recovered = read_directory(file.parent, write=False, keys=KEYS)
    entries = set()
    for segment in recovered.segments:
        for index, state in enumerate(segment.states):
            record = segment.entry(index) if state != RELEASED else None
            if record is not None and record.context in segment.contexts:
                ExportTraceServiceRequest.FromString(record.body())
                entries.add((record.seq, record.end))
    accepted = sum(row[3] for row in recovered.accounts.values())
    damage = recovered.torn + len(recovered.damage)
    close(recovered)
    return entries, accepted, damage


def close(recovered):
    for segment in recovered.segments:
        segment.close()
