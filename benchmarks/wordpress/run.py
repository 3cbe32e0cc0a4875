"""Measure the cost of recording a page, with the project's first plugin and the current one, in each agent state.

Pages with and without a plugin are requested in turn, so that each page is compared with one that ran just before or
after it. PHP writes the cost of each request: the export call by the monotonic clock, the whole request by wall and CPU
time of the process. `--site` and `--url` name a running WordPress; without them, one is started.

Prints Markdown, and writes `results.json` and, if matplotlib is installed, a plot.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import report

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from tests.kit.agent import Agent  # noqa: E402 - the path is set above

PLUGIN = ROOT / "examples/wordpress/otelwp/otelwp.php"
PEER = HERE / "peer.py"

CONFIG = """
receivers:
  datagram: {{endpoint: 'unix://{folder}/datagram.sock', unix_mode: '0666'}}
  otlp:
    protocols:
      http:
        endpoint: 127.0.0.1:0
        additional_endpoints: ['unix://{folder}/otlp.sock']
        unix_mode: '0666'
        on_overload: accept_and_drop
  jaeger_json: {{endpoint: '127.0.0.1:0', on_overload: accept_and_drop}}
processors:
  wordpress: {{}}
  batch: {{timeout: 5s}}
exporters:
  file: {{path: '{folder}/traces.bin', format: proto}}
service:
  scheduling: {scheduling}
  pipelines:
    traces: {{receivers: [datagram, otlp, jaeger_json], processors: [wordpress, batch], exporters: [file]}}
"""

NORMAL = "healthy, scheduling: normal"
"""Agent without SCHED_BATCH, to which the kernel may give the page's CPU as soon as the page writes to it."""
STATES = ("healthy", NORMAL, "stopped", "hung", "slow")
TRANSPORTS = ("unix datagram", "unix stream", "TCP")
HELD_UP_PAGES = 12
"""Number of pages of the first plugin with an agent that delays it: each takes a second."""
WARM_UP_PAGES = 12
CLIENTS = 8
VARIANTS = ("installed", "every", "ours", "founding")
"""Variants for the throughput: the plugin with default settings, which record one page in ten; with every page
recorded; with every page and so many queries that it has 50 spans; and the project's first plugin."""
REST = "/?rest_route=/wp/v2/posts"


