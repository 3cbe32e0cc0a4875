"""The settings of adaptive sampling, block by block, and their conversion to the controller's policy."""

from __future__ import annotations

import re
from difflib import get_close_matches
from fnmatch import translate
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator, model_validator

from otelwp_agent.component import NeedsTier, Tier
from otelwp_agent.config.blocks import Block
from otelwp_agent.config.storage_encryption import StorageEncryption  # noqa: TC001 - a field's annotation
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
"""Attributes of the semantic conventions that are useful for sampling. A name similar to one of them is probably a
typing error."""
_SPAN_FIELDS = {
    "name": "the span's name is `span.name` here",
    "kind": "a span's kind is not an attribute",
    "trace_id": "it is different for every trace",
    "traceid": "it is different for every trace",
    "trace.id": "it is different for every trace",
    "span_id": "it is different for every span",
    "duration": "slow traces are kept by `always_keep.slow`",
    "status": "errors are kept by `always_keep.errors`",
    "status_code": "errors are kept by `always_keep.errors`",
}
SPAN_NAME = "span.name"
"""Stands for the root span's name where an attribute name is expected."""


def checked_attribute(name: str) -> str:
    """Return `name`; raise `ValueError` if it cannot be the name of an attribute."""
    if not name or name != name.strip():
        message = f"{name!r} is not a valid attribute name: it is empty or has spaces around it"
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


def check_budgets(whole: Budget, each: Budget) -> None:
    """Raise `ValueError` if the budget of each key cannot be a part of the whole budget."""
    if whole.unit is not each.unit:
        message = f"target is in {whole.unit} and target_per_key in {each.unit}: both must have the same unit"
        raise ValueError(message)
    if each.rate > whole.rate:
        raise ValueError("target_per_key is above target: no key can have more than the whole budget")


def unique(names: list[str]) -> list[str]:
    """Return `names`; raise `ValueError` if one occurs twice."""
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        message = f"{doubled[0]!r} occurs twice"
        raise ValueError(message)
    return names


class Target(Block):
    """A budget: set exactly one of these."""

    spans_per_second: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Spans to keep."""
    traces_per_second: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Traces to keep."""
    bytes_per_day: ByteSize | None = Field(None, ge=1)
    """Bytes of spans (uncompressed OTLP) to keep."""
    cost_per_month: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Maximum cost of the backend, in the currency of `price_per_gib`."""
    price_per_gib: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Price of the backend for one GiB of ingested data."""

    @model_validator(mode="after")
    def _one(self) -> Target:
        names = ("spans_per_second", "traces_per_second", "bytes_per_day", "cost_per_month")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            problem = f"{' and '.join(given)} exclude each other" if given else "there is no budget"
            message = f"{problem}: set exactly one of {', '.join(names)}"
            raise ValueError(message)
        if (self.cost_per_month is None) != (self.price_per_gib is None):
            raise ValueError("cost_per_month and price_per_gib belong together: set both")
        return self

    def budget(self) -> Budget:
        """Return the budget for the policy."""
        if self.spans_per_second is not None:
            return Budget.spans_per_second(self.spans_per_second)
        if self.traces_per_second is not None:
            return Budget.traces_per_second(self.traces_per_second)
        if self.bytes_per_day is not None:
            return Budget.bytes_per_day(self.bytes_per_day)
        assert self.cost_per_month is not None and self.price_per_gib is not None  # noqa: S101, PT018 - `_one`
        return Budget.cost_per_month(self.cost_per_month, self.price_per_gib)


class Kept(Block):
    """A rule that always keeps some traces, up to a ceiling. Traces above the ceiling are decided by probability."""

    enabled: bool = True
    """Keep traces by this rule."""
    ceiling: float | None = Field(None, gt=0, le=1)
    """Maximum that this rule may keep, as a share of the budget."""
    traces_per_second: float | None = Field(None, gt=0, allow_inf_nan=False)
    """The maximum as a rate; with both, the lower one applies."""

    def limit(self, usual: Ceiling) -> Ceiling:
        """Return the ceiling, or `usual` if none is set."""
        if self.ceiling is None and self.traces_per_second is None:
            return usual
        return Ceiling(share=self.ceiling, traces_per_second=self.traces_per_second)


class KeptSlow(Kept):
    """Slow traces, by the duration of the root span, or of all known spans without one."""

    above: PositiveDuration | None = None
    """Traces longer than this are slow."""
    percentile: float | None = Field(None, gt=0, lt=100)
    """Traces longer than this percentile of the traces of the same key are slow; learned. 99 if neither is set."""
    min_samples: int = Field(100, ge=1)
    """Number of traces of a key after which its percentile is used."""

    @model_validator(mode="after")
    def _one(self) -> KeptSlow:
        if self.above is not None and self.percentile is not None:
            raise ValueError("above and percentile exclude each other: set one of them")
        return self


class KeptFirst(Kept):
    """The first traces of a new key (`per`)."""

    traces: int = Field(1, ge=1)
    """Number of traces."""


class KeptReleases(Kept):
    """The first traces of a new release."""

    traces: int = Field(10, ge=1)
    """Number of traces."""
    attribute: AttributeName = "service.version"
    """The resource attribute that names the release."""


class KeptDebug(Kept):
    """Traces that were requested with a debug flag."""

    attributes: list[str] = Field(default_factory=lambda: ["sampling.priority", "jaeger-debug-id", "zipkin.debug"])
    """Attributes of the root span. Any of them requests the trace, unless it is 0, false or empty."""


