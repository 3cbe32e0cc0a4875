from __future__ import annotations

import io
import sys

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError
from structlog.testing import capture_logs

from otelwp_agent.component import ComponentId, Context, Kind, Tier
from otelwp_agent.errors import MalformedError, RetryableError, StartError
from otelwp_agent.exporters.debug import FACTORY, Config, DebugExporter, Sampler
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.signal import Signal
from otelwp_agent.telemetry import logging as agent_logging
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing import NoHost


def body(name="GET /"):
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(name=name)
    return request.SerializeToString()


def batch(data=None, signal=Signal.TRACES):
    return Batch(signal, body() if data is None else data, 1, Origin(), ())


def build(clock=lambda: 0.0, **settings):
    context = Context(
        id=ComponentId("debug"),
        kind=Kind.EXPORTER,
        registry=Registry(),
        log=agent_logging.get("debug", kind="exporter"),
        clock=clock,
        host=NoHost(),
    )
    return DebugExporter(Config.model_validate(settings), context)


async def test_basic_is_a_log_event_with_counts():
    exporter = build()
    await exporter.start()
    with capture_logs() as events:
        assert await exporter.export(batch()) == 0
    assert events == [
        {
            "event": "traces",
            "log_level": "info",
            "component": "debug",
            "kind": "exporter",
            "resource_spans": 1,
            "spans": 1,
        }
    ]
    await exporter.shutdown()


@pytest.mark.parametrize(("verbosity", "shown"), [("normal", "GET /  unspecified"), ("detailed", "span #0  GET /")])
async def test_more_is_text_in_the_log(verbosity, shown):
    exporter = build(verbosity=verbosity)
    with capture_logs() as events:
        await exporter.export(batch())
    assert shown in events[0]["text"]


async def test_the_log_shows_text_below_its_line(capsys):
    agent_logging.configure("info", "console")
    await build(verbosity="normal").export(batch())
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("INFO  traces  component=debug kind=exporter resource_spans=1 spans=1")
    assert lines[1:3] == ["resource", "  scope"]


async def test_terminal_instead_of_the_log(capsys):
    exporter = build(use_internal_logger=False, verbosity="normal")
    await exporter.start()
    await exporter.export(batch())
    await exporter.shutdown()
    out, err = capsys.readouterr()
    assert out.splitlines()[:2] == ["traces: 1 resource span, 1 span", "resource"]
    assert err == ""
    assert not sys.stdout.closed


async def test_files_are_appended_to(tmp_path, capsys):
    paths = [str(tmp_path / "a.txt"), "stderr", str(tmp_path / "b.txt")]
    for _ in range(2):
        exporter = build(use_internal_logger=False, output_paths=paths)
        await exporter.start()
        await exporter.export(batch())
        await exporter.shutdown()
        await exporter.shutdown()
    expected = "traces: 1 resource span, 1 span\n" * 2
    assert (tmp_path / "a.txt").read_text() == (tmp_path / "b.txt").read_text() == capsys.readouterr().err == expected


async def test_a_path_that_cannot_be_written_stops_the_start(tmp_path):
    missing = str(tmp_path / "none" / "x.txt")
    exporter = build(use_internal_logger=False, output_paths=[str(tmp_path / "a.txt"), missing])
    with pytest.raises(StartError, match=r"exporter debug: cannot write to output_paths .*none.*No such file"):
        await exporter.start()
    assert exporter._streams == []


async def test_a_write_that_fails_is_told(monkeypatch):
    class Full(io.StringIO):
        def write(self, _text):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    exporter = build(use_internal_logger=False)
    await exporter.start()
    with pytest.raises(RetryableError, match="cannot write to stdout: No space left"):
        await exporter.export(batch())


@pytest.mark.parametrize("verbosity", ["basic", "normal", "detailed"])
async def test_malformed_is_told(verbosity):
    with pytest.raises(MalformedError):
        await build(verbosity=verbosity).export(batch(b"\xff"))


def test_sampling_shows_the_first_and_then_every_nth():
    now = [0.0]
    sampler = Sampler(2, 3, lambda: now[0])
    assert [sampler.take(Signal.TRACES) for _ in range(9)] == [
        True,
        True,
        False,
        False,
        True,
        False,
        False,
        True,
        False,
    ]
    assert sampler.take(Signal.LOGS)
    now[0] = 0.99
    assert [sampler.take(Signal.TRACES) for _ in range(2)] == [False, True]
    now[0] = 1.0
    assert [sampler.take(Signal.TRACES) for _ in range(3)] == [True, True, False]


def test_sampling_thereafter_one_shows_all_and_none_nothing():
    assert all(Sampler(2, 1, lambda: 0.0).take(Signal.TRACES) for _ in range(1))
    everything, first = Sampler(2, 1, lambda: 0.0), Sampler(2, 0, lambda: 0.0)
    assert [everything.take(Signal.LOGS) for _ in range(10)] == [True] * 10
    assert [first.take(Signal.LOGS) for _ in range(4)] == [True, True, False, False]


async def test_what_is_not_shown_is_not_rendered():
    exporter = build(verbosity="detailed", sampling_initial=1, sampling_thereafter=0)
    with capture_logs() as events:
        await exporter.export(batch())
        await exporter.export(batch(b"\xff"))
    assert len(events) == 1


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"output_paths": ["stdout"]}, "use_internal_logger"),
        ({"use_internal_logger": False, "output_paths": []}, "output_paths is empty"),
        ({"verbosity": "verbose"}, "'basic', 'normal' or 'detailed'"),
        ({"sampling_initial": -1}, "greater than or equal to 0"),
        ({"loglevel": "debug"}, "Extra inputs"),
    ],
)
def test_wrong_settings(settings, what):
    with pytest.raises(ValidationError, match=what):
        Config.model_validate(settings)


def test_defaults_are_the_collectors():
    config = Config()
    assert (config.verbosity, config.sampling_initial, config.sampling_thereafter) == ("basic", 2, 1)
    assert config.use_internal_logger
    assert FACTORY.tier is Tier.FREE
