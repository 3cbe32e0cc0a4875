"""One agent between a load and a backend, killed and started again, and the account of every span at the end."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.at_rest.keys import LocalKey
from otelwp_agent.cli.asking import ask
from otelwp_agent.dead_letters.file import read_bodies, read_letters
from tests.chaos.child import Child
from tests.chaos.load import ACKED, REFUSED, UNKNOWN
from tests.kit.agent import Agent, free_port, get
from tests.kit.storage_keys import storage_keys

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:{port}'}}}}}}
processors:
  batch: {{timeout: {timeout}, send_batch_size: 200}}
{processor_settings}
exporters:
{exporters}
service:
  shutdown_timeout: 10s
{service}
  pipelines:
    traces: {{receivers: [otlp], processors: [{processors}], exporters: [{names}]}}
"""
EXPORTER = """
  {name}:
    endpoint: http://127.0.0.1:{port}
    compression: none
    timeout: 1s
    retry_on_failure: {{initial_interval: 50ms, max_interval: 500ms}}
"""
JOURNAL = "  journal: {{directory: '{directory}', max_size: {max_size}, sync: {sync}{encryption}}}"
ENCRYPTION = ", encryption: {{key: '{key}', previous_key_files: ['{previous}']}}"
SECRETS = [LocalKey.new(), LocalKey.new()]
KEYS = storage_keys(*SECRETS)
"""Read every journal and every dead letter of the chaos tests."""
OUTCOMES = ("delivered", "sampled_out", "filtered", "dropped", "dead_letter")
LEDGER_LINE = re.compile(
    r'otelwp_pipeline_(?P<name>accepted|in_flight|settled)_items\{.*?(outcome="(?P<outcome>\w+)".*)?\} (?P<value>\S+)$'
)
SETTLE_SECONDS = 60.0


def config(
    directory=None,
    *,
    port,
    sinks,
    max_size="1GiB",
    sync="group",
    encryption="",
    timeout="50ms",
    processors="batch",
    processor_settings="",
):
    """Return the agent's YAML, without a journal if it is given no `directory`."""
    service = (
        JOURNAL.format(directory=directory, max_size=max_size, sync=sync, encryption=encryption) if directory else ""
    )
    exporters = {f"otlp_http/{number}": sink for number, sink in enumerate(sinks)}
    return CONFIG.format(
        port=port,
        exporters="".join(EXPORTER.format(name=name, port=sink) for name, sink in exporters.items()),
        names=", ".join(exporters),
        service=service,
        timeout=timeout,
        processors=processors,
        processor_settings=processor_settings,
    )


def encryptions(folder):
    """Return settings of the journal that encrypt it with one of two keys and read it with both."""
    for number, key in enumerate(SECRETS):
        (folder / f"key-{number}").write_text(key.text)
    return [ENCRYPTION.format(key=key.text, previous=folder / f"key-{1 - at}") for at, key in enumerate(SECRETS)]


@dataclass
class Verdict:
    """What became of the spans that the agent had acknowledged."""

    acked: int = 0
    unknown: int = 0
    """Sent, and never answered: the agent may have taken them, and nobody was told."""
    delivered: int = 0
    probes: int = 0
    """Health checks that were not delivered: a sampler may leave them out, and nobody else."""
    dead: int = 0
    """Not delivered, but in the dead-letter file."""
    rejected: int = 0
    """Not delivered, but named by a partial success of the backend: final, and nothing that could be kept."""
    refused: int = 0
    """Neither, but answered 400 at least once, by an agent that keeps no dead letters. With a journal it is missing."""
    missing: list[int] = field(default_factory=list)
    duplicates: int = 0
    """Delivered more than once, the second time without any doubt about the first."""
    doubtful: int = 0
    """The same, after an answer that the agent may not have got."""
    despite: int = 0
    """Delivered although their sender was told that they were not taken."""
    acked_at: dict[int, float] = field(default_factory=dict)
    """When each missing one was acknowledged, in seconds since the load began."""

    def __str__(self) -> str:
        text = (
            f"{self.acked} spans acknowledged: {self.delivered} delivered, "
            f"{self.probes} health checks left out, {self.dead} in dead letters, "
            f"{self.rejected} rejected by partial success, {self.refused} refused for good and kept nowhere, "
            f"{len(self.missing)} missing; {self.duplicates} duplicates beside {self.doubtful} after half an answer"
        )
        if self.missing:
            when = ", ".join(f"{span} (at {self.acked_at.get(span, -1):.3f} s)" for span in self.missing[:5])
            text += f"; missing are {when} …"
        return text


