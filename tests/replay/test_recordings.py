import asyncio
import json

import pytest

from otelwp_agent.component import Kind
from otelwp_agent.errors import AgentError
from otelwp_agent.journal import records
from otelwp_agent.journal.records import JournalRecord, JournalSnapshot, RecordKind, RequestContext
from otelwp_agent.journal.segment import Segment
from otelwp_agent.model.batch import Origin
from otelwp_agent.model.signal import Signal
from otelwp_agent.replay.recordings import AHEAD, LONGEST_GAP, Recorded, Recording, paced
from tests.kit.stages import batch_of, build
from tests.kit.traffic import BEGIN, SECOND, request, traffic

REQUESTS = list(traffic(seconds=5, rate=10))


def write(path, requests=REQUESTS, **settings):
    """Have the `file` exporter write requests."""

    async def work():
        exporter, _ = build("file", {"path": str(path), **settings}, kind=Kind.EXPORTER)
        await exporter.start()
        for _, body, spans in requests:
            await exporter.export(batch_of(body, spans))
        await exporter.shutdown()

    asyncio.run(work())
    return path


@pytest.mark.parametrize(
    "settings",
    [{}, {"format": "proto"}, {"format": "proto", "compression": "zstd"}, {"format": "json", "compression": "zstd"}],
)
def test_all_forms_of_the_file_exporter(tmp_path, settings):
    recording = Recording()
    found = list(recording.from_files([write(tmp_path / "recorded", **settings)]))
    assert [(each.ended, each.items) for each in found] == [(at, spans) for at, _, spans in REQUESTS]
    assert recording.skipped == {}


def test_files_follow_each_other(tmp_path):
    files = [write(tmp_path / "1", REQUESTS[:10]), write(tmp_path / "2", REQUESTS[10:], format="proto")]
    (tmp_path / "empty").touch()
    found = list(Recording().from_files([files[0], tmp_path / "empty", files[1]]))
    assert [each.ended for each in found] == [at for at, _, _ in REQUESTS]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"receivers: {}\n", "not a file of the `file` exporter"),
        (b'{"data": []}\n', "line 1: not OTLP/JSON: the `file` exporter writes one request a line"),
        (b'{"resourceSpans": [\n  {}]}', "line 1: not OTLP/JSON: the body is not JSON"),
        (b'{"resourceSpans": {"a": 1}}', "line 1: not OTLP/JSON: resourceSpans"),
    ],
)
def test_other_files(tmp_path, text, words):
    path = tmp_path / "other"
    path.write_bytes(text)
    with pytest.raises(AgentError) as caught:
        list(Recording().from_files([path]))
    assert str(caught.value).startswith(str(path))
    assert words in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(AgentError, match=r"cannot read .*/none: No such file"):
        list(Recording().from_files([tmp_path / "none"]))
    with pytest.raises(AgentError, match=r"cannot read .*: Is a directory"):
        list(Recording().from_files([tmp_path]))


def test_truncated_or_invalid_parts_are_counted(tmp_path):
    path = write(tmp_path / "cut", format="proto")
    path.write_bytes(path.read_bytes()[:-3])
    recording = Recording()
    assert len(list(recording.from_files([path]))) == len(REQUESTS) - 1
    assert recording.skipped == {"cut off": 1}
    path = write(tmp_path / "broken")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], lines[3][:-20] + b"\n", b'{"resourceLogs": []}\n', *lines[4:]]))
    recording = Recording()
    assert len(list(recording.from_files([path]))) == len(REQUESTS) - 1
    assert recording.skipped == {"unreadable": 1, "other signals": 1}


def test_no_journal(tmp_path):
    with pytest.raises(AgentError, match=r"there is no journal in .*: no agent has used this directory"):
        list(Recording().from_journal(tmp_path / "none", frozenset(), "traces"))


def at(seconds):
    """Return a request whose last span ended `seconds` after the first; `None`: without times."""
    return Recorded(b"", 1, Origin(), 0 if seconds is None else BEGIN + round(seconds * SECOND))


def times(*seconds):
    recording = Recording()
    return [round(now, 6) for now, _ in paced(map(at, seconds), recording)], recording.skipped


def test_time_is_that_of_the_last_end_and_never_goes_back():
    assert times(0, 1.5, 1.25, None, 4) == ([0, 1.5, 1.5, 1.5, 4], {})
    assert times(None, 10, 11) == ([0, 0, 1], {})


def test_a_clock_that_is_far_ahead_is_ignored():
    far = AHEAD + 10
    assert times(0, 1, far, 2, 3, 4) == ([0, 1, 1, 2, 3, 4], {"clocks ahead": 1})
    assert times(1e9, 0, 1, 2, 3) == ([0, 0, 1, 2, 3], {"clocks ahead": 1})
    assert times(0, 1, 2, 3, 1e9) == ([0, 1, 2, 3, 3], {"clocks ahead": 1})


