import asyncio
import errno
import os
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from otelwp_agent.dead_letters import sink as module
from otelwp_agent.dead_letters.file import read_bodies, read_letters
from otelwp_agent.dead_letters.records import Fate
from otelwp_agent.dead_letters.sink import DeadLetterFile, Resent
from otelwp_agent.errors import StartError
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.receipt import Outcome, Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.telemetry.metrics import Registry
from tests.kit.graphs import until

ORIGIN = Origin("otlp", "http", "shop", {"authorization": "Bearer s3cret"})


def batch(body=b"body", items=3):
    return Batch(Signal.TRACES, body, items, ORIGIN, ((Receipt(items), items),), ("zstd",))


@pytest.fixture
def registry():
    return Registry()


@pytest.fixture
async def sink(tmp_path, registry):
    path, log = tmp_path / "run" / "dead-letters", structlog.get_logger()
    sink = DeadLetterFile(path, 2**16, registry, log, lambda: 5.0, max_tenant_share=1)  # all letters have one tenant
    sink.open()
    yield sink
    sink.close()


def put(sink, what, reason="malformed", error="cannot read span 3"):
    return sink.put(what, exporter="otlp_http", reason=reason, error=error)


async def test_a_letter_says_what_was_refused_and_why(sink):
    put(sink, batch())
    (found,) = read_letters(sink.path).letters
    assert (found.exporter, found.reason, found.error) == ("otlp_http", "malformed", "cannot read span 3")
    assert (found.receiver, found.transport, found.tenant) == ("otlp", "http", "shop")
    assert (found.signal, found.items, found.size, found.time, found.encodings) == (Signal.TRACES, 3, 4, 5.0, ("zstd",))
    assert [body for _, body in read_bodies(sink.path, {found.id})] == [b"body"]


async def test_no_header_of_the_client_is_kept(sink):
    put(sink, batch())
    assert b"s3cret" not in sink.path.read_bytes()


async def test_what_the_other_side_said_is_cut(sink):
    put(sink, batch(), error="x" * 5000)
    assert read_letters(sink.path).letters[0].error == "x" * 1000


async def test_what_is_kept_is_counted(sink, registry):
    put(sink, batch())
    put(sink, batch(), reason="too_large")
    assert registry.value("otelwp_dead_letter_items", exporter="otlp_http", reason="malformed") == 3
    assert registry.value("otelwp_dead_letter_items") == 6
    assert registry.value("otelwp_dead_letter_bytes") == sink.path.stat().st_size


async def test_an_item_counts_once_however_often_it_is_resent(sink, registry):
    put(sink, batch())
    (letter,) = read_letters(sink.path).letters
    for reason in ("malformed", "late"):
        receipt = Resent(letter, sink.settled)
        again = letter.batch(b"body", ((receipt, letter.items),))
        put(sink, again, reason=reason)
        again.settle(Outcome.DROPPED, reason)
    receipt = Resent(letter, sink.settled)
    merged = letter.batch(b"body+new", ((receipt, 3), (Receipt(2), 2))).with_body(b"body+new", 5)
    put(sink, merged, reason="late")
    assert registry.value("otelwp_dead_letter_items", reason="malformed") == 3
    assert registry.value("otelwp_dead_letter_items", reason="late") == 2, "new items that were merged with a letter"


async def test_a_full_file_takes_no_more_and_says_so_once(sink, registry):
    put(sink, batch(bytes(60_000)))
    with capture_logs() as logs:
        put(sink, batch(bytes(60_000)))
        assert put(sink, batch(bytes(60_000))) is Fate.LOST
        assert put(sink, batch(b"small")) is Fate.KEPT
    assert [one.size for one in read_letters(sink.path).letters] == [60_000, 5]
    assert registry.value("otelwp_dead_letter_failed_items", exporter="otlp_http", cause="full") == 6
    (line,) = logs
    assert (line["event"], line["log_level"], line["items"]) == ("dead letters not written", "error", 3)
    assert "resend or purge letters" in line["error"]


