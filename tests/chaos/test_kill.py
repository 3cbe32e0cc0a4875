"""`kill -9` at random instants, again and again: what was acknowledged arrives, or is accounted for."""

import random
import signal
import time

import pytest

from tests.chaos.trial import Trial, encryptions

RATE = 300.0
"""Requests a second."""
KILLS = 25
"""At least, in each of the tests."""
LIFE_SECONDS = (0.05, 0.9)
"""How long an agent lives once it is ready."""
BIRTH_SECONDS = (0.1, 0.8)
"""When one is killed that is not: while it starts, and reads its journal."""
RELEASE_SECONDS = 0.25
"""What was settled that long before a kill does not come again: the journal notes it within 0.1 s."""
STILLBORN = 0.15
"""Share of those."""
STOPPING = 0.15
"""Share of those that are told to stop first, and killed while they do."""
RELOADING = 0.2
"""Share of those that are told to go over to another configuration before."""
STOP_SECONDS = (0.0, 0.3)

SAMPLER = """
  adaptive_sampling:
    target: {spans_per_second: 1000000}  # far above the load: only the rule leaves anything out
    drop: {rules: [{name: probes, attributes: {service.name: [probe]}}]}
    decision_wait: 200ms
    max_wait: 500ms
"""
PROCESSORS = {
    "batch": {"processors": "batch"},
    "encrypted": {"processors": "batch"},
    "adaptive_sampling": {"processors": "adaptive_sampling, batch", "processor_settings": SAMPLER, "probes": 4},
}


def test_without_a_journal_spans_are_lost(tmp_path, seed):
    """The same load and the same account: what shows that they can see a loss."""
    with Trial(tmp_path, seed=seed, directory=None) as trial:
        trial.load.ask("go")
        for _ in range(3):
            trial.start()
            time.sleep(0.5)  # some requests arrive in each run
            trial.kill()
        trial.start()
        trial.settle()
        verdict = trial.verdict()
    assert verdict.acked > 100
    assert verdict.missing


@pytest.mark.parametrize("processors", PROCESSORS)
def test_nothing_that_was_acknowledged_is_lost(processors, tmp_path, seconds, seed, tell):
    chance = random.Random(seed)
    settings = encryptions(tmp_path) if processors == "encrypted" else [""]  # each start may use another key
    with Trial(tmp_path, seed=seed, directory=tmp_path / "j", poison=200, rate=RATE, **PROCESSORS[processors]) as trial:
        trial.load.ask("go")
        bound = 0
        in_flight = most_in_flight = 0
        end = time.monotonic() + seconds
        while trial.kills < KILLS or time.monotonic() < end:
            sync = chance.choice(["group", "group", "always", "none"])  # a kill spares what the kernel has
            sent = trial.load.ask("counts")["sent"]
            if chance.random() < STILLBORN:
                trial.start(wait=False, sync=sync, encryption=chance.choice(settings))
                time.sleep(chance.uniform(*BIRTH_SECONDS))
            else:
                acked = trial.load.ask("counts")["acked"]
                trial.start(sync=sync, encryption=chance.choice(settings))
                assert trial.audit()["accepted"] >= acked
                life = chance.uniform(*LIFE_SECONDS)
                time.sleep(max(0.0, life - RELEASE_SECONDS))
                sent = trial.load.ask("counts")["sent"]
                in_flight = trial.in_flight()
                time.sleep(min(life, RELEASE_SECONDS))
                if chance.random() < RELOADING:
                    trial.reload(timeout=f"{chance.randint(10, 100)}ms", encryption=chance.choice(settings))
                    time.sleep(chance.uniform(*STOP_SECONDS))
                if chance.random() < STOPPING:
                    trial.agent.signal(signal.SIGTERM)
                    time.sleep(chance.uniform(*STOP_SECONDS))
            trial.kill()
            in_flight += trial.load.ask("counts")["sent"] - sent
            most_in_flight = max(most_in_flight, in_flight)
            bound += in_flight
        trial.start()
        left = trial.settle()
        assert left["in_flight"] == 0, left
        trial.audit()
        status = trial.stop()
        audited = trial.audit_journal()
        verdict = trial.verdict()
        counts = trial.sink.ask("counts")
        tell(
            f"chaos, {processors}, seed {seed}: {trial.kills} kills, {verdict}; in flight at a kill at most "
            f"{most_in_flight}, {bound} over all; worst start {trial.worst_start:.2f} s. Over all lives the agent says "
            f"{audited}. The backend: {counts['fates']}; the senders: {trial.load.ask('counts')['statuses']}"
        )
    assert not verdict.missing, str(verdict)
    assert verdict.acked <= audited["accepted"] <= verdict.acked + verdict.unknown
    assert verdict.probes <= audited["filtered"] <= verdict.probes + verdict.unknown
    assert (verdict.probes > 0) == ("probes" in PROCESSORS[processors])
    assert verdict.despite == 0
    assert verdict.duplicates + verdict.doubtful <= bound
    assert status == 0
