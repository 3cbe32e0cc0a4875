import os
import subprocess
import sys
from pathlib import Path

import pytest

from otelwp_agent import __version__
from otelwp_agent.cli import main
from otelwp_agent.errors import AgentError, ConfigError, Problem, StartError

PROGRAM = Path(sys.executable).with_name("otelwp-agent")


def run(*arguments):
    done = subprocess.run(
        [PROGRAM, *arguments], capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "100"}
    )
    return done.returncode, done.stdout, done.stderr


def test_help_lists_every_command_and_loads_none():
    status, out, _ = run("--help")
    assert status == 0
    for name in main._COMMANDS:
        assert f"  {name} " in out


EACH = """
import os
import otelwp_agent.components, otelwp_agent.config.load  # lower layers, which most commands need
from otelwp_agent.cli import main
for name in main._COMMANDS:
    print(f"== {name}", flush=True)
    if not (child := os.fork()):
        os._exit(main._run([name, "--help"]))
    assert os.waitpid(child, 0)[1] == 0, name
"""


def test_every_command_has_help_in_a_process_that_has_loaded_no_other():
    done = subprocess.run([sys.executable, "-c", EACH], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    first = {}
    for text in done.stdout.split("== ")[1:]:
        name, line, *_ = text.splitlines()
        first[name] = line
    assert [*first] == [*main._COMMANDS]
    for name, line in first.items():
        assert line.startswith(f"Usage: otelwp-agent {name}")


def test_version():
    assert run("--version")[1].strip() == f"otelwp-agent, version {__version__}"


@pytest.mark.parametrize("arguments", [["rnu"], ["run"], ["validate", "--confg", "x"], ["--nope"]])
def test_wrong_usage_exits_2(arguments, capsys):
    assert main._run(arguments) == 2
    assert "Usage:" in capsys.readouterr().err


def test_the_program_exits_with_the_status():
    assert run("--nope")[0] == 2


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            ConfigError([Problem("wrong", "a.b", "f.yaml", 1, 2), Problem("worse", "c", "f.yaml", 3, 4)]),
            "f.yaml:1:2: a.b: wrong\nf.yaml:3:4: c: worse\n2 problems; nothing was started\n",
        ),
        (StartError("receivers/otlp: cannot listen"), "error: receivers/otlp: cannot listen\n"),
        (AgentError("anything"), "error: anything\n"),
    ],
)
def test_our_errors_become_words_and_status_1(monkeypatch, capsys, error, words):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(main.cli, "main", fail)
    assert main._run([]) == 1
    assert capsys.readouterr().err == words
