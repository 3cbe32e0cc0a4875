"""A journal on a disk that fills up, cannot be written to, or holds something else than what was written."""

import os
import random
import resource
import shutil
import subprocess
import time
from contextlib import contextmanager

import pytest

from tests.chaos.trial import Trial
from tests.kit.agent import Agent

RATE = 400.0
TOLD_TO_WAIT = ("429", "503")
PATIENCE = 20.0
DISK = 4 << 20
LEAST_SPAN_BYTES = 100
MOST_REQUEST_BYTES = 20_000


@pytest.fixture
def disk(tmp_path):
    """Mount and unmount small disks below the test's folder."""
    mounted = []

    def mount(options=f"size={DISK}", name="j"):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        if os.geteuid() or shutil.which("mount") is None:
            pytest.skip("mounting a disk of one's own takes root")
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "chaos", folder], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


def test_a_full_journal_makes_senders_wait(tmp_path, seed, tell):
    with trial_of(tmp_path, seed, tmp_path / "j", max_size="1MiB") as trial:
        refused_then_taken(trial, tell, "max_size")


def test_a_full_disk_makes_senders_wait(tmp_path, seed, disk, tell):
    with trial_of(tmp_path, seed, disk()) as trial:
        refused_then_taken(trial, tell, "a full disk")


def test_a_kill_on_a_full_disk_loses_nothing(tmp_path, seed, disk, tell):
    with trial_of(tmp_path, seed, disk()) as trial:
        trial.sink.ask("set", listens=False)
        trial.start()
        refused(trial)
        trial.load.ask("rest")
        trial.kill()
        trial.start()
        accounted(trial, tell, "kill -9 on a full disk")


def test_a_disk_that_takes_no_more_writes_makes_senders_wait(tmp_path, seed, tell):
    with trial_of(tmp_path, seed, tmp_path / "j") as trial:
        trial.start()
        trial.load.ask("go")
        time.sleep(0.3)  # some requests are accepted before writes fail
        with no_writes(trial.agent.pid):
            refused(trial)
        taken(trial)
        accounted(trial, tell, "a disk that takes no writes for a while")


def test_an_agent_does_not_start_on_a_disk_that_cannot_be_written_to(tmp_path, seed, disk):
    with trial_of(tmp_path, seed, disk("size=1m,ro")) as trial:
        agent = trial.start(wait=False)
        assert agent.wait() == 1
        assert str(trial.journal) in agent.output
        assert "read-only" in agent.output.lower()


def test_a_second_agent_on_one_journal_does_not_start(tmp_path, seed):
    with trial_of(tmp_path, seed, tmp_path / "j") as trial:
        first = trial.start()
        with Agent(trial.config, tmp_path, name="second", wait=False) as second:
            assert second.wait() == 1
            assert str(trial.journal) in second.output
        assert trial.ledger()["in_flight"] == 0
        assert first.stop() == 0


@pytest.mark.parametrize("torn", ["garbage", "half a record"])
def test_a_torn_last_write_loses_nothing(torn, tmp_path, seed, tell):
    """What follows the last whole record was never acknowledged."""
    chance = random.Random(seed)
    with trial_of(tmp_path, seed, tmp_path / "j") as trial:
        held(trial)
        newest = trial.segments()[-1]
        data = newest.read_bytes()
        tail = chance.randbytes(chance.randint(1, 500)) if torn == "garbage" else data[: chance.randint(1, 60)]
        newest.write_bytes(data + tail)
        trial.start()
        taken(trial)
        trial.load.ask("rest")
        trial.kill()
        trial.start()  # what was torn does not stand at the end any more
        assert "damage" not in trial.agent.output
        accounted(trial, tell, f"a last write of which {len(tail)} bytes are {torn}")


