"""What a user sees of a third-party component that is broken: one line with its id, and exit status 1."""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("otelwp-agent")

HEAD = """
from otelwp_agent.component import ComponentConfig, Factory, Kind, Processor
from otelwp_agent.errors import StartError


class Config(ComponentConfig):
    pattern: str = ""


class Acme(Processor):
    def __init__(self, config, context):
        super().__init__(context)

    def consume(self, batch):
        self.next.consume(batch)

"""
FACTORY = 'FACTORY = Factory(Kind.PROCESSOR, "acme_redact", Config, Acme)\n'

CONFIG = """yaml:
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:0"}}}}
processors: {acme_redact: }
exporters: {debug: }
service:
  telemetry: {metrics: {address: none}}
  pipelines: {traces: {receivers: [otlp], processors: [acme_redact], exporters: [debug]}}
"""


@pytest.fixture
def install(tmp_path):
    """Return a function that puts a package with this source on the path, and the environment to run with."""

    def install(source):
        (tmp_path / "acme.py").write_text(source)
        metadata = tmp_path / "acme_redact-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-redact\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text("[otelwp_agent.components]\nprocessor:acme_redact = acme:FACTORY\n")
        return {**os.environ, "PYTHONPATH": str(tmp_path), "NO_COLOR": "1"}

    return install


def agent(command, environment, config=CONFIG):
    arguments = [PROGRAM, command, *(() if command == "components" else ("--config", config))]
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=30, check=False)


CANNOT_LOAD = "processors/acme_redact: cannot be loaded from `acme:FACTORY` of the package acme-redact 1.0: "


@pytest.mark.parametrize("command", ["validate", "run", "components"])
@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
        (HEAD, "AttributeError: module 'acme' has no attribute 'FACTORY'"),
        (f"{HEAD}FACTORY = Acme\n", "that is <class 'acme.Acme'>, not a Factory"),
        (HEAD + FACTORY.replace("acme_redact", "acme_mask"), "its Factory declares `processor:acme_mask`"),
    ],
)
def test_a_package_that_cannot_be_loaded_is_one_line_and_status_1(install, command, source, line):
    done = agent(command, install(source))
    assert done.returncode == 1
    assert sum(CANNOT_LOAD + line in text for text in done.stderr.splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["validate", "run"])
def test_a_bug_in_the_configuration_class_is_one_line_and_status_1(install, command):
    check = """
    @field_validator("pattern")
    @classmethod
    def _known(cls, pattern):
        return {}[pattern]
"""
    source = HEAD.replace('    pattern: str = ""\n', f'    pattern: str = ""\n{check}')
    environment = install(f"from pydantic import field_validator\n{source}{FACTORY}")
    done = agent(command, environment, CONFIG.replace("acme_redact: ", "acme_redact: {pattern: x}"))
    assert done.returncode == 1
    line = "processors/acme_redact: its Config has a bug: KeyError: 'x'"
    assert sum(text.endswith(line) for text in done.stderr.splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["validate", "run"])
@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("def __init__(self, config, context)", "def __init__(self, context)", "cannot be built as build(config"),
        ("super().__init__(context)", 'raise ValueError("`pattern` is empty")', "cannot be built: `pattern` is empty"),
        ("super().__init__(context)", "pass", "its __init__ must call super().__init__(context)"),
        ("def consume", "def process", "Acme must define consume(self, batch)"),
    ],
)
def test_a_component_that_cannot_be_built_is_one_line_and_status_1(install, command, old, new, line):
    done = agent(command, install(HEAD.replace(old, new) + FACTORY))
    assert done.returncode == 1
    assert sum(f"processors/acme_redact: {line}" in text for text in done.stderr.splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["validate", "run"])
def test_a_bug_in_the_constructor_is_logged_once_with_its_traceback_under_the_id(install, command):
    done = agent(command, install(HEAD.replace("super().__init__(context)", "{}['missing']") + FACTORY))
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert "component failed: a bug in the component  component=processors/acme_redact" in done.stderr
    assert (
        "processors/acme_redact: cannot be built: KeyError: 'missing'"
        in done.stderr.splitlines()[-1 if command == "run" else -2]
    )


@pytest.mark.parametrize(
    ("raised", "line", "tracebacks"),
    [
        ('StartError("no dictionary")', "error: processors/acme_redact: cannot start: no dictionary", 0),
        ('OSError("no dictionary")', "error: processors/acme_redact: cannot start: no dictionary", 0),
        ('KeyError("no")', "error: processors/acme_redact: cannot start: KeyError: 'no' (a bug in the component", 1),
    ],
)
def test_an_exception_in_start_is_one_line_and_status_1(install, raised, line, tracebacks):
    start = f"    async def start(self):\n        raise {raised}\n\n"
    done = agent("run", install(HEAD + start + FACTORY))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(line)
    assert done.stderr.count("Traceback") == tracebacks


def test_exceptions_in_consume_and_shutdown_are_logged_under_the_id(install):
    methods = """    async def shutdown(self):
        raise LookupError("cannot stop")

"""
    broken = HEAD.replace("self.next.consume(batch)", "raise RuntimeError('cannot consume')") + methods + FACTORY
    arguments = [PROGRAM, "run", "--config", CONFIG]
    with subprocess.Popen(arguments, env=install(broken), stderr=subprocess.PIPE, text=True) as process:
        port = listening(process)
        for _ in range(3):
            body = b"\n\x06\x12\x04\x12\x02\x2a\x00"
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/v1/traces", body, {"content-type": "application/x-protobuf"}
            )
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(request, timeout=60)
            assert caught.value.code == 500
            caught.value.close()
        process.terminate()
        rest = process.stderr.read()
    assert process.returncode == 0
    lines = [line for line in rest.splitlines() if " ERROR " in line]
    assert [line.partition(" ERROR ")[2] for line in lines] == [
        "component failed: a bug in the component  component=processors/acme_redact pipeline=traces",
        "component did not stop  component=processors/acme_redact pipeline=traces",
    ]
    assert rest.count("RuntimeError: cannot consume") == 1


def listening(process):
    """Return the port that the agent says it listens on."""
    for line in process.stderr:
        if line.startswith("  http "):
            return int(line.split()[1].rpartition(":")[2])
    raise AssertionError("it does not listen")
