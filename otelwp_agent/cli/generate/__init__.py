"""`otelwp-agent generate`: send sample telemetry, to see whether and how it arrives."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal as signals
import socket
import sys
from typing import TYPE_CHECKING

import click
import orjson
import uvloop

from otelwp_agent.cli.generate.generation import Generation, RequestSender, RequestTally
from otelwp_agent.cli.generate.sample import Sample
from otelwp_agent.codecs.otlp_json import encode
from otelwp_agent.config import blocks
from otelwp_agent.config.types import Endpoint, Secret
from otelwp_agent.errors import AgentError
from otelwp_agent.exporters.otlp_grpc import METHODS
from otelwp_agent.model.otlp_response import rejected
from otelwp_agent.model.signal import Signal
from otelwp_agent.telemetry import logging
from otelwp_agent.telemetry.tasks import spawn
from otelwp_agent.transport.http_client import HttpClient
from otelwp_agent.transport.status import from_http

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.transport.grpc_client import GrpcClient

PROTOCOLS = ("http/protobuf", "http/json", "grpc")
PORTS = {"http/protobuf": 4318, "http/json": 4318, "grpc": 4317}

PROGRESS_SECONDS = 1.0
CONNECT_SECONDS = 5.0


class HttpSender:
    """Sends OTLP over HTTP."""

    def __init__(self, client: HttpClient, path: str, *, json: bool) -> None:
        """Send through `client` to the signal's path below `path`, as JSON or protobuf."""
        self._client = client
        self._path = path
        self._json = json

    async def send(self, signal: Signal, body: bytes) -> tuple[int, str]:
        """Post one request; return the number of rejected items and the reason."""
        if not self._json:
            return rejected(await self._post(signal, body, "application/x-protobuf"))
        answer = await self._post(signal, encode(signal, body), "application/json")
        partial = orjson.loads(answer or b"{}").get("partialSuccess") or {}
        count = next((int(value) for key, value in partial.items() if key.startswith("rejected")), 0)
        return count, str(partial.get("errorMessage", ""))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _post(self, signal: Signal, body: bytes, content_type: str) -> bytes:
        path = f"{self._path}/v1/{signal.value}"
        response = await self._client.request("POST", path, body, [("Content-Type", content_type)])
        if not 200 <= response.status < 300:  # noqa: PLR2004 - success (RFC 9110, 15.3)
            raise from_http(response.status, response.headers, response.body)
        return response.body


class GrpcSender:
    """Sends OTLP over gRPC."""

    def __init__(self, client: GrpcClient) -> None:
        """Send through `client`."""
        self._client = client

    async def send(self, signal: Signal, body: bytes) -> tuple[int, str]:
        """Send one request; return the number of rejected items and the reason."""
        return rejected(await self._client.call(METHODS[signal], body))

    async def aclose(self) -> None:
        """Close the connection."""
        await self._client.aclose()


def _share(context: click.Context, parameter: click.Parameter, value: str) -> float:
    """Parse a share such as `5%` or `0.05`."""
    try:
        share = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        message = f"{value!r} is not a share: write `5%` or `0.05`"
        raise click.BadParameter(message, context, parameter)
    return share


def _headers(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, Secret]:
    """Parse any number of `name=value`."""
    headers = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise click.BadParameter("write `name=value`", context, parameter)
        headers[name.strip()] = Secret(value.strip())
    return headers


def _endpoint(context: click.Context, parameter: click.Parameter, value: str | None) -> Endpoint | None:
    try:
        return Endpoint(value) if value else None
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None


@click.command()
@click.option(
    "--signal",
    "signal_name",
    type=click.Choice([signal.value for signal in Signal]),
    default=Signal.TRACES.value,
    show_default=True,
    help="Signal to send.",
)
@click.option(
    "--count",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Number of traces, data points or log records.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Number of them per second; 0 for as fast as possible.",
)
@click.option(
    "--spans-per-trace",
    type=click.IntRange(1, 10_000),
    default=8,
    show_default=True,
    help="Spans per trace.",
)
@click.option(
    "--endpoint",
    callback=_endpoint,
    metavar="URL",
    help="Where to send: `host:port`, a URL or `unix:///path`. Default: this machine.",
)
@click.option(
    "--protocol",
    type=click.Choice(PROTOCOLS),
    default=PROTOCOLS[0],
    show_default=True,
    help="OTLP protocol.",
)
@click.option("--service", default="wordpress", show_default=True, help="Value of service.name.")
@click.option(
    "--header",
    "headers",
    multiple=True,
    callback=_headers,
    metavar="NAME=VALUE",
    help="Header to send with every request, such as an API key. Repeatable.",
)
@click.option("--insecure", is_flag=True, help="Connect without TLS to another host.")
@click.option(
    "--errors",
    default="5%",
    show_default=True,
    callback=_share,
    help="Share of traces and log records that report an error.",
)
@click.option("--seed", type=int, help="Seed for reproducible telemetry.")
def generate(  # noqa: PLR0913 - one argument for each option
    *,
    signal_name: str,
    count: int,
    rate: float,
    spans_per_trace: int,
    endpoint: Endpoint | None,
    protocol: str,
    service: str,
    headers: dict[str, Secret],
    insecure: bool,
    errors: float,
    seed: int | None,
) -> int:
    """Send sample telemetry: page requests of a WordPress site, with their operations and durations.

    The last line reports how many items were accepted. Exits 1 unless all were.
    """
    target = _target(endpoint, protocol, insecure=insecure)
    sample = Sample(service, spans_per_trace=spans_per_trace, errors=errors, seed=seed)
    signal = Signal(signal_name)

    async def main() -> RequestTally:
        await _check_reachable(target, protocol)
        sender = await _open(target, protocol, headers)
        try:
            generation = Generation(sample, signal, sender, count=count, rate=rate)
            await _attended(generation)
        finally:
            await sender.aclose()
        click.echo(generation.tally.line(generation.noun))
        return generation.tally

    tally = uvloop.run(main())
    problem = tally.problem or tally.waiting
    if problem:
        click.echo(f"error: {problem}{_hint(target, protocol)}", err=True)
    return 0 if tally.accepted == tally.sent and not tally.problem else 1