def test_a_journal_cut_short_loses_no_more_than_was_cut(tmp_path, seed, tell):
    """A disk that loses what it said it had: what was acknowledged since is gone, and nothing before it."""
    chance = random.Random(seed)
    with trial_of(tmp_path, seed, tmp_path / "j") as trial:
        held(trial)
        newest = trial.segments()[-1]
        size = newest.stat().st_size
        cut = chance.randint(1, size // 10)
        os.truncate(newest, size - cut)
        trial.start()
        assert trial.settle()["in_flight"] == 0
        output = trial.agent.output
        trial.stop()
        verdict = trial.verdict()
        lost = lost_requests(trial, verdict)
        assert not lost or "journal has lost its end" in output
        tell(f"chaos, {cut} of {size} bytes cut off, which cost {len(lost)} requests: {verdict}")
    assert len(verdict.missing) * LEAST_SPAN_BYTES <= cut + MOST_REQUEST_BYTES


def test_a_journal_that_is_removed_while_the_agent_runs_loses_nothing(tmp_path, seed, tell):
    with trial_of(tmp_path, seed, tmp_path / "j") as trial:
        trial.sink.ask("set", listens=False)
        trial.start()
        trial.load.ask("go")
        time.sleep(0.5)  # some requests are in the journal before it is removed
        shutil.rmtree(trial.journal, ignore_errors=True)  # the agent may already write to it again
        time.sleep(1.5)  # the journal looks for its files once a second
        trial.load.ask("rest")
        output = trial.agent.output
        trial.kill()
        assert "removed or replaced; entries are copied" in output
        trial.sink.ask("set", listens=True)
        trial.start()
        accounted(trial, tell, "a journal removed while the agent runs")


@pytest.mark.parametrize("where", ["anywhere", "at the beginning"])
def test_a_flipped_byte_costs_one_request(where, tmp_path, seed, tell):
    chance = random.Random(seed)
    with trial_of(tmp_path, seed, tmp_path / "j") as trial:
        held(trial)
        segment = chance.choice(trial.segments())
        data = bytearray(segment.read_bytes())
        place = chance.randrange(len(data) if where == "anywhere" else 600)
        data[place] ^= 1 << chance.randrange(8)
        segment.write_bytes(data)
        trial.start()
        assert trial.settle()["in_flight"] == 0
        output = trial.agent.output
        trial.stop()
        verdict = trial.verdict()
        tell(f"chaos, byte {place} of {len(data)} flipped: {verdict}")
        lost = lost_requests(trial, verdict)
    assert len(lost) <= 1
    assert "damage" in output


def trial_of(folder, seed, directory, **settings):
    return Trial(folder, seed=seed, rate=RATE, faults=False, directory=directory, **settings)


def held(trial, seconds=1.0):
    """Have the journal hold what nobody takes, and kill the agent."""
    trial.sink.ask("set", listens=False)
    trial.start()
    trial.load.ask("go")
    time.sleep(seconds)
    trial.load.ask("rest")
    trial.kill()


def refused(trial):
    """Load until a sender is told to wait, and see that the agent goes on."""
    trial.load.ask("go")
    before = told_to_wait(trial)
    until(lambda: told_to_wait(trial) > before + 10, "nobody is told to wait")
    statuses = trial.load.ask("counts")["statuses"]
    assert set(statuses) <= {"200", *TOLD_TO_WAIT}, statuses


def taken(trial):
    """Load until the agent takes again what it is sent."""
    trial.load.ask("go")
    before = trial.load.ask("counts")["statuses"]["200"]
    until(lambda: trial.load.ask("counts")["statuses"]["200"] > before + 10, "nothing is taken any more")


def refused_then_taken(trial, tell, what):
    trial.sink.ask("set", listens=False)
    trial.start()
    refused(trial)
    trial.sink.ask("set", listens=True)
    taken(trial)
    accounted(trial, tell, what)


def accounted(trial, tell, what):
    """Hold the agent to what it has acknowledged, each span once."""
    assert trial.settle()["in_flight"] == 0
    taken(trial)
    trial.load.ask("rest")
    assert trial.settle()["in_flight"] == 0
    assert trial.stop() == 0
    verdict = trial.verdict()
    tell(f"chaos, {what}: {verdict}; the senders: {trial.load.ask('counts')['statuses']}")
    assert not verdict.missing, str(verdict)
    assert verdict.delivered == verdict.acked > 0
    assert verdict.despite == 0
    if not trial.kills:
        assert verdict.duplicates == verdict.doubtful == 0


def told_to_wait(trial):
    statuses = trial.load.ask("counts")["statuses"]
    return sum(statuses.get(status, 0) for status in TOLD_TO_WAIT)


def until(true, message):
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, message
        time.sleep(0.02)


@contextmanager
def no_writes(pid):
    """Let a process write to no file beyond its first bytes: every write fails (EFBIG)."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def lost_requests(trial, verdict):
    """Return the acknowledged requests of which a span is missing."""
    wanted = set(verdict.missing)
    return [each for each in trial.requests() if not wanted.isdisjoint(range(each[0], each[1]))]
