import pytest

from otelwp_agent.cli.sampling_tables import explained, replayed, table
from otelwp_agent.replay.replay import Replayed
from tests.cli.test_sampling import SAMPLER


def test_columns():
    rows = [("a", "number", "why"), ("long", "1", "because of this"), ("b", "22", "")]
    assert list(table(rows, 1, last_is_text=True)) == [
        "a     number  why",
        "long       1  because of this",
        "b         22",
    ]


def test_what_needs_attention_is_said():
    sampler = SAMPLER | {
        "mode": "dry_run",
        "key_budget": {"rate": 2048, "unit": "bytes"},
        "factor": 0.25,
        "guarded": 3,
        "over_ceiling": {"error": 7, "slow": 0},
        "keys_known": 9,
    }
    lines = list(explained(sampler))
    assert lines[0] == "adaptive_sampling in traces: a dry run, which drops nothing"
    assert lines[2:6] == [
        "  no key has more than 2.0 KiB/s",
        "  more traffic than planned: all chances are multiplied by 0.25",
        "  traces sampled by chance because the ceiling of their rule was reached: error 7",
        "  traces dropped because a minute's budget was spent: 3",
    ]
    assert lines[-1] == "and 8 more keys (--top)"


def test_without_a_target():
    lines = list(explained(SAMPLER | {"budget": None, "spent_last_minute": None, "keys": []}))
    assert lines[1:] == ["  no target: every trace is kept unless a rule drops it", "", "no traces received yet"]


def test_long_and_empty_values():
    key = SAMPLER["keys"][0] | {"key": ["x" * 100]}
    empty = SAMPLER["keys"][0] | {"key": [""], "kept_share": None}
    lines = list(explained(SAMPLER | {"keys": [key, empty]}))
    assert lines[-2].startswith("x" * 47 + "…  ")
    assert lines[-1].startswith('""  ')


@pytest.fixture
def done():
    done = Replayed(("service.name", "http.route"), seconds=10.0)
    done("1", ("shop", "/"), 10, 2**20, keep=True, reason="budget")
    done("2", ("shop", "/"), 30, 3 * 2**20, keep=False, reason="budget")
    done("3", ("blog", "/"), 5, 100, keep=True, reason="error")
    done("2", None, 2, 10, keep=False, reason="budget")
    done("never heard of", None, 1, 10, keep=False, reason="budget")
    return done


def test_a_replay(done):
    assert list(replayed(done, 9, None)) == [
        "service.name  http.route  traces  kept          spans  kept            bytes     kept",
        "shop          /                2     1    50 %     42    10  23.8 %  4.0 MiB  1.0 MiB",
        "blog          /                1     1   100 %      5     5   100 %    100 B    100 B",
        "(late)                         0     0       -      1     0     0 %     10 B      0 B",
        "total                          3     2  66.7 %     48    15  31.2 %  4.0 MiB  1.0 MiB",
        "",
        "traces kept because of: budget 1, error 1",
        "traces dropped because of: budget 1",
        "kept per second: 1.5 spans, 0.2 traces",
        "kept per month, at this rate: 256.8 GiB",
    ]


def test_what_it_costs(done):
    lines = list(replayed(done, 1, 2.0))
    assert [line.split()[-1] for line in lines[:4]] == ["cost/month", "513.63", "0.05", "513.68"]
    assert lines[2].startswith("(2 more keys)")
    assert lines[-1] == "kept per month, at this rate: 256.8 GiB, which costs 513.68"
