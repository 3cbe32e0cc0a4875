from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
import threading
from pathlib import Path

import pytest
import structlog
import zstandard
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError

from otelwp_agent.component import ComponentId, Context, Kind, Tier
from otelwp_agent.errors import MalformedError, RetryableError, StartError
from otelwp_agent.exporters import file as file_exporter
from otelwp_agent.exporters.file import FACTORY, Config, FileExporter
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.signal import Signal
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing import NoHost


def body(name="GET /"):
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(name=name, trace_id=bytes(range(16)))
    return request.SerializeToString()


def batch(name="GET /"):
    return Batch(Signal.TRACES, body(name), 1, Origin(), ())


def build(path, **settings):
    context = Context(
        id=ComponentId("file"),
        kind=Kind.EXPORTER,
        registry=Registry(),
        log=structlog.get_logger(),
        clock=lambda: 0.0,
        host=NoHost(),
    )
    return FileExporter(Config.model_validate({"path": str(path), **settings}), context)


async def write(path, *names, **settings):
    """Run an exporter from start to shutdown."""
    exporter = build(path, **settings)
    await exporter.start()
    for name in names:
        assert await exporter.export(batch(name)) == 0
    await exporter.shutdown()
    return exporter


def names_in(path):
    return [
        json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"]
        for line in path.read_text().splitlines()
    ]


def messages_in(path):
    data, found = path.read_bytes(), []
    while data:
        length = int.from_bytes(data[:4], "big")
        assert len(data) >= 4 + length
        found.append(data[4 : 4 + length])
        data = data[4 + length :]
    return found


async def test_json_is_a_request_a_line(tmp_path):
    path = tmp_path / "traces.json"
    await write(path, "GET /", "two\nlines")
    assert names_in(path) == ["GET /", "two\nlines"]
    (span,) = json.loads(path.read_text().splitlines()[0])["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert span["traceId"] == "000102030405060708090a0b0c0d0e0f"


async def test_proto_is_length_prefixed(tmp_path):
    path = tmp_path / "traces.otlp"
    await write(path, "a", "b", format="proto")
    assert messages_in(path) == [body("a"), body("b")]


@pytest.mark.parametrize("form", ["json", "proto"])
async def test_compressed_requests_are_length_prefixed(tmp_path, form):
    path = tmp_path / "traces.zst"
    await write(path, "a", "b", format=form, compression="zstd")
    plain = [zstandard.ZstdDecompressor().decompress(message) for message in messages_in(path)]
    if form == "proto":
        assert plain == [body("a"), body("b")]
    else:
        assert [json.loads(text)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"] for text in plain] == [
            "a",
            "b",
        ]


async def test_written_when_export_returns(tmp_path):
    path = tmp_path / "traces.json"
    exporter = build(path)
    await exporter.start()
    await exporter.export(batch("now"))
    assert names_in(path) == ["now"]
    registry = exporter.context.registry
    assert registry.value("otelwp_file_written_bytes", exporter="file") == path.stat().st_size
    await exporter.shutdown()


async def test_batches_at_once_keep_their_order(tmp_path):
    path = tmp_path / "traces.json"
    exporter = build(path)
    await exporter.start()
    names = [str(number) for number in range(50)]
    await asyncio.gather(*(exporter.export(batch(name)) for name in names))
    await exporter.shutdown()
    assert names_in(path) == names


async def test_begun_anew_unless_append_or_rotation(tmp_path):
    for settings, expected in (({}, ["b"]), ({"append": True}, ["a", "b"]), ({"rotation": None}, ["a", "b"])):
        path = tmp_path / f"{len(settings)}{next(iter(settings), '')}.json"
        await write(path, "a", **settings)
        await write(path, "b", **settings)
        assert names_in(path) == expected


async def test_only_the_owner_may_read(tmp_path):
    await write(tmp_path / "x.json", "a")
    assert stat.S_IMODE((tmp_path / "x.json").stat().st_mode) == 0o600


async def test_other_modes_can_be_configured(tmp_path):
    path = tmp_path / "shared" / "x.json"
    settings = {"create_directory": True, "directory_permissions": "0750", "file_permissions": "0640"}
    await write(path, "a", **settings)
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent)] == [0o640, 0o750]
    path.chmod(0o600)
    await write(path, "b", append=True, file_permissions="0640")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600, "an existing file keeps its mode"


async def test_a_symbolic_link_in_a_directory_that_others_can_write_is_refused(tmp_path):
    target, shared = tmp_path / "target", tmp_path / "shared"
    target.write_text("precious")
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "x.json").symlink_to(target)
    with pytest.raises(StartError, match=r"x\.json is a symbolic link, and other users can write in .*: remove it, or"):
        await build(shared / "x.json").start()
    assert target.read_text() == "precious"


