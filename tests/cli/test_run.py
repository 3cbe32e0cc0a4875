import signal
import socket
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("otelwp-agent")

CONFIG = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}
exporters: {{debug: }}
service:
  telemetry: {{metrics: {{address: none}}}}
  pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}
"""


def start(config):
    return subprocess.Popen([PROGRAM, "run", "--config", f"yaml:{config}"], stderr=subprocess.PIPE, text=True)


def read_until(process, words):
    lines = []
    for line in process.stderr:
        lines.append(line)
        if words in line:
            return "".join(lines)
    raise AssertionError("".join(lines))


def test_it_says_where_it_listens_and_what_to_try():
    with start(CONFIG.format(port=0)) as process:
        text = read_until(process, "Try it")
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert "otelwp-agent is ready" in text
    assert "  http     127.0.0.1:" in text
    assert "agent stopped" in rest
    assert process.returncode == 0


def test_a_port_in_use_names_the_component_and_exits_1():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with start(CONFIG.format(port=port)) as process:
            err = process.stderr.read()
    assert process.returncode == 1
    assert f"error: receivers/otlp: cannot listen on 127.0.0.1:{port}: it is in use" in err


def test_a_bad_configuration_exits_1_with_every_problem():
    with start(CONFIG.format(port=0).replace("debug: }", "debug: {verbosity: loud}, nope: }")) as process:
        err = process.stderr.read()
    assert process.returncode == 1
    assert "verbosity" in err
    assert "nope" in err
