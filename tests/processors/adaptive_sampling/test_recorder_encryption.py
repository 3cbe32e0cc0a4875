import pytest
import structlog
from structlog.testing import capture_logs

from otelwp_agent.at_rest.keys import LocalKey
from otelwp_agent.config.storage_encryption import StorageEncryption
from otelwp_agent.errors import StartError
from otelwp_agent.licensing.public_keys import encode_base64url
from otelwp_agent.model.receipt import Ledger
from otelwp_agent.processors.adaptive_sampling.recorder import FlightRecorder
from otelwp_agent.sealing.suites import SealingSuite
from tests.processors.adaptive_sampling.test_recorder import ORIGIN, ids, request, trace_id

KEY = LocalKey.new().text


def begin(folder, encryption, in_files=2**22):
    settings = StorageEncryption(**encryption) if encryption else None
    made = FlightRecorder(0, str(folder), in_files, structlog.get_logger(), lambda _: Ledger(), settings)
    made.start()
    return made


def record(recorder, numbers):
    for number in numbers:
        recorder.record(request(number, size=140_000), [trace_id(number)], ORIGIN, 1000.0 + number)
    recorder.flush()


def test_files_show_neither_traces_nor_tenants_and_are_read_after_a_restart(tmp_path):
    first = begin(tmp_path, {"key": KEY})
    record(first, range(1, 7))
    first.shutdown()
    content = [path.read_bytes() for path in tmp_path.iterdir()]
    assert len(content) > 1
    assert all(b"tenant" not in each and trace_id(1).hex().encode() not in each for each in content)
    second = begin(tmp_path, {"key": KEY})
    assert ids(second.rescue(since=0.0)) == {trace_id(number) for number in range(1, 7)}


def test_files_in_clear_from_before_are_still_read(tmp_path):
    first = begin(tmp_path, None)
    record(first, range(1, 3))
    first.shutdown()
    second = begin(tmp_path, {"key": KEY})
    record(second, range(3, 5))
    second.shutdown()
    assert ids(begin(tmp_path, {"key": KEY}).rescue(since=0.0)) == {trace_id(number) for number in range(1, 5)}


@pytest.mark.parametrize("encryption", [None, {"key": LocalKey.new().text}], ids=["no key", "wrong key"])
def test_files_of_another_key_are_reported_kept_and_removed_in_their_turn(tmp_path, encryption):
    first = begin(tmp_path, {"key": KEY})
    record(first, range(1, 7))
    first.shutdown()
    before = {path.name for path in tmp_path.iterdir()}
    with capture_logs() as log:
        second = begin(tmp_path, encryption, 2**20)
    (line,) = [line for line in log if "keys that are not configured" in line["event"]]
    assert line["files"] == len(before)
    assert second.rescue(since=0.0) == []
    assert {path.name for path in tmp_path.iterdir()} == before
    record(second, range(7, 21))
    second.shutdown()
    assert before.isdisjoint(path.name for path in tmp_path.iterdir())
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2**20


def test_for_a_recipient_only_the_run_that_wrote_the_files_reads_them(tmp_path):
    suite = SealingSuite.X25519
    public = encode_base64url(suite.public_bytes(suite.generate()))
    encryption = {"recipients": {"keys": [{"key_id": "owner", "public_key": public}]}}
    first = begin(tmp_path, encryption)
    record(first, range(1, 5))
    assert ids(first.rescue(trace_id(1))) == {trace_id(1)}
    first.shutdown()
    assert begin(tmp_path, encryption).rescue(since=0.0) == []


def test_a_changed_file_is_left_out_with_a_warning(tmp_path):
    first = begin(tmp_path, {"key": KEY})
    record(first, range(1, 7))
    first.shutdown()
    path = min(tmp_path.iterdir())
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with capture_logs() as log:
        second = begin(tmp_path, {"key": KEY})
    assert [line["file"] for line in log if line["event"] == "flight recorder: a block cannot be read"] == [str(path)]
    assert len(ids(second.rescue(since=0.0))) == 4


def test_a_key_that_cannot_be_loaded_refuses_the_start(tmp_path):
    with pytest.raises(StartError, match=r"flight_recorder\.encryption\.key_file: cannot read the key file"):
        begin(tmp_path, {"key_file": str(tmp_path / "none")})