async def test_directory_is_created_if_asked(tmp_path):
    path = tmp_path / "a" / "b" / "x.json"
    with pytest.raises(StartError, match=r"exporter file: cannot write to path .*x\.json.*create_directory: true"):
        await build(path).start()
    assert not path.parent.exists()
    await write(path, "a", create_directory=True)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert names_in(path) == ["a"]


async def test_a_path_that_is_a_directory(tmp_path):
    exporter = build(tmp_path)
    with pytest.raises(StartError, match="Is a directory"):
        await exporter.start()
    await exporter.shutdown()


async def test_malformed_is_told_and_nothing_is_written(tmp_path):
    exporter = build(tmp_path / "x.json")
    await exporter.start()
    with pytest.raises(MalformedError):
        await exporter.export(Batch(Signal.TRACES, b"\xff\xff", 1, Origin(), ()))
    await exporter.shutdown()
    assert (tmp_path / "x.json").read_bytes() == b""


async def test_a_full_disk_is_told_and_tried_again(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    exporter = build(path)
    await exporter.start()
    await exporter.export(batch("first"))
    real = os.write

    def full(fd, data):
        if len(data) > 10:
            return real(fd, data[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(file_exporter.os, "write", full)
    with pytest.raises(RetryableError, match=r"cannot write to .*x\.json: No space left on device"):
        await exporter.export(batch("second"))
    assert names_in(path) == ["first"]
    monkeypatch.undo()
    await exporter.export(batch("third"))
    await exporter.shutdown()
    assert names_in(path) == ["first", "third"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
async def test_dev_full():
    exporter = build("/dev/full")
    await exporter.start()
    with pytest.raises(RetryableError, match="/dev/full: No space left on device"):
        await exporter.export(batch())
    await exporter.shutdown()


async def test_a_slow_disk_holds_up_nothing_else(tmp_path, monkeypatch):
    exporter = build(tmp_path / "x.json")
    await exporter.start()
    release, real = threading.Event(), os.write
    monkeypatch.setattr(file_exporter.os, "write", lambda fd, data: release.wait(60) and real(fd, data))
    export = asyncio.ensure_future(exporter.export(batch("slow")))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not export.done()
    release.set()
    await asyncio.wait_for(export, 60)
    await exporter.shutdown()
    assert names_in(tmp_path / "x.json") == ["slow"]


async def test_shutdown_without_start_twice_and_no_export_after(tmp_path):
    exporter = build(tmp_path / "x.json")
    await exporter.shutdown()
    await exporter.start()
    await exporter.shutdown()
    await exporter.shutdown()
    with pytest.raises(RetryableError, match="is not open"):
        await exporter.export(batch())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("file ")]


async def test_rotation_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(file_exporter, "MEGABYTE", 300)
    path = tmp_path / "x.json"
    exporter = await write(path, *"abcdef", rotation={"max_megabytes": 1})
    full = exporter._file.backups()
    assert exporter.context.registry.value("otelwp_file_rotations") == len(full) > 0
    assert [name for _, each in reversed(full) for name in names_in(each)] + names_in(path) == list("abcdef")


# --- the file that rotates ---


# --- settings ---


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({}, "path"),
        ({"path": ""}, "path"),
        ({"append": True, "rotation": {}}, "append and rotation"),
        ({"append": True, "compression": "zstd"}, "append and compression"),
        ({"directory_permissions": "0755"}, "create_directory"),
        ({"create_directory": True, "directory_permissions": "0999"}, "three octal digits"),
        ({"create_directory": True, "directory_permissions": "rwxr-xr-x"}, "three octal digits"),
        ({"format": "text"}, "'json' or 'proto'"),
        ({"compression": "gzip"}, "'zstd'"),
        ({"flush_interval": "-1s"}, "greater than or equal to 0"),
        ({"group_by": {"enabled": True}}, "remove `group_by`"),
        ({"encoding": "otlp_encoding"}, "remove `encoding`"),
        ({"rotation": {"max_megabites": 5}}, "Extra inputs"),
    ],
)
def test_wrong_settings_say_what_would_be_right(settings, what):
    with pytest.raises(ValidationError, match=what):
        Config.model_validate({"path": "x.json", **settings} if settings else {})


def test_defaults_are_the_collectors():
    config = Config(path="x.json")
    assert (config.append, config.format, config.rotation) == (False, "json", None)
    rotation = Config.model_validate({"path": "x", "rotation": None}).rotation
    assert rotation is not None
    assert (rotation.max_megabytes, rotation.max_days, rotation.max_backups, rotation.localtime) == (100, 0, 100, False)
    assert FACTORY.tier is Tier.FREE
    Config.model_validate({"path": "x", "group_by": {"enabled": False}})
