"""Fixtures of the attacks: a new agent for each, and one that is not attacked, to measure the machine's own delays."""

import pytest

from tests.hostile.target import Target, bear
from tests.kit.certificates import Authority

MEASURED = {"test_connections", "test_grpc", "test_inflation", "test_items"}
"""Files whose tests measure times and memory. They need a machine without other load and are run by `make hostile`."""


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name == "hostile" and item.path.stem in MEASURED:
            item.add_marker(pytest.mark.hostile)


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates")).sign()


@pytest.fixture(scope="session")
def control(pair, tmp_path_factory):
    with Target(tmp_path_factory.mktemp("control"), pair, "control") as agent:
        yield agent


@pytest.fixture
def target(pair, tmp_path):
    with Target(tmp_path, pair) as agent:
        yield agent


@pytest.fixture
def survives(target, control, capsys):
    """Attack the agent; check that no other client had to wait and that its memory stayed within the limit."""

    def check(name, attack):
        verdict = bear(target, control, attack)
        with capsys.disabled():
            print(f"\n{name}: {verdict}")  # noqa: T201 - the measured values
        assert verdict.problems == []

    return check