async def test_a_disk_that_fails_is_counted_and_raises_nothing(sink, registry, monkeypatch):
    def fails(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr("otelwp_agent.dead_letters.file.os.write", fails)
        assert put(sink, batch()) is Fate.FAILED
    assert registry.value("otelwp_dead_letter_failed_items", cause="error") == 3
    assert "No space left" in logs[0]["error"]
    put(sink, batch())
    assert len(read_letters(sink.path).letters) == 1


async def test_fsyncs_are_few(sink, monkeypatch):
    synced, fdatasync = [], os.fdatasync

    def sync(fd):
        synced.append(len(read_letters(sink.path).letters))
        fdatasync(fd)

    monkeypatch.setattr("otelwp_agent.dead_letters.file.os.fdatasync", sync)
    for _ in range(50):
        put(sink, batch())
    assert synced == [1]  # the first is on disk at once
    await until(lambda: len(synced) == 2)
    assert synced == [1, 50]


async def test_an_fsync_that_fails_is_told(sink, monkeypatch):
    def fails(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr("otelwp_agent.dead_letters.file.os.fdatasync", fails)
        put(sink, batch())
    assert logs[0]["event"] == "dead letters not on disk"


async def test_a_file_that_somebody_removed_begins_anew(sink):
    put(sink, batch())
    sink.path.unlink()
    with capture_logs() as logs:
        put(sink, batch(b"second"))
    assert "removed or replaced" in logs[0]["event"]
    assert [one.size for one in read_letters(sink.path).letters] == [6]


async def test_a_removed_file_that_cannot_be_begun_anew_at_once_is_tried_again(sink, monkeypatch):
    put(sink, batch())
    sink.path.unlink()

    def fails(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fails)
        assert sink.put(batch(), exporter="jaeger", reason="malformed", error="no") is Fate.FAILED
    put(sink, batch(b"second"))
    assert [one.size for one in read_letters(sink.path).letters] == [6]


async def test_a_failed_fsync_is_followed_by_writing_the_file_again(sink, monkeypatch):
    """The kernel may have dropped the pages that it could not write."""

    def fails(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(module, "RETRY_INTERVAL", 0.01)
    before = sink.path.stat().st_ino
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fails)
        put(sink, batch())
    await until(lambda: sink.path.stat().st_ino != before)
    assert [one.size for one in read_letters(sink.path).letters] == [4]


async def resent(sink):
    """Put a letter, and return it as a batch that is sent once more."""
    put(sink, batch())
    letter = read_letters(sink.path).letters[-1]
    receipt = Resent(letter, sink.settled)
    return letter.batch(b"body", ((receipt, letter.items),)), letter


async def test_what_was_delivered_is_gone(sink):
    await resent(sink)
    again, letter = await resent(sink)
    again.settle(Outcome.DELIVERED)
    await until(lambda: len(read_letters(sink.path).letters) == 1)
    assert read_letters(sink.path).letters[0].id != letter.id


async def test_once_all_are_gone_so_are_their_bytes(sink):
    again, _ = await resent(sink)
    again.settle(Outcome.DELIVERED)
    await until(lambda: b"body" not in sink.path.read_bytes())
    assert read_letters(sink.path).letters == []


async def test_what_is_refused_again_stays_with_the_new_reason(sink):
    again, letter = await resent(sink)
    put(sink, again, reason="too_large")
    again.settle(Outcome.DROPPED, "too_large")
    sink.close()
    assert [(one.id, one.reason) for one in read_letters(sink.path).letters] == [(letter.id, "too_large")]


async def test_parts_that_are_refused_again_take_its_place(sink):
    again, letter = await resent(sink)
    ((receipt, _),) = again.shares
    put(sink, again.with_body(b"bo", 1, ((receipt, 1),)))
    receipt.settle(Outcome.DROPPED, 1, "malformed")
    receipt.settle(Outcome.DELIVERED, 2)
    sink.close()
    (left,) = read_letters(sink.path).letters
    assert (left.items, left.id != letter.id) == (1, True)


@pytest.mark.parametrize("reason", ["shutdown", "partial_success"])
async def test_what_was_dropped_without_a_letter_stays(sink, reason):
    again, letter = await resent(sink)
    again.settle(Outcome.DROPPED, reason)
    sink.close()
    assert read_letters(sink.path).letters == [letter]


async def test_a_letter_that_does_not_fit_again_stays_as_it_was(sink):
    again, letter = await resent(sink)
    put(sink, batch(bytes(65_000)))
    put(sink, again.with_body(bytes(2000)))
    again.settle(Outcome.DROPPED, "malformed")
    sink.close()
    assert letter in read_letters(sink.path).letters


async def test_purge(sink):
    put(sink, batch())
    put(sink, batch(), reason="too_large")
    assert [one.reason for one in sink.purge(lambda letter: letter.reason == "malformed")] == ["malformed"]
    put(sink, batch(), reason="late")
    assert [one.reason for one in read_letters(sink.path).letters] == ["too_large", "late"]


async def test_ids_go_on_after_a_restart(sink, tmp_path, registry):
    put(sink, batch())
    sink.close()
    with capture_logs() as logs:
        sink.open()
    assert logs == [
        {
            "event": "dead letters wait: see `otelwp-agent dead-letter list`",
            "log_level": "info",
            "letters": 1,
            "file": str(sink.path),
        }
    ]
    put(sink, batch())
    first, second = read_letters(sink.path).letters
    assert first.id < second.id


async def test_damage_is_an_error_in_the_log(sink):
    put(sink, batch())
    put(sink, batch())
    sink.close()
    data = bytearray(sink.path.read_bytes())
    data[60] ^= 1
    sink.path.write_bytes(data)
    with capture_logs() as logs:
        sink.open()
    assert (logs[0]["event"], logs[0]["places"]) == ("dead letters damaged; parts skipped", 1)


async def test_two_agents_cannot_share_one(sink, registry):
    with pytest.raises(StartError, match="Give each agent a file of its own"):
        DeadLetterFile(sink.path, 2**16, registry, structlog.get_logger()).open()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/dev/null/letters", "cannot write /dev/null/letters"),
        ("/proc/letters", "cannot write /proc/letters"),
        (__file__, "this is not a dead-letter file"),
    ],
)
async def test_what_cannot_be_opened_names_the_setting(path, words, registry):
    with pytest.raises(StartError, match=words) as error:
        DeadLetterFile(Path(path), 2**16, registry, structlog.get_logger()).open()
    assert "service.dead_letter.path" in str(error.value)


async def test_nothing_is_left_behind_when_it_closes(sink):
    put(sink, batch())
    put(sink, batch())
    sink.close()
    await asyncio.sleep(0)
    assert sink._timer is None
    assert module.SYNC_INTERVAL <= 0.1
