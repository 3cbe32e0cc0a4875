"""Receive heartbeats and events of plugins, keep them in the control store, and forward them as metrics and logs.

* `POST /api/v1/plugins/heartbeat` (also `/v1/plugins/heartbeat`) creates or updates the installation, and answers with
  its id, the toggles that operators have set, and notices of newer versions.
* `POST /api/v1/plugins/event` (also `/v1/plugins/event`) stores an event. Personal data, card numbers and secrets are
  removed before.

The tenant is that of the API key, which needs the scope `heartbeat`. Invalid requests are answered with problem details
(RFC 9457), counted, and nothing of them is stored. docs/topics/fleet.md describes the bodies and the telemetry.

Example::

    extensions:
      control_store:
        url: sqlite:////var/lib/otelwp/control.db
      api_key/heartbeat:
        store: control_store
        scope: heartbeat
    receivers:
      heartbeat:
        endpoint: 127.0.0.1:13160
        store: control_store
        auth:
          authenticator: api_key/heartbeat
    service:
      extensions: [control_store, api_key/heartbeat]
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import Field, ValidationError

from otelwp_agent.admin import problems
from otelwp_agent.admin.problems import ProblemError
from otelwp_agent.codecs.heartbeat.bodies import EventBody, HeartbeatBody, PluginBody, Word
from otelwp_agent.component import (
    ComponentConfig,
    ComponentHealth,
    Context,
    Factory,
    Kind,
    NeedsPlan,
    Receiver,
    Stability,
    Tier,
)
from otelwp_agent.config import blocks
from otelwp_agent.config.references import ControlStoreRef
from otelwp_agent.config.types import ByteSize, Endpoint, PositiveDuration
from otelwp_agent.control.access import ControlAccess
from otelwp_agent.control.api_keys import Scope
from otelwp_agent.control.errors import StoreError
from otelwp_agent.errors import ForbiddenError, StartError
from otelwp_agent.model.signal import Signal
from otelwp_agent.receivers.heartbeat.answers import (
    RefusedBeatError,
    heartbeat_reply,
    problem_response,
    refused_event,
    render_error,
    replayed_beat,
    success,
)
from otelwp_agent.receivers.heartbeat.forwarding import LOST, PluginTelemetry
from otelwp_agent.telemetry.log_limit import LogLimit
from otelwp_agent.telemetry.metrics import Instrument, InstrumentKind
from otelwp_agent.telemetry.personal_data import redact_members, redact_sensitive
from otelwp_agent.telemetry.tasks import spawn
from otelwp_agent.transport.http_messages import Head, Request, Response, Route
from otelwp_agent.transport.http_server import HttpServer
from otelwp_agent.transport.refusals import REFUSED_REQUESTS, refusals
from otelwp_agent.transport.watched_file import WatchedFile

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator, Mapping

    from otelwp_agent.config.document import Path
    from otelwp_agent.control.fleet.beats import Beat, RecordedBeat
    from otelwp_agent.control.fleet.events import PluginEvent, RecordedEvent
    from otelwp_agent.control.fleet.signed_toggles import ToggleSigner
    from otelwp_agent.control.group_writer import GroupWriter

B = TypeVar("B", bound=PluginBody)

PREFIXES = ("/api/v1/plugins", "/v1/plugins")
CMS = ("woocommerce", "wordpress", "prestashop", "shopify", "magento", "drupal", "joomla", "non-cms")
MERCHANT = "merchant_id"
"""Member of the bodies, and attribute of a tenant whose merchant id is not its own id."""

ACCEPTED = Instrument(
    "otelwp_heartbeat_accepted",
    "Heartbeats and events that were accepted. A heartbeat that is sent once more is a repeated_heartbeat.",
    labels=("receiver", "kind"),
)
LATENCY = Instrument(
    "plugin_heartbeat_latency_seconds",
    "Seconds from a complete heartbeat to its answer.",
    InstrumentKind.HISTOGRAM,
    ("receiver",),
    (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
_KINDS = ("heartbeat", "repeated_heartbeat", "event")


_NEEDS = NeedsPlan(Tier.ENTERPRISE, "heartbeats and events")


class Config(ComponentConfig, blocks.HttpServer):
    """Settings of the heartbeat receiver."""

    endpoint: Endpoint = Endpoint("127.0.0.1:13160")
    """`host:port` or `unix:///path` to listen on; port 0 picks a free one."""
    max_request_body_size: ByteSize = Field(128 * 1024, ge=1024)
    """Maximum size of a body, before and after decompression."""
    store: ControlStoreRef = ControlStoreRef("control_store")
    """Id of the extension that opens the control store."""
    cms: Annotated[tuple[Word, ...], Field(min_length=1, max_length=64)] = CMS
    """Accepted values of `cms`. Heartbeats with another one are refused."""
    service_name: str = Field("plugin", min_length=1, max_length=128)
    """The attribute `service.name` of the telemetry."""
    interval: PositiveDuration = 3600.0
    """Time after which the next heartbeat is expected. The answers contain it, spread by 10 %."""
    signing_key_file: str = ""
    """File with the private key (Ed25519 in PEM, as `otelwp-agent license keygen` writes it) that signs the toggles in
    the replies. It is read again when it changes. Default: toggles are not signed."""
    toggles_lifetime: PositiveDuration = 3 * 3600.0
    """Time after which signed toggles expire, if no toggle expires earlier. It must be longer than `interval`."""
    max_clock_skew: PositiveDuration = 300.0
    """Largest difference between `sent_at` and the clock of this host."""

    def contradictions(self) -> Iterator[tuple[Path, str]]:
        """Refuse a receiver without authentication: the API key decides on the tenant."""
        if self.auth is None:
            yield (
                (),
                "a heartbeat belongs to the tenant of its API key: configure `auth.authenticator: api_key/heartbeat`",
            )
        if self.toggles_lifetime <= self.interval:
            yield (
                ("toggles_lifetime",),
                "it must be longer than `interval`: toggles would expire between two heartbeats",
            )


class HeartbeatReceiver(Receiver):
    """Listens for heartbeats and events."""

    def __init__(self, config: Config, context: Context, *, wall: Callable[[], float] = time.time) -> None:
        """Copy the settings; `wall` returns the time in seconds since 1970. Raise `StartError` for missing packages."""
        super().__init__(context)
        try:
            from otelwp_agent.control.fleet.beats import record_beats  # noqa: PLC0415 - the packages may be missing
            from otelwp_agent.control.fleet.events import record_events  # noqa: PLC0415 - the same
            from otelwp_agent.control.fleet.signed_toggles import ToggleSigner  # noqa: PLC0415 - the same
            from otelwp_agent.control.group_writer import GroupWriter  # noqa: PLC0415 - the same
        except ModuleNotFoundError as error:
            raise StartError(
                f"receivers/{context.id}: {error.name} is not installed: install it with `pip install "
                "'otelwp-agent[control]'`"
            ) from error
        self._access = context.extension(config.store, ControlAccess)  # type: ignore[type-abstract]
        self._cms = frozenset(config.cms)
        self._interval = config.interval
        self._skew = timedelta(seconds=config.max_clock_skew)
        self.wall = wall
        receiver = str(context.id)
        registry = context.registry
        self._refused = refusals(registry, receiver, "http")
        self._accepted = {kind: registry.counter(ACCEPTED, receiver=receiver, kind=kind) for kind in _KINDS}
        self._latency = registry.histogram(LATENCY, receiver=receiver)
        self._failures = LogLimit(context.clock)
        access, now = self._access, self._now
        self._beats: GroupWriter[Beat, RecordedBeat] = GroupWriter(
            lambda: access.store, lambda connection, beats: record_beats(connection, beats, now())
        )
        self._events: GroupWriter[PluginEvent, RecordedEvent] = GroupWriter(
            lambda: access.store, lambda connection, events: record_events(connection, events, now())
        )
        self._signer: ToggleSigner | None = None
        self._key_file: WatchedFile | None = None
        if config.signing_key_file:
            self._signer = ToggleSigner(config.toggles_lifetime)
            self._key_file = WatchedFile(
                config.signing_key_file, self._signer.use, name=f"receivers/{receiver}", log=context.log
            )
        self._telemetry = PluginTelemetry(context, config.service_name, self._seconds)
        routes: dict[str, Route] = {}
        for prefix in PREFIXES:
            routes[f"{prefix}/heartbeat"] = self._route(self._heartbeat, Signal.METRICS)
            routes[f"{prefix}/event"] = self._route(self._event, Signal.LOGS)
        self._server = HttpServer(
            config,
            routes,
            name=f"{context.kind.value}/{context.id}",
            log=context.log,
            on_refused=self._refused,
            in_flight=context.in_flight,
            gate=context.gate(config),
        )

    def _route(self, answer: Callable[[Request], Response | asyncio.Future[Response]], signal: Signal) -> Route:
        def admit() -> None:
            entry = self.next.get(signal)
            if entry is not None:
                entry.admit()

        def handle(request: Request) -> Response | asyncio.Future[Response]:
            try:
                return answer(request)
            except RefusedBeatError as error:
                return self._problem(error)

        return Route(handle, admit=admit, render_error=render_error)

    async def start(self) -> None:
        """Listen; raise `StartError` and leave nothing open."""
        if self._key_file is not None:
            self._key_file.start()
        try:
            await self._server.start()
        except BaseException:
            self._stop_watching()
            raise
        self.context.log.info(
            "receiver listening", transport="http", endpoint=self._server.address, port=self._server.port
        )

    async def shutdown(self) -> None:
        """Stop listening, and answer the requests that have begun to arrive."""
        self._stop_watching()
        await self._server.shutdown()
        await self._beats.drain()
        await self._events.drain()

    def refresh(self) -> None:
        """Read the certificates again, and the signing key if it has changed."""
        self._server.reload_tls()
        if self._key_file is not None:
            self._key_file.check()

    def endpoints(self) -> Mapping[str, str]:
        """Return the listening address."""
        return {"http": self._server.address} if self._server.listening else {}

    def health(self) -> ComponentHealth | None:
        """Report a signing key that could not be read again."""
        if self._key_file is None:
            return super().health()
        problem = self._key_file.problem
        return ComponentHealth(self.context.kind, str(self.context.id), not problem, problem)

    def _stop_watching(self) -> None:
        if self._key_file is not None:
            self._key_file.stop()

    def _seconds(self) -> float:
        return self.wall()  # tests replace it

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.wall(), UTC)

    # -- heartbeats

    def _heartbeat(self, request: Request) -> asyncio.Future[Response]:
        began = self.context.clock()
        body = self._read(request, HeartbeatBody)
        return spawn(self._record_beat(request.head, body, began), name="heartbeat")

    async def _record_beat(self, head: Head, body: HeartbeatBody, began: float) -> Response:
        from otelwp_agent.control.fleet.beats import Beat  # noqa: PLC0415 - the packages may be missing

        beat = Beat(
            tenant=head.tenant,
            cms=body.cms,
            environment=body.environment,
            site_id=redact_sensitive(body.site_id),
            plugin_version=body.plugin_version,
            sdk_language=body.sdk_language,
            cms_version=body.cms_version or body.wordpress_version,
            php_version=body.php_version,
            server_info=redact_members(body.server_info),
            errors_last_hour=body.errors_last_hour,
            sent_at=body.sent_at,
            acknowledged=body.acknowledged,
        )
        try:
            recorded = await self._beats.write(beat)
        except StoreError as error:
            return self._store_failed(error)
        if recorded.replayed:
            return self._problem(replayed_beat())
        if recorded.repeated:
            self._accepted["repeated_heartbeat"].add()
        else:
            self._accepted["heartbeat"].add()
            self._telemetry.forward_beat(self.next, head, beat, recorded.installation)
        response = success(heartbeat_reply(recorded, self._interval, self._signer, self.wall()))
        self._latency.observe(max(0.0, self.context.clock() - began))
        return response

    # -- events

    def _event(self, request: Request) -> asyncio.Future[Response]:
        body = self._read(request, EventBody)
        return spawn(self._record_event(request.head, body), name="event of a plugin")

    async def _record_event(self, head: Head, body: EventBody) -> Response:
        from otelwp_agent.control.fleet.events import PluginEvent  # noqa: PLC0415 - the packages may be missing

        event = PluginEvent(
            tenant=head.tenant,
            cms=body.cms,
            environment=body.environment,
            site_id=redact_sensitive(body.site_id),
            event_type=body.event_type,
            severity=body.level,
            event_data=redact_members(body.event_data),
            stack_trace=redact_sensitive(body.stack_trace or ""),
            event_id=body.event_id,
            installation=body.installation_id or "",
        )
        try:
            recorded = await self._events.write(event)
        except StoreError as error:
            return self._store_failed(error)
        if recorded.source is None:
            return self._problem(refused_event(recorded.refusal))
        self._accepted["event"].add()
        self._telemetry.forward_event(self.next, head, event, recorded.source, body.sent_at)
        return success({"status": "ok"})

    # -- both

    def _read(self, request: Request, model: type[B]) -> B:
        """Return the valid body of a request from the tenant that it names; raise `RefusedBeatError`."""
        client = request.head.client
        if client is None or Scope.HEARTBEAT.value not in client.scopes:
            raise RefusedBeatError("scope", 403, f"this credential does not have the scope `{Scope.HEARTBEAT.value}`")
        try:
            body = model.model_validate_json(request.body)
        except ValidationError as error:
            raise RefusedBeatError.of(problems.of_body(error)) from None
        tenant = self._access.directory.current.tenant(client.tenant)
        if tenant is None:
            raise RefusedBeatError("tenant", 403, "the tenant of this credential is not in the control store")
        try:
            self.require_plan(tenant.id, _NEEDS)
        except ForbiddenError as error:
            raise RefusedBeatError(error.reason, 403, str(error)) from None
        if body.merchant_id not in {tenant.id, tenant.attributes.get(MERCHANT)}:
            detail = (
                f"this API key is not of this merchant: send its id, or set the attribute `{MERCHANT}` of the tenant"
            )
            raise RefusedBeatError("merchant", 403, detail, f"#/{MERCHANT}")
        if body.cms not in self._cms:
            raise RefusedBeatError("unknown_cms", 422, f"unknown CMS: use {', '.join(sorted(self._cms))}", "#/cms")
        if body.sent_at is not None and abs(body.sent_at - self._now()) > self._skew:
            detail = (
                f"the clock of this site differs by more than {self._skew.total_seconds():g} s from the server's "
                f"({self._now().isoformat(timespec='seconds')}): correct it, or leave `sent_at` out"
            )
            raise RefusedBeatError("clock_skew", 422, detail, "#/sent_at")
        return body

    def _problem(self, error: RefusedBeatError) -> Response:
        self._refused(error.reason)
        return problem_response(error.problem)

    def _store_failed(self, error: StoreError) -> Response:
        self._refused("store")
        if times := self._failures.take():
            self.context.log.warning("heartbeats not stored", times=times, error=str(error))
        problem = problems.of_store(error)
        return problem_response(
            ProblemError(problem.status, "the store is not available: try again later", headers=problem.headers)
        )


FACTORY = Factory(
    Kind.RECEIVER,
    "heartbeat",
    Config,
    HeartbeatReceiver,
    signals=frozenset({Signal.METRICS, Signal.LOGS}),
    stability=Stability.BETA,
    tier=Tier.ENTERPRISE,
    instruments=(REFUSED_REQUESTS, ACCEPTED, LOST, LATENCY),
)
