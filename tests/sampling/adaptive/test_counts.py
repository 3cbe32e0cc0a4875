from otelwp_agent.sampling.adaptive.counts import Counts


def test_sums():
    counts = Counts(1, 2, 3)
    other = counts + Counts(10, 20, 30)
    counts.add(1, 1, 1)
    assert other == Counts(11, 22, 33)
    assert counts == Counts(2, 3, 4)
    assert sum([counts, other], Counts()) == Counts(13, 25, 37)
