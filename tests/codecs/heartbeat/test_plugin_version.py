from itertools import pairwise

import pytest

from otelwp_agent.codecs.heartbeat.plugin_version import change, is_older, is_version, precedence

ORDERED = [
    "0.9.9",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.0.1",
    "1.2.9",
    "1.2.10",
    "1.10",
    "2",
]


def test_precedence_is_that_of_semantic_versioning():
    for lower, higher in pairwise(ORDERED):
        assert is_older(lower, higher), (lower, higher)
        assert not is_older(higher, lower)
    assert precedence("6.4") == precedence("6.4.0") == precedence("6.4.0+build.7")


@pytest.mark.parametrize(
    "text",
    ["", "v1.0", "1.", "1..2", "1.2.3.4.5", "latest", "1.2.3 ", "1.2.3\n", "9999999", "1-" + "a" * 33, "-1"],
)
def test_absurd_versions_are_not_valid(text):
    assert not is_version(text)


@pytest.mark.parametrize("text", ORDERED)
def test_valid_versions(text):
    assert is_version(text)


@pytest.mark.parametrize(
    ("after", "wanted"), [("1.2.4", "patch"), ("1.3.0", "minor"), ("2.0.0", "major"), ("1.2.3.1", "patch")]
)
def test_the_kind_of_a_change(after, wanted):
    assert change("1.2.3", after) == wanted
