"""An agent as its users run it: a process of its own, driven by YAML, signals and what it logs."""

import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import closing, suppress
from pathlib import Path

from otelwp_agent.service.metrics_endpoint import FRESH

PATIENCE = 60.0
"""Seconds after which something that should have happened has not. Long, because machines that run tests are busy."""


class Agent:
    """`otelwp-agent run` on `config` (YAML text). As a context manager it starts, and is killed if it still runs.

    Logs are JSON unless `json_logs` is off; `metrics` picks a port for `/metrics`, the default port would be in use.
    """

    def __init__(self, config, folder, *, name="agent", metrics=False, wait=True):
        self.folder = Path(folder)
        self.name = name
        self.file = self.folder / f"{name}.yaml"
        self.metrics_port = free_port() if metrics else None
        self._extra = self.folder / f"{name}-kit.yaml"
        self._wait = wait
        self._lines = []
        self._news = threading.Condition()
        self._process = None
        self._scraped = float("-inf")
        self.write(config)
        address = f"127.0.0.1:{self.metrics_port}" if metrics else "none"
        self._extra.write_text(
            f"service: {{telemetry: {{logs: {{encoding: json}}, metrics: {{address: '{address}'}}}}}}\n"
        )

    def __enter__(self):
        command = Path(sys.executable).with_name("otelwp-agent")
        self._process = subprocess.Popen(
            [command, "run", "--config", self.file, "--config", self._extra],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if self._wait:
            try:
                self.wait_for("agent ready")
            except BaseException:
                self.close()
                raise
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        self._process.stderr.close()

    def write(self, config):
        """Replace the configuration file in one step, as editors do."""
        draft = self.file.with_suffix(".draft")
        draft.write_text(config)
        draft.replace(self.file)

    @property
    def pid(self):
        return self._process.pid

    @property
    def events(self):
        """Everything logged so far, each event a dict; a line that is no JSON stands as `{"line": …}`."""
        with self._news:
            return list(self._lines)

    @property
    def output(self):
        return "\n".join(str(event.get("line", event)) for event in self.events)

    def wait_for(self, event, *, count=1, **fields):
        """Wait until `event` was logged with `fields` `count` times; return the last of them."""
        end = time.monotonic() + PATIENCE
        with self._news:
            while True:
                found = [each for each in self._lines if each.get("event") == event and fields.items() <= each.items()]
                if len(found) >= count:
                    return found[-1]
                ended = self._process.poll() is not None and not self._reader.is_alive()
                if ended or time.monotonic() > end:
                    what = f"ended with {self._process.returncode}" if ended else "still runs"
                    message = f"{self.name} did not log {event!r} {fields} {count} times and {what}:\n"
                    raise AssertionError(message + "\n".join(map(str, self._lines)))
                self._news.wait(0.2)

    def port(self, transport="http", component="otlp"):
        """Return the port that a receiver listens on."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            for event in self.events:
                if (
                    event.get("event") == "receiver listening"
                    and event["transport"] == transport
                    and event["component"].rpartition("receivers/")[2] == component
                ):
                    return event["port"]
            self.wait_for("agent ready")
        message = f"{self.name}: {component} does not listen for {transport}:\n{self.output}"
        raise AssertionError(message)

    def signal(self, number):
        self._process.send_signal(number)

    def reload(self, config=None):
        if config is not None:
            self.write(config)
        self.signal(signal.SIGHUP)

    def wait(self):
        """Wait for the process to end; return its exit status."""
        status = self._process.wait(PATIENCE)
        self._reader.join()
        return status

    def stop(self):
        """Drain and stop; return the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def metric(self, name, **labels):
        """Return the sum of the cells of `name` whose labels include `labels`, from `/metrics`, as it is now.

        A second scrape within `FRESH` seconds would get what the first one got.
        """
        time.sleep(max(0.0, self._scraped + FRESH - time.monotonic()))
        _, text = get(self.metrics_port, "/metrics")
        self._scraped = time.monotonic()
        total = 0.0
        for line in text.splitlines():
            head, _, value = line.rpartition(" ")
            found, _, rest = head.partition("{")
            if found == name and all(f'{label}="{wanted}"' in rest for label, wanted in labels.items()):
                total += float(value)
        return total

    def wait_for_metric(self, name, value, **labels):
        end = time.monotonic() + PATIENCE
        while (found := self.metric(name, **labels)) != value:
            if time.monotonic() > end:
                message = f"{name} {labels} is {found}, not {value}"
                raise AssertionError(message)
            time.sleep(0.02)

    def _read(self):
        for line in self._process.stderr:
            try:
                event = json.loads(line)
            except ValueError:
                event = {"line": line.rstrip()}
            with self._news:
                self._lines.append(event if isinstance(event, dict) else {"line": line.rstrip()})
                self._news.notify_all()


def free_port():
    """Return a port that nobody listens on, below those that the kernel gives to whoever asks for any."""
    while True:
        port = random.randrange(10_000, 32_000)
        with closing(socket.socket()) as each, suppress(OSError):
            each.bind(("127.0.0.1", port))
            return port


def get(port, path):
    """Return the status and the text of an answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def post(port, path, body, content_type="application/x-protobuf"):
    """Return the status of an answer."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, {"content-type": content_type})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code