def _target(endpoint: Endpoint | None, protocol: str, *, insecure: bool) -> Endpoint:
    """Return the endpoint to send to, with a scheme: http for this machine or if `insecure`, otherwise https."""
    port = PORTS[protocol]
    if endpoint is None:
        return Endpoint(f"http://127.0.0.1:{port}")
    if endpoint.unix:
        return endpoint
    if endpoint.scheme == "https" and insecure:
        raise click.UsageError("--insecure and https:// contradict each other: leave one out")
    if endpoint.scheme and endpoint.port:
        return endpoint
    scheme = endpoint.scheme or ("http" if insecure or _is_local(endpoint.host) else "https")
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host or "127.0.0.1"
    default = 443 if scheme == "https" and endpoint.scheme else port
    return Endpoint(f"{scheme}://{host}:{endpoint.port or default}{endpoint.path}")


def _is_local(host: str) -> bool:
    return host in ("", "localhost", "::1") or host.startswith("127.")


async def _check_reachable(target: Endpoint, protocol: str) -> None:
    """Connect to `target` once; raise `AgentError` that says what to do if that fails."""
    connecting = (
        asyncio.open_unix_connection(target.unix) if target.unix else asyncio.open_connection(target.host, target.port)
    )
    try:
        _, writer = await asyncio.wait_for(connecting, CONNECT_SECONDS)
    except TimeoutError:
        message = f"{target.redacted} does not answer within {CONNECT_SECONDS:.0f} s: check --endpoint and firewalls"
        raise AgentError(message) from None
    except socket.gaierror as error:
        message = f"{target.redacted}: host {target.host!r} cannot be resolved ({error.strerror}): check --endpoint"
        raise AgentError(message) from None
    except (ConnectionRefusedError, FileNotFoundError) as error:
        message = (
            f"nothing listens on {target.redacted} ({_why(error)}): start the agent with `otelwp-agent run --config "
            f"examples/quickstart.yaml` (or `make run`), or give its {protocol} address with --endpoint"
        )
        raise AgentError(message) from None
    except OSError as error:
        message = f"cannot connect to {target.redacted} ({_why(error)}): check --endpoint"
        raise AgentError(message) from None
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _why(error: OSError) -> str:
    """Return the operating system's message, because asyncio's messages describe its internal calls."""
    return os.strerror(error.errno) if error.errno else str(error)


async def _open(target: Endpoint, protocol: str, headers: dict[str, Secret]) -> RequestSender:
    logging.configure("error")
    log = logging.get("generate")
    if protocol == "grpc":
        from otelwp_agent.transport.grpc_client import GrpcClient  # noqa: PLC0415 - load grpcio only for gRPC

        caller = GrpcClient(
            blocks.GrpcClient(endpoint=target, headers=headers, compression="none"), name="generate", log=log
        )
        await caller.start()
        return GrpcSender(caller)
    client = HttpClient(blocks.HttpClient(headers=headers), target, name="generate", log=log)
    await client.start()
    return HttpSender(client, target.path, json=protocol == "http/json")


async def _attended(generation: Generation) -> None:
    """Run `generation` with progress output until it is done or Ctrl-C is pressed."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signals.SIGINT, stop.set)
    progress = spawn(_show_progress(generation), name="progress")
    try:
        await generation.run(stop)
    finally:
        progress.cancel()
        loop.remove_signal_handler(signals.SIGINT)
        if sys.stderr.isatty():
            click.echo("\r\x1b[K", err=True, nl=False)


async def _show_progress(generation: Generation) -> None:
    """Print the progress each second: on a terminal in one line that is overwritten, otherwise in a new line."""
    terminal = sys.stderr.isatty()
    total = generation.sample.items(generation.signal, generation.count)
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        done = generation.tally.accepted + generation.tally.rejected
        waiting = f" ({generation.tally.waiting})" if generation.tally.waiting else ""
        line = f"{done / total:4.0%}  {generation.tally.line(generation.noun)}{waiting}"
        click.echo(f"\r\x1b[K{line}" if terminal else line, err=True, nl=not terminal)


def _hint(target: Endpoint, protocol: str) -> str:
    """Return a hint to append to an error if the port is the usual port of the other protocol, else ""."""
    if protocol == "grpc" and target.port == PORTS["http/json"]:
        return f" ({target.port} is the usual port of OTLP over HTTP: try --protocol http/protobuf)"
    if protocol != "grpc" and target.port == PORTS["grpc"]:
        return f" ({target.port} is the usual port of OTLP over gRPC: try --protocol grpc)"
    return ""