class AlwaysKeep(Block):
    """Traces that are kept independent of probability, up to ceilings.

    The sum of all ceilings is at most the budget.
    """

    errors: Kept = Kept()
    """Traces in which a span has an error. At most 30 % of the budget if no ceiling is set."""
    slow: KeptSlow = KeptSlow()
    """Slow traces. At most 10 % of the budget if no ceiling is set."""
    first_seen: KeptFirst = KeptFirst()
    """First traces of a key. At most 10 % of the budget, together with releases, if no ceiling is set."""
    releases: KeptReleases = KeptReleases()
    """First traces of a release, under the ceiling of `first_seen`."""
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
            message = f"the ceilings add up to {sum(shares):.0%} of the budget: the sum must be at most 100 %"
            raise ValueError(message)
        return self

    def always(self) -> Always:
        """Return the rules for the policy."""
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
    """A rule for traces to drop: all named attributes must match."""

    name: str = Field(min_length=1)
    """Name of the rule in metrics."""
    attributes: dict[str, list[str]] = Field(min_length=1)
    """Attributes of the resource or the root span (or `span.name`), each with its patterns. `*` matches anything; one
    pattern must match the whole value."""
    errors: bool = False
    """Also drop traces with an error."""

    @field_validator("attributes")
    @classmethod
    def _known(cls, attributes: dict[str, list[str]]) -> dict[str, list[str]]:
        for name, patterns in attributes.items():
            checked_attribute(name)
            if not patterns:
                message = f"{name}: set at least one pattern, `*` for any value"
                raise ValueError(message)
        return attributes

    def compiled(self) -> dict[str, re.Pattern[str]]:
        """Return a regular expression for each attribute."""
        return {
            name: re.compile("|".join([translate(pattern) for pattern in patterns]))
            for name, patterns in self.attributes.items()
        }


class Drop(Block):
    """Traces that are never kept and cost nothing of the budget.

    Traces with an error are sampled like any other trace.
    """

    health_checks: bool = False
    """Drop requests for paths like /healthz and /livez, and those of probes and load balancers."""
    bots: bool = False
    """Drop requests of crawlers, by their User-Agent."""
    rules: list[DropRule] = Field(default_factory=list)
    """Further rules."""

    @model_validator(mode="after")
    def _unique_names(self) -> Drop:
        names = [rule.name for rule in self.rules] + ["health_check", "bot"]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            message = f"two rules have the name {doubled[0]!r}: rename one of them"
            raise ValueError(message)
        return self


class TrafficRule(Block):
    """One rule by traffic, as in `traffic > 10000/h → 0.001`."""

    above: float = Field(0, ge=0, allow_inf_nan=False)
    """Traces an hour. The rule applies to sites with more."""
    keep: float = Field(ge=0, le=1)
    """Maximum share of their traces that is kept."""
    sites: list[str] | None = Field(None, min_length=1)
    """The sites it applies to; all if not set."""

    def rule(self) -> SiteRule:
        """Return the rule for the policy."""
        return SiteRule(self.keep, self.above / 3600, None if self.sites is None else frozenset(self.sites))


class SiteRules(Block):
    """Rules for each site of a hosting platform or a multisite network."""

    attribute: AttributeName = "wordpress.site.host"
    """The attribute of the resource or the root span that names the site; without it, the host in WordPress's
    User-Agent."""
    rules: list[TrafficRule] = Field(default_factory=list)
    """Of the rules that match a site's traffic, the lowest `keep` applies."""
    minimum: float = Field(0, ge=0, allow_inf_nan=False)
    """Traces an hour that each site keeps at least, if it has as many."""
    ceiling: float = Field(0.2, gt=0, le=1)
    """Maximum that all sites together may keep because of their minimum, as a share of the budget."""
    max_sites: int = Field(10_000, ge=1)
    """Number of sites that rules apply to; further sites have no rules."""

    @model_validator(mode="after")
    def _rules_agree(self) -> SiteRules:
        for place, rule in enumerate(self.rules):
            for other in self.rules[place + 1 :]:
                same = rule.sites == other.sites or bool(set(rule.sites or ()) & set(other.sites or ()))
                low, high = (rule, other) if rule.above <= other.above else (other, rule)
                if same and rule.above == other.above and rule.keep != other.keep:
                    message = f"for sites above {rule.above:g} traces an hour, keep is {rule.keep:g} and {other.keep:g}"
                    raise ValueError(message)
                if same and low.above < high.above and low.keep <= high.keep:
                    message = (
                        f"above {high.above:g} traces an hour, keep: {high.keep:g} never applies, because above "
                        f"{low.above:g} it is {low.keep:g} already: more traffic must keep less"
                    )
                    raise ValueError(message)
        return self


SitesOrNone = Annotated[SiteRules | None, NeedsTier(Tier.ENTERPRISE)]
"""Rules by site need a higher tier than the other settings."""


class Recorder(Block):
    """Keeps dropped traces in compressed form until space is needed; a late error or `rescue` recovers them."""

    enabled: bool = False
    """Record dropped traces. It takes about half a microsecond of CPU for each dropped span."""
    max_bytes: ByteSize = Field(32 * 2**20, ge=2**16)
    """Memory of the recorder; the oldest traces are removed when it is full."""
    directory: str = ""
    """Folder for traces that are removed from memory. They are found again after a restart."""
    max_directory_bytes: ByteSize = Field(2**30, ge=2**16)
    """Maximum size of that folder."""
    encryption: StorageEncryption | None = None
    """Encrypt the files in that folder. Only `recipients`: after a restart, the agent cannot read its earlier files."""
