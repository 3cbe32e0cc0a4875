"""An agent whose files are encrypted: killed, with its key replaced while it runs, and started with a wrong key."""

import json
import signal

import pytest

from tests.e2e.test_dead_letters import POISON, Backend, command, send, until
from tests.kit.agent import Agent

CONFIG = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:0'}}}}}}
processors:
  batch: {{timeout: {timeout}}}
exporters:
  otlp_http: {{endpoint: 'http://127.0.0.1:{sink}', retry_on_failure: {{initial_interval: 50ms}}}}
service:
  shutdown_timeout: 1s
  journal: {{directory: '{folder}/state', encryption: {{key_file: '{folder}/{key}', previous_key_files: {previous}}}}}
  pipelines:
    traces: {{receivers: [otlp], processors: [batch], exporters: [otlp_http]}}
"""


@pytest.fixture
def keys(tmp_path):
    """Write two keys; return the id of each."""
    return {name: command("journal", "new-key", tmp_path / name)[1].split()[1] for name in ("old", "new")}


@pytest.fixture
def backend():
    backend = Backend()
    yield backend
    backend.close()


def config(folder, backend, key, *previous, timeout="1h"):
    names = json.dumps([f"{folder}/{name}" for name in previous])
    return CONFIG.format(folder=folder, sink=backend.port, key=key, previous=names, timeout=timeout)


def on_disk(folder):
    return b"".join(path.read_bytes() for path in (folder / "state").iterdir() if path.is_file())


def test_a_kill_a_new_key_and_a_wrong_key_lose_nothing_and_nothing_is_in_clear(tmp_path, backend, keys):
    names = [f"marker {number}" for number in range(40)]
    with Agent(config(tmp_path, backend, "old"), tmp_path) as agent:
        send(agent.port(), names[:20])
        agent.reload(config(tmp_path, backend, "new", "old"))
        assert agent.wait_for("journal keys changed")["keys"] == [keys["new"], keys["old"]]
        send(agent.port(), names[20:])
        status, out, _ = command("journal", "verify", "--config", agent.file, "--json")
        assert (status, json.loads(out)["keys"]) == (0, {keys["old"]: 1, keys["new"]: 1})
        agent.signal(signal.SIGKILL)
    assert b"marker" not in on_disk(tmp_path)

    before = on_disk(tmp_path)
    with Agent(config(tmp_path, backend, "new"), tmp_path, wait=False) as agent:
        until(lambda: agent._process.poll() is not None)
        assert agent._process.returncode == 1
        assert f"is encrypted; it needs key {keys['old']}" in agent.output
    assert on_disk(tmp_path) == before

    with Agent(config(tmp_path, backend, "new", "old", timeout="10ms"), tmp_path) as agent:
        until(lambda: sorted(backend.spans) == sorted(names))
        until(lambda: command("journal", "verify", "--config", agent.file, "--json")[1].find(keys["old"]) < 0)
        assert agent.stop() == 0
    with Agent(config(tmp_path, backend, "new"), tmp_path) as agent:
        assert agent.stop() == 0


def test_dead_letters_are_encrypted_as_the_journal_and_can_be_sent_again(tmp_path, backend, keys):
    with Agent(config(tmp_path, backend, "old", timeout="10ms"), tmp_path) as agent:
        send(agent.port(), [POISON])
        agent.wait_for("items kept as dead letters")
        until(lambda: (tmp_path / "state" / "dead-letters").stat().st_size > 200)
        assert POISON.encode() not in on_disk(tmp_path)
        assert b"nobody can read" not in on_disk(tmp_path)
        path = tmp_path / "state" / "dead-letters"
        (letter,) = json.loads(command("dead-letter", "list", "--json", "--config", agent.file)[1])
        assert "a span that nobody can read" in letter["error"]
        (hidden,) = json.loads(command("dead-letter", "list", "--json", "--path", path)[1])
        assert (hidden["error"], hidden["id"], hidden["reason"]) == ("(encrypted)", letter["id"], "malformed")
        assert POISON in command("dead-letter", "show", letter["id"], "--path", path, "--key-file", tmp_path / "old")[1]
        status, _, error = command("dead-letter", "show", letter["id"], "--path", path, "--key-file", tmp_path / "new")
        assert (status, f"it needs key {keys['old']}, and the configured keys are {keys['new']}" in error) == (1, True)
        backend.cured = True
        status, out, _ = command("dead-letter", "resend", "--all", "--config", agent.file)
        assert (status, out) == (0, "1 letter delivered\n")
    assert backend.spans == [POISON]
