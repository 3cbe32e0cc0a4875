"""Our `validate` beside the real Collector's: what one takes the other takes, for the components that both have."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop.collector import validate

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("the_collector")]

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests/config/corpus"
VALID = sorted((CORPUS / "valid").glob("*.yaml"))
INVALID = sorted((CORPUS / "invalid").glob("*.yaml"))

ONLY_OURS = {
    "processors.yaml": {
        r"^ *max_gc_interval_when_soft_limited:.*\n": ("", "newer than the tested version"),
        r"^ *max_gc_interval_when_hard_limited:.*\n": ("", "newer than the tested version"),
        r"\(\\\?\|\\&\)": ("[?&]", "its documentation has such an example, but it refuses it"),
    },
    "telemetry.yaml": {
        r"^ *shutdown_timeout:.*\n": ("", "only the agent has it: the Collector drains without a time limit"),
    },
}
"""What it refuses in files that we take: a pattern, what it would take in its place, and the reason."""


@pytest.mark.parametrize("file", VALID, ids=lambda file: file.stem)
def test_what_we_take_it_takes(file, tmp_path):
    env = environment(file)
    assert ours(file, env)
    taken, said = validate(changed(file, tmp_path, ONLY_OURS.get(file.name, {})), env)
    assert taken, said


@pytest.mark.parametrize(
    ("name", "pattern"), [(name, pattern) for name, patterns in ONLY_OURS.items() for pattern in patterns]
)
def test_a_difference_that_is_listed_is_one(name, pattern, tmp_path):
    file = CORPUS / "valid" / name
    patterns = {each: change for each, change in ONLY_OURS[name].items() if each != pattern}
    taken, _ = validate(changed(file, tmp_path, patterns), environment(file))
    assert not taken


def changed(file, folder, patterns):
    """Return a copy of `file` in which each of `patterns` is replaced."""
    text = file.read_text()
    for pattern, (other, _) in patterns.items():
        text, count = re.subn(pattern, other, text, flags=re.MULTILINE)
        assert count == 1, pattern
    copy = folder / file.name
    copy.write_text(text)
    return copy


@pytest.mark.parametrize("file", INVALID, ids=lambda file: file.stem)
def test_what_we_refuse_it_refuses(file):
    env = environment(file)
    assert not ours(file, env)
    taken, _ = validate(file, env)
    assert not taken


def environment(file):
    """Return the environment that the first line of a file asks for."""
    wanted = re.match(r"# env: (.*)", file.read_text())
    return {**os.environ, **dict(each.split("=", 1) for each in wanted[1].split())} if wanted else dict(os.environ)


def ours(file, env):
    command = Path(sys.executable).with_name("otelwp-agent")
    done = subprocess.run([command, "validate", "--config", file], env=env, capture_output=True, check=False)
    assert done.returncode in {0, 1}, done.stderr
    return done.returncode == 0
