"""The state file is restored after a restart, and ignored if it is damaged."""

import asyncio
import stat

import orjson
import pytest
from structlog.testing import capture_logs

from otelwp_agent.errors import StartError
from otelwp_agent.processors.adaptive_sampling import state_file
from otelwp_agent.testing import FakeClock
from tests.kit.sampled_traces import CHANCE, batch_of, trace_id, tree
from tests.kit.stages import build

NAME = "adaptive_sampling traces.json"


def sampler(folder, clock, **config):
    settings = {"target": {"spans_per_second": 10}, "state_directory": str(folder), **config}
    return build("adaptive_sampling", settings, clock=clock)[0]


async def work(stage, clock, seconds=60):
    """Offer ten times the budget, so that the controller learns how little it can keep."""
    for number in range(seconds * 10):
        clock.now += 0.1
        stage.consume(batch_of(tree(trace_id(number), 10), service="shop"))


def probability(stage):
    return stage.controller.probability(("shop",))


def test_a_restart_restores_the_measurements(tmp_path):
    async def play():
        clock = FakeClock(100.0)
        first = sampler(tmp_path / "made", clock, **CHANCE)
        await first.start()
        await work(first, clock)
        learned = probability(first)
        assert learned < 0.5
        await first.shutdown()
        clock.now = 5.0  # another process has another clock
        second = sampler(tmp_path / "made", clock, **CHANCE)
        assert probability(second) == 1
        await second.start()
        assert probability(second) == pytest.approx(learned, rel=0.5)
        await second.shutdown()

    asyncio.run(play())


def test_it_is_saved_now_and_then(tmp_path):
    async def play():
        clock = FakeClock(100.0)
        stage = sampler(tmp_path, clock)
        await stage.start()
        await work(stage, clock, 5)
        clock.now += state_file.SAVE_EVERY
        await work(stage, clock, 1)
        save = stage._state.save
        await save()  # waits for the one that has begun
        assert orjson.loads((tmp_path / NAME).read_bytes())["keys"][0][0] == ["shop"]
        assert [path.name for path in tmp_path.iterdir()] == [NAME]
        await stage.shutdown()

    asyncio.run(play())


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"version": 1}', b'{"version": 99}', b"\xff\xfe"])
def test_a_damaged_file_is_logged_and_replaced(tmp_path, data):
    async def play():
        clock = FakeClock(100.0)
        (tmp_path / NAME).write_bytes(data)
        stage = sampler(tmp_path, clock)
        with capture_logs() as logs:
            await stage.start()
        assert [each["event"] for each in logs] == ["sampling state is invalid, starting without it"]
        assert not stage.controller.key_states.states
        await stage.shutdown()
        assert orjson.loads((tmp_path / NAME).read_bytes())["version"] == 1

    asyncio.run(play())


def test_a_partially_invalid_state_is_not_restored(tmp_path):
    async def play():
        clock = FakeClock(100.0)
        first = sampler(tmp_path, clock)
        await first.start()
        await work(first, clock, 2)
        await first.shutdown()
        state = orjson.loads((tmp_path / NAME).read_bytes())
        del state["window"]
        (tmp_path / NAME).write_bytes(orjson.dumps(state))
        second = sampler(tmp_path, clock)
        await second.start()
        assert not second.controller.key_states.states
        await second.shutdown()

    asyncio.run(play())


def test_a_folder_that_cannot_be_used_stops_the_start(tmp_path):
    async def play():
        (tmp_path / "file").write_text("no folder")
        with pytest.raises(StartError, match="processors/adaptive_sampling: state_directory cannot be used"):
            await sampler(tmp_path / "file", FakeClock(100.0)).start()

    asyncio.run(play())


def test_a_failed_write_is_logged(tmp_path):
    async def play():
        folder = tmp_path / "gone"
        stage = sampler(folder, FakeClock(100.0))
        await stage.start()
        folder.rmdir()
        with capture_logs() as logs:
            await stage.shutdown()
        assert [each["event"] for each in logs] == ["sampling state not written"]

    asyncio.run(play())


def test_pipelines_have_files_of_their_own(tmp_path):
    stage = build(
        "adaptive_sampling", {"target": {"spans_per_second": 1}, "state_directory": str(tmp_path)}, name="a/b"
    )
    assert stage[0]._state.path.parent == tmp_path
    assert stage[0]._state.path.name == "adaptive_sampling%2Fa%2Fb traces.json"


def test_the_file_is_private_and_never_written_through_a_link_of_another_user(tmp_path):
    tmp_path.chmod(0o1777)
    folder = tmp_path / "made"

    async def play():
        clock = FakeClock()
        stage = sampler(folder, clock)
        await stage.start()
        await stage.shutdown()
        assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / NAME)] == [0o700, 0o600]
        (tmp_path / "link").symlink_to(folder)
        with pytest.raises(StartError, match=r"state_directory cannot be used: .*link is a symbolic link"):
            await sampler(tmp_path / "link", clock).start()

    asyncio.run(play())
