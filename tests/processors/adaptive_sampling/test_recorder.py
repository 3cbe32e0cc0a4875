"""The flight recorder is bounded, removes the oldest first, survives restarts and ignores damaged files."""

import errno
import os
import random
import stat

import pytest
import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from structlog.testing import capture_logs

from otelwp_agent.errors import StartError
from otelwp_agent.model.batch import Origin
from otelwp_agent.model.receipt import Ledger
from otelwp_agent.processors.adaptive_sampling import recorder
from otelwp_agent.processors.adaptive_sampling.recorder import FlightRecorder
from otelwp_agent.testing import run
from tests.kit.stages import build

ORIGIN = Origin("otlp", "http", "tenant")


def trace_id(number):
    return number.to_bytes(16, "big")


def request(*numbers, size=1000):
    made = ExportTraceServiceRequest()
    spans = made.resource_spans.add().scope_spans.add().spans
    for number in numbers:
        span = spans.add(trace_id=trace_id(number), span_id=b"12345678")
        span.attributes.add(key="noise").value.bytes_value = random.Random(number).randbytes(size)
    return made.SerializeToString()


def recorded(folder="", *, most=2**20, in_files=2**22, traces=0):
    made = FlightRecorder(most, str(folder), in_files, structlog.get_logger(), lambda _: Ledger())
    made.start()
    for number in range(1, traces + 1):
        made.record(request(number), [trace_id(number)], ORIGIN, 1000.0 + number)
    return made


def ids(batches):
    return {
        span.trace_id
        for batch in batches
        for resource in ExportTraceServiceRequest.FromString(batch.body).resource_spans
        for span in resource.scope_spans[0].spans
    }


def test_memory_is_bounded_and_the_oldest_go():
    box = recorded(traces=5000)
    assert box.size < 2**20 + 2 * recorder.BLOCK
    assert 500 < box.traces < 1500
    assert trace_id(1) not in box
    assert trace_id(5000) in box
    assert ids(box.rescue(trace_id(4700))) == {trace_id(4700)}


def test_rescued_traces_are_removed():
    box = recorded(traces=600)
    found = box.rescue(since=0)
    assert sum(batch.items for batch in found) == 600
    assert box.traces == 0
    assert box.rescue(since=0) == []


def test_since():
    box = recorded(traces=600)
    late = ids(box.rescue(since=1500))
    assert trace_id(600) in late
    assert trace_id(1) not in late, "whole blocks are older"


def test_traces_in_one_request_are_rescued_separately():
    box = recorded()
    box.record(request(1, 2, 3), [trace_id(1), trace_id(2), trace_id(3)], ORIGIN, 1.0)
    batch = box.rescue(trace_id(2))[0]
    assert (batch.items, batch.origin.tenant, batch.shares[0][0].pending) == (1, "tenant", 1)
    assert ids(box.rescue()) == {trace_id(1), trace_id(3)}


def test_a_folder_takes_what_leaves_memory_and_is_found_after_a_restart(tmp_path):
    box = recorded(tmp_path / "recorder", most=2**17, traces=2000)
    assert ids(box.rescue(trace_id(1))) == {trace_id(1)}
    box.shutdown()
    after = recorded(tmp_path / "recorder")
    assert after.traces == 2000, "but for the one that was rescued, which nobody wrote down"
    found = after.rescue(trace_id(2))
    assert (ids(found), found[0].origin.tenant) == ({trace_id(2)}, "tenant")


def test_the_folder_is_bounded(tmp_path):
    box = recorded(tmp_path, most=2**17, in_files=2**20, traces=5000)
    box.shutdown()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2**20
    assert trace_id(5000) in box
    assert trace_id(1) not in box


def test_damaged_files_are_ignored(tmp_path):
    recorded(tmp_path, traces=600).shutdown()
    files = sorted(tmp_path.iterdir())
    assert len(files) > 1
    files[0].write_bytes(files[0].read_bytes()[:-100])
    (tmp_path / "x.recorded").write_bytes(b"nonsense\n")
    (tmp_path / "y.recorded").write_bytes(b"")
    box = recorded(tmp_path)
    assert 0 < sum(batch.items for batch in box.rescue(since=0)) < 600


def test_an_unusable_folder(tmp_path):
    (tmp_path / "file").write_text("no folder")
    settings = {
        "target": {"spans_per_second": 1},
        "flight_recorder": {"enabled": True, "directory": str(tmp_path / "file")},
    }
    stage, _ = build("adaptive_sampling", settings)
    with pytest.raises(StartError, match=r"flight_recorder\.directory"):
        run(stage.start())


def test_files_are_private_and_no_link_of_another_user_is_followed(tmp_path):
    tmp_path.chmod(0o1777)
    folder = tmp_path / "made"
    recorded(folder, most=0, traces=300)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert (modes, stat.S_IMODE(folder.stat().st_mode)) == ({0o600}, 0o700)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(OSError, match="link is a symbolic link"):
        recorded(tmp_path / "link")


def test_a_block_that_cannot_be_written_leaves_no_part_of_a_file(tmp_path, monkeypatch):
    box = recorded(tmp_path)
    for number in range(1, 300):
        box.record(request(number), [trace_id(number)], ORIGIN, 1000.0)
    box.flush()
    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        box.shutdown()
    assert "not written" in logs[0]["event"]
    assert list(tmp_path.iterdir()) == []


def test_a_block_that_cannot_be_removed_is_tried_again(tmp_path, monkeypatch):
    box = recorded(tmp_path, most=0, in_files=2**19)
    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(os, "unlink", lambda *_: (_ for _ in ()).throw(OSError(errno.EACCES, "no")))
        for number in range(1, 1200):
            box.record(request(number), [trace_id(number)], ORIGIN, 1000.0)
    assert {line["event"] for line in logs} == {"flight recorder: a block cannot be removed"}
    for number in range(1200, 1500):
        box.record(request(number), [trace_id(number)], ORIGIN, 1000.0)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2**19
