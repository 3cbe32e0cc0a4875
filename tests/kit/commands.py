"""Commands of the agent's user, run in the process of the test: a process for each would cost half a second."""

import contextlib
import io
from dataclasses import dataclass

from otelwp_agent.cli import main


@dataclass
class Done:
    """The result of a command, as `subprocess.run` returns it."""

    returncode: int
    stdout: str
    stderr: str


def run_command(*words):
    """Run `otelwp-agent` with these words; return the exit status and what was printed."""
    assert words[0] != "run", "an agent needs a process of its own: use `Agent`"
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main._run([str(word) for word in words])
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())
    return Done(status, *texts)