@dataclass(frozen=True)
class Site:
    """A running WordPress."""

    url: str
    folder: Path

    @property
    def bench(self) -> Path:
        """Path of the settings of the must-use plugin."""
        return self.folder / "wp-content/mu-plugins/bench.json"

    def get(self, path: str, variant: str) -> None:
        """Request a page and read all of it."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Host": parts.netloc, "X-Bench": variant})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                message = f"{path} with {variant}: {answer.status}"
                raise RuntimeError(message)


class Bench:
    """Measurements on one WordPress."""

    def __init__(self, site: Site, work: Path, page: str, queries: int) -> None:
        """Install the must-use plugin."""
        self.site = site
        self.work = work
        self.page = page
        self._queries = queries
        self._agent = 0
        self.results = work / "costs.jsonl"
        site.bench.parent.mkdir(exist_ok=True)
        shutil.copyfile(HERE / "bench.php", site.bench.with_suffix(".php"))

    def close(self) -> None:
        """Remove the must-use plugin."""
        for path in (self.site.bench, self.site.bench.with_suffix(".php")):
            path.unlink(missing_ok=True)

    def agent_cpu(self) -> float:
        """Return the CPU seconds that the real agent has used, 0 if it is simulated."""
        tasks = Path(f"/proc/{self._agent}/task").iterdir() if self._agent else ()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    @contextlib.contextmanager
    def agent(self, state: str) -> Iterator[dict[str, str]]:
        """Start an agent in a state; yield the endpoint of each transport, and that of the first plugin.

        The healthy agent is the real one. A hung or slow agent is simulated by peer.py; a stopped one leaves the files
        of its sockets.
        """
        with tempfile.TemporaryDirectory(dir=self.work) as name:
            folder = Path(name)
            folder.chmod(0o755)
            sockets = {
                "unix datagram": f"unixgram://{folder}/datagram.sock",
                "unix stream": f"unix://{folder}/otlp.sock",
            }
            if state in ("healthy", NORMAL):
                scheduling = "normal" if state == NORMAL else "batch"
                with Agent(CONFIG.format(folder=folder, scheduling=scheduling), folder) as agent:
                    founding = f"http://127.0.0.1:{agent.port('http', 'jaeger_json')}/api/traces"
                    self._agent = agent.pid
                    yield sockets | {"TCP": f"http://127.0.0.1:{agent.port()}", "founding": founding}
                    self._agent = 0
                return
            command = [sys.executable, PEER, "hung" if state == "stopped" else state, folder]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            port = int(process.stdout.readline())
            if state == "stopped":
                process.kill()
                process.wait()
            try:
                tcp = f"http://127.0.0.1:{port}"
                yield sockets | {"TCP": tcp, "founding": f"{tcp}/api/traces"}
            finally:
                process.kill()
                process.wait()

    def settle(self, endpoints: dict[str, str], transport: str, *, reset: bool = False) -> None:
        """Set the endpoints and the transport to which PHP sends."""
        settings = {
            "founding": endpoints["founding"],
            "founding_plugin": str(HERE / "founding.php"),
            "ours": endpoints.get(transport, ""),
            "our_plugin": str(PLUGIN),
            "queries": self._queries,
            "reset": reset,
            "results": str(self.results),
        }
        draft = self.site.bench.with_suffix(".draft")
        draft.write_text(json.dumps(settings), "utf-8")
        draft.replace(self.site.bench)
        self.results.write_text("", "utf-8")
        self.results.chmod(0o666)

    def paired(self, variant: str, pages: int) -> dict[str, Any]:
        """Request pages with and without a plugin in turn; return their costs."""
        for _ in range(WARM_UP_PAGES if pages > HELD_UP_PAGES else 2):
            self.site.get(self.page, "off")
            self.site.get(self.page, variant)
        self._costs(2 * (WARM_UP_PAGES if pages > HELD_UP_PAGES else 2))
        self.results.write_text("", "utf-8")
        for _ in range(pages):
            for each in random.sample(["off", variant], 2):
                self.site.get(self.page, each)
        costs = self._costs(2 * pages)
        off = [cost for cost in costs if cost["variant"] == "off"]
        on = [cost for cost in costs if cost["variant"] == variant]
        gains = [with_["wall_ms"] - without["wall_ms"] for with_, without in zip(on, off, strict=True)]
        cpu = [with_["cpu_ms"] - without["cpu_ms"] for with_, without in zip(on, off, strict=True)]
        found: dict[str, Any] = {
            "pages": pages,
            "export_ms": report.quantiles([cost["export_ms"] for cost in on]),
            "gain_ms": report.quantiles(gains),
            "cpu_gain_ms": report.quantiles(cpu),
            "page_ms": median(cost["wall_ms"] for cost in off),
            "memory_kb": median(cost["memory_kb"] for cost in on) - median(cost["memory_kb"] for cost in off),
        }
        if variant == "ours":
            found |= {
                "prepare_ms": report.quantiles([cost["prepare_ms"] for cost in on]),
                "spans": median(cost["spans"] for cost in on),
                "bytes": median(cost["bytes"] for cost in on),
                "taken": sum(cost["taken"] != "" for cost in on),
            }
        return found

    def throughput(self, variant: str, seconds: float) -> dict[str, float]:
        """Return the requests per second of CLIENTS clients, and the CPU time (ms) of PHP and the agent for each."""
        self.results.write_text("", "utf-8")
        end = time.monotonic() + seconds
        counts = [0] * CLIENTS

        def load(number: int) -> None:
            while time.monotonic() < end:
                self.site.get(REST, variant)
                counts[number] += 1

        began, agent = time.monotonic(), self.agent_cpu()
        threads = [threading.Thread(target=load, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        pages, took = sum(counts), time.monotonic() - began
        php = [cost["cpu_ms"] for cost in self._costs(pages)]
        return {
            "rate": pages / took,
            "php_ms": sum(php) / len(php),
            "agent_ms": 1000 * (self.agent_cpu() - agent) / pages,
        }

    def _costs(self, expected: int) -> list[dict[str, Any]]:
        """Wait until PHP has written `expected` costs, which it does after the answer, and return them."""
        end = time.monotonic() + 30
        while True:
            lines = self.results.read_text("utf-8").splitlines()
            if len(lines) >= expected:
                return [json.loads(line) for line in lines]
            if time.monotonic() > end:
                message = f"PHP wrote {len(lines)} costs of {expected}: is {self.site.bench.parent} its mu-plugins?"
                raise RuntimeError(message)
            time.sleep(0.01)


def measure(bench: Bench, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure everything."""
    pages, seconds, rounds = arguments.pages, arguments.seconds, arguments.rounds
    costs: list[dict[str, Any]] = []
    rates: list[dict[str, Any]] = []
    for state in arguments.states:
        with bench.agent(state) as endpoints:
            bench.settle(endpoints, "")
            held_up = state in ("hung", "slow")
            found = bench.paired("founding", HELD_UP_PAGES if held_up else pages)
            costs.append({"plugin": "founding", "transport": "WP_Http, TCP", "state": state} | found)
            print(report.row(costs[-1]), flush=True)
            for transport in TRANSPORTS:
                bench.settle(endpoints, transport)
                costs.append({"plugin": "ours", "transport": transport, "state": state} | bench.paired("ours", pages))
                print(report.row(costs[-1]), flush=True)
            if state == "stopped":
                for transport in TRANSPORTS:
                    bench.settle(endpoints, transport, reset=True)
                    named = {"plugin": "ours", "transport": transport, "state": "stopped, each page tries"}
                    costs.append(named | bench.paired("ours", pages))
                    print(report.row(costs[-1]), flush=True)
            if seconds:
                bench.settle(endpoints, report.FIRST_CHOICE)
                rates.append({"state": state} | compare(bench, seconds, rounds, 1 if held_up else rounds))
                print(report.rate_row(rates[-1]), flush=True)
    return {"costs": costs, "rates": rates}


