"""Requests are read by the extension module if it exists and is enabled, and by Python otherwise."""

import importlib
import importlib.util
import os
import subprocess
import sys

import pytest

from otelwp_agent.errors import MalformedError
from otelwp_agent.model import native
from otelwp_agent.sampling import traces
from otelwp_agent.sampling.traces import reading
from tests.kit.otlp import delimited
from tests.kit.traces import CHILD, MARKS, OTHER, ROOT, TRACE, canonical, request, span

BODY = request([span(), span(span_id=CHILD, parent=ROOT), span(OTHER)])
IRREGULAR = delimited(1, delimited(2, delimited(2, delimited(1, OTHER) + delimited(1, TRACE))))
BUILT = importlib.util.find_spec("otelwp_agent.model.native._native") is not None

needs_native = pytest.mark.skipif(not BUILT, reason="the extension module is not there")


def told(**environment):
    """Return how an agent with this environment reads requests."""
    code = (
        "from otelwp_agent.sampling import traces; from tests.kit.traces import request, span;"
        "print(traces.NATIVE, type(traces.read(request([span()]))[0]).__module__)"
    )
    kept = {name: value for name, value in os.environ.items() if name != native.PURE}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**kept, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@needs_native
def test_the_extension_module_is_used():
    assert told() == told(OTELWP_PURE_PYTHON="") == ["True", "otelwp_agent.model.native._native"]


def test_the_environment_switches_it_off():
    assert told(OTELWP_PURE_PYTHON="1") == ["False", "otelwp_agent.sampling.traces.reading"]


def test_without_a_compiler_it_is_not_there(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.delenv(native.PURE, raising=False)
    monkeypatch.setattr(importlib, "import_module", missing)
    assert native.load() is None


@pytest.mark.parametrize("body", [BODY, IRREGULAR, b""], ids=["usual", "irregular", "empty"])
def test_python_reads_the_same(monkeypatch, body):
    found, pieces = traces.read(body, MARKS, name=True)
    selected = found.select([b"", None][: len(pieces)])
    monkeypatch.setattr(traces, "_native", None)
    other, others = traces.read(body, MARKS, name=True)
    assert isinstance(other, reading.TraceRequest)
    assert [tuple(piece) for piece in pieces] == [tuple(piece) for piece in others]
    assert canonical(selected) == other.select([b"", None][: len(pieces)])


@needs_native
def test_python_reads_what_is_laid_out_in_another_way():
    found, pieces = traces.read(IRREGULAR)
    assert isinstance(found, reading.TraceRequest)
    assert [piece.trace_id for piece in pieces] == [TRACE]


def test_what_does_not_parse_is_malformed():
    with pytest.raises(MalformedError):
        traces.read(BODY[:-1])


def test_marks_and_names_are_asked_for_or_not():
    body = request([span(attributes=[{"key": "n", "value": {"int_value": 2}}])])
    attribute = delimited(9, delimited(1, b"n") + delimited(2, b"\x18\x02"))
    assert [piece[7] for piece in traces.read(body)[1]] == [b""]
    assert [piece[7] for piece in traces.read(body, MARKS)[1]] == [attribute]
    assert [piece[7] for piece in traces.read(body, (), name=True)[1]] == [delimited(5, b"GET /")]