def test_a_clock_that_is_behind_holds_nothing_up():
    assert times(0, 1, -1e9, 2)[0] == [0, 1, 1, 2]


def test_long_intervals_without_traffic_become_an_hour():
    night = [*range(60), *(36_000 + second for second in range(60))]
    found, skipped = times(*night)
    assert skipped == {}
    assert found == [*range(60), *(59 + LONGEST_GAP + second for second in range(60))]


def test_a_line_without_spans_is_no_request(tmp_path):
    path = tmp_path / "empty.jsonl"
    path.write_text(json.dumps({"resourceSpans": []}) + "\n")
    recording = Recording()
    assert list(recording.from_files([path])) == []
    assert recording.skipped == {"empty": 1}


def test_a_span_without_times(tmp_path):
    path = write(tmp_path / "one", [(0, request([{"trace_id": b"1" * 16}]), 1)])
    assert [each.ended for each in Recording().from_files([path])] == [0]


class Written:
    """A journal written by the test, segment by segment."""

    def __init__(self, folder):
        self._folder = folder
        self._number = 0
        self.seq = 0
        self.path = None

    def segment(self, contexts):
        """Begin a segment with these contexts, from number 1 on."""
        self._number += 1
        segment = Segment.create(self._folder, self._number, self.seq)
        self._segment, self.path, self.marker = segment, segment.path, segment.marker
        self._write(records.other(self.marker, RecordKind.SNAPSHOT, JournalSnapshot(self.seq, [], 0.0).encode()))
        for number, context in enumerate(contexts, start=1):
            self._write(records.other(self.marker, RecordKind.CONTEXT, context.encode(), number))

    def entry(self, body, context=1, signal=Signal.TRACES):
        self._write(records.entry(self.marker, self.seq, signal, context, 1, body))
        self.seq += 1

    def moved(self, seq, body, context=1):
        old = JournalRecord(0, RecordKind.ENTRY, memoryview(body), seq, 1)
        self._write(records.moved(self.marker, self.seq, context, old))
        self.seq += 1

    def _write(self, parts):
        self._segment.size += self._segment.write(parts, sync=False)


TRACES = RequestContext(Origin("otlp", "http", "tenant", {"user-agent": "WordPress"}), ("traces",))


def bodies(*numbers):
    return [request([{"trace_id": bytes([number]) * 16, "end_time_unix_nano": BEGIN + number}]) for number in numbers]


def ends(found):
    return [each.ended - BEGIN for each in found]


def test_a_journal_yields_each_request_once_with_its_origin(tmp_path):
    written = Written(tmp_path)
    one, two, three = bodies(1, 2, 3)
    written.segment([TRACES])
    written.entry(one)
    written.entry(two)
    written.segment([TRACES])
    written.moved(0, one)  # it stands in the older segment, too
    written.moved(77, three)  # whose segment is gone
    recording = Recording()
    found = list(recording.from_journal(tmp_path, frozenset({"traces"}), "traces"))
    assert ends(found) == [1, 2, 3]
    assert {(each.origin.tenant, each.origin.headers["user-agent"]) for each in found} == {("tenant", "WordPress")}
    assert recording.skipped == {}


def test_only_what_came_for_the_pipeline_that_is_meant(tmp_path):
    written = Written(tmp_path)
    written.segment(
        [TRACES, RequestContext(Origin("otlp"), ("traces/b",)), RequestContext(Origin("otlp"), ("traces/gone",))]
    )
    for number, body in enumerate(bodies(1, 2, 3), start=1):
        written.entry(body, number)
    written.entry(b"", 1, Signal.LOGS)
    recording = Recording()
    # A pipeline that the new configuration does not have may be the one that is meant under its old name.
    assert ends(recording.from_journal(tmp_path, frozenset({"traces", "traces/b"}), "traces")) == [1, 3]
    assert recording.skipped == {"other pipelines": 1, "other signals": 1}


def test_only_damaged_records_of_a_journal_are_skipped(tmp_path):
    written = Written(tmp_path)
    written.segment([TRACES])
    for body in bodies(1, 2, 3):
        written.entry(body)
    data = bytearray(written.path.read_bytes())
    data[data.index(b"\x02" * 16)] ^= 1
    written.path.write_bytes(data)
    recording = Recording()
    assert ends(recording.from_journal(tmp_path, frozenset(), "traces")) == [1, 3]
    assert recording.skipped == {"damaged": 1}
    assert written.path.read_bytes() == data
