import asyncio

import pytest
import structlog

from otelwp_agent.errors import StartError
from otelwp_agent.transport.watched_file import CHECK, MAX_FILE, WatchedFile


@pytest.fixture
async def watched(tmp_path):
    seen = []

    def use(content):
        if "bad" in content:
            raise ValueError("line 1 is bad")
        seen.append(content)
        return {"size": len(content)}

    path = tmp_path / "file"
    path.write_text("one")
    file = WatchedFile(str(path), use, name="extensions/test", log=structlog.get_logger())
    yield file, path, seen
    file.stop()


async def test_a_change_is_used_and_logged_once(watched):
    file, path, seen = watched
    file.start()
    path.write_text("three")
    with structlog.testing.capture_logs() as logs:
        async with asyncio.timeout(60):
            while len(seen) < 2:
                await asyncio.sleep(CHECK / 10)  # the file is checked by the clock of the event loop
        file.check()
    assert seen == ["one", "three"]
    assert [(entry["event"], entry["size"]) for entry in logs] == [("file reloaded", 5)]
    file.stop()
    file.stop()


async def test_a_replaced_file_of_the_same_size_is_a_change(watched):
    file, path, seen = watched
    file.read()
    other = path.with_name("other")
    other.write_text("two")
    other.replace(path)
    file.check()
    assert seen == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read: No such file or directory"), (b"bad", "line 1 is bad"), (b"x" * (MAX_FILE + 1), "larger")],
)
async def test_what_cannot_be_used_is_reported_once_and_kept_out(watched, content, words):
    file, path, seen = watched
    file.read()
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with structlog.testing.capture_logs() as logs:
        file.check()
        file.check()
    (entry,) = logs
    assert (entry["event"], entry["log_level"]) == ("file not reloaded; its old content stays in use", "warning")
    assert words in entry["error"]
    assert words in file.problem
    assert seen == ["one"]
    with pytest.raises(StartError, match="extensions/test: .*" + words):
        file.start()
    path.write_text("good")
    file.check()
    assert file.problem == ""
