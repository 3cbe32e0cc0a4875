"""Two backends, one of them down for a while: the other one does not notice, and gets nothing twice."""

import time

from tests.chaos.trial import Trial

AT_ONCE_SECONDS = 1.0
SETTLED_SECONDS = 0.5
"""What was delivered that long ago is settled, and its sender's journal knows."""


def test_the_healthy_one_gets_everything_once_and_at_once_and_the_other_catches_up(tmp_path, seconds, seed, tell):
    with Trial(tmp_path, seed=seed, faults=False, backends=2, directory=tmp_path / "j") as trial:
        healthy, ill = trial.sinks
        ill.ask("set", listens=False)
        trial.start()
        trial.load.ask("go")
        time.sleep(max(3.0, seconds / 2))
        sent = trial.load.ask("rest")
        has(healthy, sent["acked"])
        assert 0 < healthy.ask("slowest") < AT_ONCE_SECONDS
        assert ill.ask("counts")["spans"] == 0

        trial.load.ask("go")
        ill.ask("set", listens=True)
        began = time.monotonic()
        has(ill, sent["acked"])
        caught_up = time.monotonic() - began
        assert trial.settle()["in_flight"] == 0
        assert 0 < healthy.ask("slowest") < AT_ONCE_SECONDS
        trial.stop()
        verdicts = [trial.verdict(sink) for sink in (healthy, ill)]
        tell(f"chaos, a branch that was down: {sent['acked']} spans caught up in {caught_up:.1f} s; {verdicts[1]}")
    for verdict in verdicts:
        assert verdict.delivered == verdict.acked > 0, str(verdict)
        assert verdict.duplicates == verdict.doubtful == verdict.despite == 0, str(verdict)


def test_a_kill_repeats_nothing_that_was_settled_at_the_healthy_one(tmp_path, seconds, seed, tell):
    with Trial(tmp_path, seed=seed, faults=False, backends=2, directory=tmp_path / "j") as trial:
        healthy, ill = trial.sinks
        ill.ask("set", listens=False)
        trial.start()
        trial.load.ask("go")
        time.sleep(max(3.0, seconds / 2))
        delivered = healthy.ask("counts")["spans"]
        time.sleep(SETTLED_SECONDS)
        trial.kill()
        in_flight = trial.load.ask("counts")["sent"] - delivered

        trial.start()
        time.sleep(1)  # the branch that is down would get something by now
        assert ill.ask("counts")["spans"] == 0
        assert trial.settle()["in_flight"] == 0
        trial.stop()
        verdicts = [trial.verdict(sink) for sink in (healthy, ill)]
        tell(
            f"chaos, a kill while one branch is down: {delivered} spans were settled at the healthy one, at most "
            f"{in_flight} in flight; the healthy one: {verdicts[0]}; the other: {verdicts[1]}"
        )
    for verdict in verdicts:
        assert not verdict.missing, str(verdict)
        assert verdict.delivered == verdict.acked, str(verdict)
    assert verdicts[0].duplicates <= in_flight < delivered
    assert verdicts[1].duplicates == 0  # it was down all that time


def has(sink, spans, seconds=20.0):
    """Wait until a backend has so many spans."""
    end = time.monotonic() + seconds
    while sink.ask("counts")["spans"] < spans:
        assert time.monotonic() < end, "the backend does not get everything"
        time.sleep(0.02)
