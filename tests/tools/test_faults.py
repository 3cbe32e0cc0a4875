"""No system call on the agent's own files can fail and lose what was acknowledged, break anything or go unnoticed."""

import contextlib

import faults
import pytest

from otelwp_agent.storage import files
from tests.kit.faults import Fault, Faults


def test_every_fault_is_survived_and_the_page_says_how():
    page, problems = faults.observe()
    assert problems == []
    assert faults.PAGE.read_text("utf-8") == page, "run `python tools/faults.py`"


def test_an_unreported_fault_is_a_problem(monkeypatch, tmp_path):
    """The harness can fail: a component that ignores errors is found out."""

    class Careless:
        name = "careless"

        def prepare(self, folder):
            (folder / "x").write_bytes(b"old")

        async def run(self, folder, _reports, _faults):
            with contextlib.suppress(OSError):
                files.replace_file(folder / "x", b"new")
            return b"new"

        async def check(self, folder, promised):
            assert (folder / "x").read_bytes() == promised

    monkeypatch.setattr(faults, "SCENARIOS", [Careless()])
    _, problems = faults.observe()
    assert any("fsync number 1: EIO: not reported" in problem for problem in problems)
    assert any("write number 1: ENOSPC: after the restart: AssertionError" in problem for problem in problems)


def test_a_file_that_is_opened_past_the_replaced_functions_is_found(tmp_path):
    with Faults(tmp_path, Fault("open", "EIO", 1, lasting=True)) as injected:
        (tmp_path / "x").write_bytes(b"")
        with pytest.raises(OSError, match="Input/output"):
            files.read_file(tmp_path / "x")
    assert [event for event, _ in injected.missed] == ["open"]
