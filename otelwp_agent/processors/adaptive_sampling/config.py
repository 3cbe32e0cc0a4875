"""The settings of adaptive sampling, block by block, and what they ask of the decisions."""

from __future__ import annotations

import re
from difflib import get_close_matches
from fnmatch import translate
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator, model_validator

from otelwp_agent.component import NeedsTier, Tier
from otelwp_agent.config.blocks import Block
from otelwp_agent.config.types import ByteSize, PositiveDuration  # noqa: TC001 - pydantic reads them
from otelwp_agent.sampling.adaptive.policy import Always, Budget, Ceiling, FirstSights, SiteRule, Slow

KNOWN = frozenset(
    """
    client.address cloud.account.id cloud.availability_zone cloud.platform cloud.provider cloud.region
    code.function.name container.id container.name db.name db.namespace db.operation db.operation.name db.query.summary
    db.statement
    db.system db.system.name deployment.environment deployment.environment.name enduser.id error.type faas.name
    faas.trigger graphql.operation.name graphql.operation.type host.arch host.id host.name http.flavor http.host
    http.method http.request.method http.response.status_code http.route http.scheme http.status_code http.target
    http.url http.user_agent k8s.cluster.name k8s.deployment.name k8s.namespace.name k8s.node.name k8s.pod.name
    k8s.statefulset.name messaging.destination messaging.destination.name messaging.operation.name
    messaging.operation.type messaging.system network.protocol.name network.protocol.version os.type peer.service
    process.pid process.runtime.name process.runtime.version rpc.method rpc.service rpc.system server.address
    server.port service.instance.id service.name service.namespace service.version session.id telemetry.sdk.language
    telemetry.sdk.name telemetry.sdk.version tenant.id url.full url.path url.query url.scheme user.id
    user_agent.original wordpress.site.host wordpress.site.id wordpress.request.type
    """.split()  # noqa: SIM905 - easier to read and to add to
)
"""Attributes of the semantic conventions by which one would sample: what is nearly one of them is a slip."""
_SPAN_FIELDS = {
    "name": "the span's name is `span.name` here",
    "kind": "a span's kind is no attribute",
    "trace_id": "every trace has its own",
    "traceid": "every trace has its own",
    "trace.id": "every trace has its own",
    "span_id": "every span has its own",
    "duration": "slow traces are kept by `always_keep.slow`",
    "status": "errors are kept by `always_keep.errors`",
    "status_code": "errors are kept by `always_keep.errors`",
}
SPAN_NAME = "span.name"
"""Stands for the root span's name where an attribute can be named."""


def checked_attribute(name: str) -> str:
    """Return `name`; raise `ValueError` if no sender can mean it."""
    if not name or name != name.strip():
        message = f"{name!r} is no attribute's name"
        raise ValueError(message)
    if name.lower() in _SPAN_FIELDS:
        hint = _SPAN_FIELDS[name.lower()]
        message = f"{name!r} is unknown: name an attribute of the resource or the root span; {hint}"
        raise ValueError(message)
    if name not in KNOWN and name != SPAN_NAME:
        close = get_close_matches(name.lower(), KNOWN, 1, 0.9)
        if close:
            message = f"{name!r} is unknown: the attribute is {close[0]!r}"
            raise ValueError(message)
    return name


AttributeName = Annotated[str, AfterValidator(checked_attribute)]


def unique(names: list[str]) -> list[str]:
    """Return `names`; raise `ValueError` if one is there twice."""
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        message = f"{doubled[0]!r} is there twice"
        raise ValueError(message)
    return names


class Target(Block):
    """A budget: exactly one of these."""

    spans_per_second: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Spans to keep."""
    traces_per_second: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Traces to keep."""
    bytes_per_day: ByteSize | None = Field(None, ge=1)
    """Bytes of spans (uncompressed OTLP) to keep."""
    cost_per_month: float | None = Field(None, gt=0, allow_inf_nan=False)
    """What the backend may cost, in the currency of `price_per_gib`."""
    price_per_gib: float | None = Field(None, gt=0, allow_inf_nan=False)
    """What the backend charges for a GiB taken in."""

    @model_validator(mode="after")
    def _one(self) -> Target:
        names = ("spans_per_second", "traces_per_second", "bytes_per_day", "cost_per_month")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            said = f"{' and '.join(given)} contradict each other" if given else "there is no budget"
            message = f"{said}: give exactly one of {', '.join(names)}"
            raise ValueError(message)
        if (self.cost_per_month is None) != (self.price_per_gib is None):
            raise ValueError("cost_per_month and price_per_gib go together: give both")
        return self

    def budget(self) -> Budget:
        """Return it as decisions take it."""
        if self.spans_per_second is not None:
            return Budget.spans_per_second(self.spans_per_second)
        if self.traces_per_second is not None:
            return Budget.traces_per_second(self.traces_per_second)
        if self.bytes_per_day is not None:
            return Budget.bytes_per_day(self.bytes_per_day)
        assert self.cost_per_month is not None and self.price_per_gib is not None  # noqa: S101, PT018 - `_one`
        return Budget.cost_per_month(self.cost_per_month, self.price_per_gib)


