"""A complete agent with every receiver to attack, and the result of an attack on it."""

from __future__ import annotations

import time
from http import HTTPStatus
from pathlib import Path

from tests.hostile import wire
from tests.hostile.bodies import SPAN
from tests.hostile.prober import Probe, Prober, Sample, Wait
from tests.kit.agent import Agent, free_port

LIMIT_MIB = 256
"""`limit_mib` of the agent's memory_limiter."""
ABOVE_MIB = 64
"""Number of MiB by which the peak memory may exceed that limit."""
SLOWEST = {"live": 0.25, "otlp": 0.5}
"""Maximum duration of a request in seconds, by its kind."""
SETTLE = 0.3
"""Seconds after an attack that are still measured: its data may not have been read yet."""
RECOVERY = 5.0
"""Seconds after an attack within which spans must be accepted again."""

_CONFIG = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:0"}}, http: {{endpoint: "127.0.0.1:0"}}}}}}
  otlp/full:
    validation: full
    protocols: {{grpc: {{endpoint: "127.0.0.1:0", max_recv_msg_size_mib: 20}}, http: {{endpoint: "127.0.0.1:0"}}}}
  otlp/tls:
    protocols:
      grpc: {{endpoint: "127.0.0.1:0", max_connections: 10, tls: {tls}}}
      http: {{endpoint: "127.0.0.1:0", max_connections: 10, tls: {tls}}}
  zipkin: {{endpoint: "127.0.0.1:0", read_header_timeout: 1s, idle_timeout: 1s}}
  jaeger: {{protocols: {{grpc: {{endpoint: "127.0.0.1:0"}}, thrift_http: {{endpoint: "127.0.0.1:0"}}}}}}
  jaeger_json: {{endpoint: "127.0.0.1:0"}}
  datagram: {{endpoint: "127.0.0.1:0"}}
processors:
  memory_limiter: {{check_interval: 1s, limit_mib: {limit}}}
exporters:
  debug: {{verbosity: basic}}
extensions:
  health_check: {{endpoint: "127.0.0.1:{health}"}}
service:
  extensions: [health_check]
  pipelines:
    traces:
      receivers: [otlp, otlp/full, otlp/tls, zipkin, jaeger, jaeger_json, datagram]
      processors: [memory_limiter]
      exporters: [debug]
"""


class Target:
    """An agent with every receiver, `health_check` on the port `health` and its metrics on the port `metrics`."""

    def __init__(self, folder: Path, pair, name: str = "target") -> None:
        self.health = free_port()
        tls = f"{{cert_file: {pair.cert_file}, key_file: {pair.key_file}}}"
        self.agent = Agent(
            _CONFIG.format(tls=tls, health=self.health, limit=LIMIT_MIB), folder, name=name, metrics=True
        )

    def __enter__(self):
        self.agent.__enter__()
        self.metrics = self.agent.metrics_port
        return self

    def __exit__(self, *error):
        self.agent.__exit__(*error)

    def port(self, component: str = "otlp", transport: str = "http") -> int:
        return self.agent.port(transport, component)

    def status(self, field: str) -> int:
        """Return a field of /proc/PID/status, which is in kB, in MiB."""
        text = Path(f"/proc/{self.agent.pid}/status").read_text("ascii")
        return int(text.partition(f"{field}:")[2].split()[0]) // 1024

    @property
    def cpu(self) -> float:
        """CPU time that the agent has used, in seconds."""
        fields = Path(f"/proc/{self.agent.pid}/stat").read_text("ascii").rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def recovers(self) -> bool:
        """Return whether spans are accepted again within `RECOVERY`."""
        end = time.monotonic() + RECOVERY
        while time.monotonic() < end:
            try:
                if wire.status(wire.post(self.port(), "/v1/traces", SPAN)) == HTTPStatus.OK:
                    return True
            except OSError:
                pass
            time.sleep(0.05)
        return False


class Verdict:
    """The result of an attack: `slowest` and `excess` are seconds by kind of request, `peak` is in MiB.

    `excess` is the longest duration minus the delays of the machine during it, which the agent does not cause: see
    `noise`.
    """

    def __init__(self, samples: list[Sample], waits: list[Wait], peak: int, cpu: float, *, recovered: bool) -> None:
        self.peak, self.cpu, self.recovered = peak, cpu, recovered
        control = [each for each in samples if each.probe.startswith("control")]
        self.slowest, self.excess, self.unanswered = {}, {}, 0
        for kind in SLOWEST:
            found = [each for each in samples if each.probe.startswith(kind)]
            self.slowest[kind] = max(each.took for each in found)
            self.excess[kind] = max(each.took - noise(each, control, waits) for each in found)
            self.unanswered += sum(not each.status for each in found)

    @property
    def problems(self) -> list[str]:
        """Violations of the requirements, as text; none if the agent withstood the attack."""
        found = [
            f"{kind}: {self.excess[kind] * 1000:.0f} ms beyond the machine's own delays, {limit * 1000:.0f} are allowed"
            for kind, limit in SLOWEST.items()
            if self.excess[kind] > limit
        ]
        if self.peak > LIMIT_MIB + ABOVE_MIB:
            found.append(f"peak memory: {self.peak} MiB, {LIMIT_MIB + ABOVE_MIB} are allowed")
        if self.unanswered:
            found.append(f"{self.unanswered} requests were not answered")
        if not self.recovered:
            found.append(f"no spans were accepted within {RECOVERY:g} s after it")
        return found

    def __str__(self) -> str:
        times = ", ".join(f"{kind} {took * 1000:.0f} ms" for kind, took in self.slowest.items())
        return f"{times}, peak {self.peak} MiB, CPU {self.cpu:.1f} s"


def noise(sample: Sample, control: list[Sample], waits: list[Wait]) -> float:
    """Return the delay of the machine during `sample` in seconds: the longer of two delays.

    One is the longest duration of a request to the control agent. The other is the longest time for which a thread of
    the agent was ready to run and had no processor. On a machine without other load both are close to 0.
    """
    end = sample.began + sample.took
    asked = [each.took for each in control if each.began <= end and each.began + each.took >= sample.began]
    before = next((each.waited for each in reversed(waits) if each.at <= sample.began), {})
    after = next((each.waited for each in waits if each.at >= end), {})
    waited = [after[thread] - seconds for thread, seconds in before.items() if thread in after]
    return max([*asked, *waited], default=0.0)


def probes(target: Target, prefix: str = "") -> list[Probe]:
    """Return the requests sent during an attack: liveness and a span, on an open connection and on new ones."""
    live = "GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    body = SPAN.decode("latin-1")
    head = wire.head("/v1/traces", len(SPAN)).decode()
    return [
        Probe(f"{prefix}{kind}{'+' if fresh else ''}", port, request, fresh)
        for kind, port, request in (("live", target.health, live), ("otlp", target.port(), head + body))
        for fresh in (False, True)
    ]


def bear(target: Target, control: Target, attack) -> Verdict:
    """Attack `target` once, and measure."""
    getattr(attack, "prepare", lambda: None)()
    with Prober([*probes(target), *probes(control, "control ")], target.agent.pid) as prober:
        before = target.cpu
        attack(target)
        time.sleep(SETTLE)
        samples, waits = prober.stop()
    used = target.cpu - before
    recovered = target.recovers()
    return Verdict(samples, waits, target.status("VmHWM"), used, recovered=recovered)
