"""The OpenTelemetry Collector, built from its own modules (tools/peers/collector)."""

import subprocess
import urllib.request

from peers import golang

from tests.interop.process import Process, answers, have
from tests.kit.agent import free_port

READER = """
service:
  telemetry:
    metrics:
      level: detailed
      readers:
        - pull:
            exporter:
              prometheus: {{host: 127.0.0.1, port: {port}}}
"""
"""The reader's other settings stay the Collector's own defaults, which form the names of its metrics."""


class Collector(Process):
    """The Collector on `config` (YAML text); its own metrics are at `metrics_port`."""

    def __init__(self, config, folder, name="collector"):
        self.name = name
        super().__init__(folder)
        self.binary = have(golang.collector)
        self.metrics_port = free_port()
        (folder / f"{name}.yaml").write_text(config)
        (folder / f"{name}-metrics.yaml").write_text(READER.format(port=self.metrics_port))

    def command(self):
        files = (self.folder / f"{self.name}.yaml", self.folder / f"{self.name}-metrics.yaml")
        return [self.binary, *(f"--config=file:{file}" for file in files)]

    def ready(self):
        begun = "Everything is ready" in self.log.read_text(errors="replace")
        return begun and answers(self.metrics_port, "/metrics")

    def metrics(self):
        """Return its own metrics as Prometheus text."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as response:
            return response.read().decode()


def validate(file, env=None):
    """Return whether the Collector takes a configuration file, and what it says."""
    done = subprocess.run(
        [have(golang.collector), "validate", f"--config=file:{file}"],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode == 0, (done.stderr + done.stdout).strip()