class Kept(Block):
    """A reason to keep a trace whatever chance says, and how far it goes: what is above the ceiling, chance decides."""

    enabled: bool = True
    """Keep for this reason."""
    ceiling: float | None = Field(None, gt=0, le=1)
    """Most that may be kept for it, as a share of the budget."""
    traces_per_second: float | None = Field(None, gt=0, allow_inf_nan=False)
    """The same as a rate; with both, the lower one holds."""

    def limit(self, usual: Ceiling) -> Ceiling:
        """Return the ceiling, `usual` if none is set."""
        if self.ceiling is None and self.traces_per_second is None:
            return usual
        return Ceiling(share=self.ceiling, traces_per_second=self.traces_per_second)


class KeptSlow(Kept):
    """Slow traces: the root span (or, without one, what is there) lasted long."""

    above: PositiveDuration | None = None
    """Slower than this is slow."""
    percentile: float | None = Field(None, gt=0, lt=100)
    """Slower than this share (in percent) of the traces of the same key is slow; learned. 99 if neither is set."""
    min_samples: int = Field(100, ge=1)
    """Traces of a key after which its percentile is trusted."""

    @model_validator(mode="after")
    def _one(self) -> KeptSlow:
        if self.above is not None and self.percentile is not None:
            raise ValueError("above and percentile contradict each other: give one of them")
        return self


class KeptFirst(Kept):
    """The first traces of a key (`per`) that nothing was seen of before."""

    traces: int = Field(1, ge=1)
    """So many."""


class KeptReleases(Kept):
    """The first traces of a new release."""

    traces: int = Field(10, ge=1)
    """So many."""
    attribute: AttributeName = "service.version"
    """The resource attribute that names the release."""


class KeptDebug(Kept):
    """Traces that somebody asked for."""

    attributes: list[str] = Field(default_factory=lambda: ["sampling.priority", "jaeger-debug-id", "zipkin.debug"])
    """Attributes of the root span, any of which asks for its trace unless it is 0, false or empty."""


class AlwaysKeep(Block):
    """What is kept whatever chance says, up to ceilings. The ceilings of all together are at most the budget."""

    errors: Kept = Kept()
    """Traces in which a span has an error. At most 30 % of the budget if no ceiling is set."""
    slow: KeptSlow = KeptSlow()
    """Slow traces. At most 10 % of the budget if no ceiling is set."""
    first_seen: KeptFirst = KeptFirst()
    """First sights of a key. At most 10 % of the budget, together with releases, if no ceiling is set."""
    releases: KeptReleases = KeptReleases()
    """First sights of a release; under the ceiling of `first_seen`."""
    debug: KeptDebug = KeptDebug()
    """Traces with a debug flag. At most 5 % of the budget if no ceiling is set."""

    @model_validator(mode="after")
    def _within_the_budget(self) -> AlwaysKeep:
        if self.releases.ceiling is not None or self.releases.traces_per_second is not None:
            raise ValueError("releases are under the ceiling of first_seen: set it there")
        always = self.always()
        ceilings = (
            always.errors,
            always.debug,
            None if always.slow is None else always.slow.ceiling,
            None if always.first is None else always.first.ceiling,
        )
        shares = [each.share for each in ceilings if each is not None and each.share is not None]
        if sum(shares) > 1 + 1e-9:
            message = f"the ceilings add up to {sum(shares):.0%} of the budget: they must leave it whole, 100 % at most"
            raise ValueError(message)
        return self

    def always(self) -> Always:
        """Return it as decisions take it."""
        slow, first = self.slow, self.first_seen
        percentile = 99.0 if slow.above is None and slow.percentile is None else slow.percentile
        return Always(
            debug=self.debug.limit(Ceiling(share=0.05)) if self.debug.enabled else None,
            errors=self.errors.limit(Ceiling(share=0.3)) if self.errors.enabled else None,
            slow=Slow(slow.limit(Slow().ceiling), slow.above, percentile, slow.min_samples) if slow.enabled else None,
            first=FirstSights(
                first.limit(FirstSights().ceiling),
                first.traces if first.enabled else 0,
                self.releases.traces if self.releases.enabled else 0,
            )
            if first.enabled or self.releases.enabled
            else None,
        )