class Trial:
    """Load, agent and backends. Enter it to start load (at rest) and backends; `start` starts the agent.

    There is one backend, `sink`, or there are as many `sinks` as the agent shall send everything to.
    """

    def __init__(self, folder, *, seed, rate=100.0, faults=True, poison=0, probes=0, backends=1, **settings) -> None:
        self.folder = folder
        self.seed = seed
        self.port = free_port()
        ports = [free_port() for _ in range(backends)]
        self._settings = {"port": self.port, "sinks": ports, **settings}
        directory = settings.get("directory")
        self.journal = Path(directory) if directory else None
        self.sinks = [
            Child("tests.chaos.sink", port=port, seed=seed + 2 + number, faults=faults)
            for number, port in enumerate(ports)
        ]
        self.sink = self.sinks[0]
        self.load = Child("tests.chaos.load", port=self.port, seed=seed + 1, rate=rate, poison=poison, probes=probes)
        self.agent: Agent | None = None
        self.kills = 0
        self.worst_start = 0.0
        self.events: list[dict] = []
        """What agents that are no more have logged."""

    def __enter__(self):
        for child in (*self.sinks, self.load):
            child.__enter__()
        return self

    def __exit__(self, *error):
        if self.agent is not None:
            self.agent.close()
        for child in (self.load, *self.sinks):
            child.__exit__()

    # -- the agent's lives

    @property
    def config(self) -> str:
        return config(**self._settings)

    def start(self, *, wait=True, **settings) -> Agent:
        """Start the agent on what the last one left, from now on with these `settings` of `config`."""
        self._settings |= settings
        began = time.monotonic()
        self.agent = Agent(self.config, self.folder, metrics=True, wait=wait)
        self.agent.__enter__()
        if wait:
            self.worst_start = max(self.worst_start, time.monotonic() - began)
        return self.agent

    def reload(self, **settings) -> None:
        """Have the agent go over to other `settings` of `config`, and do not wait for that."""
        self._settings |= settings
        self.agent.reload(self.config)

    def kill(self) -> None:
        """End the agent without a word."""
        self.agent.signal(signal.SIGKILL)
        self.kills += 1
        self._bury()

    def stop(self) -> int:
        """Have the agent drain and stop; return its exit status."""
        status = self.agent.stop()
        self._bury()
        return status

    def _bury(self) -> None:
        self.agent.close()
        self.events += self.agent.events
        self.agent = None

    # -- its account

    def ledger(self) -> dict[str, float]:
        """Return the pipeline's ledger from the agent's metrics: one scrape, so one instant."""
        return ledger(self.agent)

    def in_flight(self) -> int:
        return int(self.ledger()["in_flight"])

    def audit(self) -> dict[str, Any]:
        """Ask the agent for its own proof, and hold it to that; return the line of its pipeline."""
        report = ask(str(self.journal / "control.sock"), "GET", "/audit")
        assert report["balances"], report
        lines = [line for line in report["lines"] if line["kind"] == "pipeline"]
        return lines[0] if lines else {"accepted": 0}  # nothing has come yet

    def audit_journal(self) -> dict[str, Any]:
        """The same from what an agent that is no more has left on disk, with the command."""
        words = "otelwp-agent", "audit", "--json", "--config", str(self.folder / "agent.yaml")
        done = subprocess.run(
            [Path(sys.executable).with_name(words[0]), *words[1:]], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return next(line for line in json.loads(done.stdout)["lines"] if line["kind"] == "pipeline")

    def settle(self, seconds: float = SETTLE_SECONDS) -> dict[str, float]:
        """Let the load rest and the backend work, and wait until the agent holds nothing; return the ledger."""
        self.load.ask("rest")
        for sink in self.sinks:
            sink.ask("set", faults=False, listens=True)
        end = time.monotonic() + seconds
        while (now := self.ledger())["in_flight"] and time.monotonic() < end:
            time.sleep(0.05)
        return now

    def segments(self) -> list[Path]:
        """Return the journal's files, the oldest first."""
        return sorted(self.journal.glob("*.journal"))

    def requests(self) -> Iterator[tuple[int, int, float]]:
        """Yield the requests that were acknowledged: first span, end, and when in seconds since the load began."""
        self.load.ask("write", folder=str(self.folder))
        times = array("d")
        times.frombytes((self.folder / "acked_at").read_bytes())
        for start, stop, when in zip(times[::3], times[1::3], times[2::3], strict=True):
            yield int(start), int(stop), when

    def verdict(self, sink=None) -> Verdict:
        """Compare what the load was promised with what a backend has."""
        self.load.ask("write", folder=str(self.folder))
        (sink or self.sink).ask("write", folder=str(self.folder))
        names = ("state", "probing", "acked", "unclear", "rejected", "refused")
        files = [(self.folder / name).read_bytes() for name in names]
        size = max(map(len, files))
        state, probing, acked, unclear, rejected, refused = (each.ljust(size, b"\0") for each in files)
        dead = dead_letters(self.journal / "dead-letters") if self.journal else {}
        verdict = Verdict(
            acked=state.count(ACKED),
            unknown=state.count(UNKNOWN),
            duplicates=sum(times - 1 for times, odd in zip(acked, unclear, strict=True) if times > 1 and not odd),
            doubtful=sum(times - 1 for times, odd in zip(acked, unclear, strict=True) if times > 1 and odd),
            despite=sum(1 for span in range(size) if state[span] == REFUSED and acked[span]),
        )
        for span in range(size):
            if state[span] != ACKED:
                continue
            if acked[span]:
                verdict.delivered += 1
            elif span in dead:
                verdict.dead += 1
            elif rejected[span]:
                verdict.rejected += 1
            elif probing[span]:
                verdict.probes += 1
            elif refused[span] and not self.journal:
                verdict.refused += 1
            else:
                verdict.missing.append(span)
        if verdict.missing:
            wanted = set(verdict.missing)
            for start, stop, when in self.requests():
                verdict.acked_at.update(dict.fromkeys(wanted.intersection(range(start, stop)), when))
        return verdict


def ledger(agent: Agent) -> dict[str, float]:
    """Return the pipeline's ledger from the agent's metrics: one scrape, so one instant."""
    sums = {"accepted": 0.0, "in_flight": 0.0, **dict.fromkeys(OUTCOMES, 0.0)}
    for line in get(agent.metrics_port, "/metrics")[1].splitlines():
        if found := LEDGER_LINE.match(line):
            sums[found["outcome"] or found["name"]] += float(found["value"])
    return sums


def dead_letters(path: Path) -> dict[int, str]:
    """Return the spans in a dead-letter file, and why each is there."""
    if not path.exists():
        return {}
    letters = {letter.id: letter for letter in read_letters(path).letters}
    return {
        int.from_bytes(span.span_id): letter.reason
        for letter, body in read_bodies(path, letters, KEYS)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    }