def compare(bench: Bench, seconds: float, rounds: int, founding_rounds: int) -> dict[str, Any]:
    """Return pages per second without a plugin, and for each plugin the remaining share and the additional CPU time."""
    bench.throughput("off", seconds / 2)
    found: dict[str, list[dict[str, float]]] = {variant: [] for variant in ("off", *VARIANTS)}
    for number in range(rounds):
        for variant, rates in found.items():
            if variant != "founding" or number < founding_rounds:
                rates.append(bench.throughput(variant, seconds))
    # Compare within each round, because other load on the machine changes between rounds.
    return {"off": median(rate["rate"] for rate in found["off"])} | {
        variant: {
            "share": median(with_["rate"] / off["rate"] for with_, off in zip(rates, found["off"], strict=False)),
            "php_ms": median(with_["php_ms"] - off["php_ms"] for with_, off in zip(rates, found["off"], strict=False)),
            "agent_ms": median(rate["agent_ms"] for rate in rates),
        }
        for variant, rates in found.items()
        if variant != "off"
    }


def machine() -> dict[str, str]:
    """Return the machine and versions of the measurement."""
    php = subprocess.run(["php", "-r", "echo PHP_VERSION;"], capture_output=True, text=True, check=False).stdout
    return {
        "CPUs": str(len(os.sched_getaffinity(0))),
        "system": platform.system(),
        "PHP": php,
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


@contextlib.contextmanager
def site(arguments: argparse.Namespace) -> Iterator[Site]:
    """Yield the WordPress that the arguments name, or start one."""
    if arguments.site:
        yield Site(arguments.url, arguments.site)
        return
    from tests.interop.wordpress import WordPress  # noqa: PLC0415 - part of the tests, with their dependencies

    with WordPress() as wordpress:
        yield Site(wordpress.url, Path(wordpress.site))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--site", type=Path, help="folder of a running WordPress, with wp-content in it")
    parser.add_argument("--url", help="its address")
    parser.add_argument("--page", default="/hello-world/", help="page to request")
    parser.add_argument("--pages", type=int, default=200, help="pages of each variant in each state")
    parser.add_argument("--queries", type=int, default=40, help="slowest queries that become spans: 40 make 50 spans")
    parser.add_argument("--seconds", type=float, default=2.0, help="of load for each throughput; 0 for none")
    parser.add_argument("--rounds", type=int, default=10, help="times that each throughput is measured")
    parser.add_argument("--states", nargs="+", choices=STATES, default=STATES, help="of the agent")
    parser.add_argument("--json", type=Path, default=HERE / "results.json", help="where to write the figures")
    parser.add_argument("--plot", type=Path, help="where to write the plot (PNG); needs matplotlib")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # Stop everything that was started.
    with tempfile.TemporaryDirectory(prefix="otelwp-") as name:
        work = Path(name)
        work.chmod(0o755)
        with site(arguments) as running:
            bench = Bench(running, work, arguments.page, arguments.queries)
            try:
                results = {"machine": machine()} | measure(bench, arguments)
            finally:
                bench.close()
    arguments.json.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    print()
    print(report.markdown(results))
    if arguments.plot:
        report.plot(results, arguments.plot)


if __name__ == "__main__":
    main()