class DropRule(Block):
    """Traces nobody wants: all attributes named must match."""

    name: str = Field(min_length=1)
    """What metrics call it."""
    attributes: dict[str, list[str]] = Field(min_length=1)
    """Attributes of the resource or the root span (or `span.name`), each with its patterns: `*` stands for anything,
    one of them must match the whole value."""
    errors: bool = False
    """Drop them even if they have an error."""

    @field_validator("attributes")
    @classmethod
    def _known(cls, attributes: dict[str, list[str]]) -> dict[str, list[str]]:
        for name, patterns in attributes.items():
            checked_attribute(name)
            if not patterns:
                message = f"{name}: name at least one pattern, `*` for any value"
                raise ValueError(message)
        return attributes

    def compiled(self) -> dict[str, re.Pattern[str]]:
        """Return an expression for each attribute."""
        return {
            name: re.compile("|".join([translate(pattern) for pattern in patterns]))
            for name, patterns in self.attributes.items()
        }


class Drop(Block):
    """What is never kept, and costs nothing of the budget. What has an error is kept or not like any other trace."""

    health_checks: bool = False
    """Drop requests for paths like /healthz and /livez, and those of probes and load balancers."""
    bots: bool = False
    """Drop requests of crawlers, by their User-Agent."""
    rules: list[DropRule] = Field(default_factory=list)
    """More of them."""

    @model_validator(mode="after")
    def _told_apart(self) -> Drop:
        names = [rule.name for rule in self.rules] + ["health_check", "bot"]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            message = f"two rules are called {doubled[0]!r}"
            raise ValueError(message)
        return self


class TrafficRule(Block):
    """`traffic > 10000/h → 0.001`."""

    above: float = Field(0, ge=0, allow_inf_nan=False)
    """Traces an hour; sites with more are meant."""
    keep: float = Field(ge=0, le=1)
    """The share of their traces that is kept at most."""
    sites: list[str] | None = Field(None, min_length=1)
    """Which sites; all if left out."""

    def rule(self) -> SiteRule:
        """Return it as decisions take it."""
        return SiteRule(self.keep, self.above / 3600, None if self.sites is None else frozenset(self.sites))


class Sites(Block):
    """Rules for each site of a hosting or a multisite network."""

    attribute: AttributeName = "wordpress.site.host"
    """The attribute of the resource or the root span that names the site; without it, the host in WordPress's
    User-Agent."""
    rules: list[TrafficRule] = Field(default_factory=list)
    """Of those that fit a site's traffic, the lowest `keep` holds."""
    minimum: float = Field(0, ge=0, allow_inf_nan=False)
    """Traces an hour that each site keeps at least, if it has so many."""
    ceiling: float = Field(0.2, gt=0, le=1)
    """Most that all sites together may keep because of their minimum, as a share of the budget."""
    max_sites: int = Field(10_000, ge=1)
    """Sites that are told apart."""

    @model_validator(mode="after")
    def _rules_agree(self) -> Sites:
        for place, rule in enumerate(self.rules):
            for other in self.rules[place + 1 :]:
                same = rule.sites == other.sites or bool(set(rule.sites or ()) & set(other.sites or ()))
                low, high = (rule, other) if rule.above <= other.above else (other, rule)
                if same and rule.above == other.above and rule.keep != other.keep:
                    message = f"for sites above {rule.above:g} traces an hour, keep is {rule.keep:g} and {other.keep:g}"
                    raise ValueError(message)
                if same and low.above < high.above and low.keep <= high.keep:
                    message = (
                        f"above {high.above:g} traces an hour, keep: {high.keep:g} never holds, because above "
                        f"{low.above:g} it is {low.keep:g} already: more traffic must keep less"
                    )
                    raise ValueError(message)
        return self


SitesOrNone = Annotated[Sites | None, NeedsTier(Tier.ENTERPRISE)]
"""Rules by site need a higher tier than the rest."""


class Recorder(Block):
    """Dropped traces, compressed, for as long as there is room: a late error or `rescue` brings them back."""

    enabled: bool = False
    """Record. It takes about half a microsecond of CPU a dropped span."""
    max_bytes: ByteSize = Field(32 * 2**20, ge=2**16)
    """Memory for it; the oldest make room."""
    directory: str = ""
    """Keep what leaves memory in this folder, and find it again after a restart."""
    max_directory_bytes: ByteSize = Field(2**30, ge=2**16)
    """Room in that folder."""
