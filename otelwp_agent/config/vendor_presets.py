"""Presets of OTLP/HTTP backends: endpoint by region, the header with the key, and the limit of a request.

Each preset names the page of its vendor that it was made from.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from otelwp_agent.config.blocks.base import Block
from otelwp_agent.config.types import Secret  # noqa: TC001 - pydantic reads it

if TYPE_CHECKING:
    from collections.abc import Mapping

_REGION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class _Vendor:
    """One vendor's OTLP/HTTP endpoint."""

    page: str
    """The vendor's page with these values."""
    header: str
    """Name of the header with the key."""
    form: str = "{key}"
    """Value of the header; `{basic}` is the base64 of `user:key`."""
    endpoints: Mapping[str, str] = field(default_factory=dict)
    """The endpoint of each region, the default region first."""
    endpoint: str = ""
    """The only endpoint, or that of any `{region}`. Without both, each customer has its own endpoint."""
    max_request_size: int | None = None
    """Most bytes of a request."""


VENDORS: Mapping[str, _Vendor] = {
    "dash0": _Vendor(
        page="https://www.dash0.com/hub/integrations/int_otlp/overview",
        header="authorization",
        form="Bearer {key}",
        endpoint="https://ingress.{region}.aws.dash0.com",
    ),
    "datadog": _Vendor(
        page="https://docs.datadoghq.com/opentelemetry/setup/otlp_ingest/",
        header="dd-api-key",
        endpoints={
            "us1": "https://otlp.datadoghq.com",
            "us3": "https://otlp.us3.datadoghq.com",
            "us5": "https://otlp.us5.datadoghq.com",
            "eu1": "https://otlp.datadoghq.eu",
            "ap1": "https://otlp.ap1.datadoghq.com",
            "ap2": "https://otlp.ap2.datadoghq.com",
        },
        max_request_size=524_288,  # the limit for metrics, when compressed; those for logs and traces are higher
    ),
    "elastic": _Vendor(
        page="https://www.elastic.co/docs/reference/opentelemetry/motlp", header="authorization", form="ApiKey {key}"
    ),
    "grafana_cloud": _Vendor(
        page="https://grafana.com/docs/grafana-cloud/send-data/otlp/send-data-otlp/",
        header="authorization",
        form="Basic {basic}",
        endpoint="https://otlp-gateway-{region}.grafana.net/otlp",
    ),
    "honeycomb": _Vendor(
        page="https://docs.honeycomb.io/send-data/opentelemetry/",
        header="x-honeycomb-team",
        endpoints={"us": "https://api.honeycomb.io", "eu": "https://api.eu1.honeycomb.io"},
    ),
    "newrelic": _Vendor(
        page="https://docs.newrelic.com/docs/opentelemetry/best-practices/opentelemetry-otlp/",
        header="api-key",
        endpoints={
            "us": "https://otlp.nr-data.net",
            "eu": "https://otlp.eu01.nr-data.net",
            "fedramp": "https://gov-otlp.nr-data.net",
        },
        max_request_size=999_999,  # "smaller than 1 MB (10^6 bytes)"
    ),
    "uptrace": _Vendor(
        page="https://uptrace.dev/get/opentelemetry-python/otlp",
        header="uptrace-dsn",
        endpoint="https://api.uptrace.dev",
    ),
}
"""The presets, by name."""


class VendorPreset(Block):
    """A backend with known settings."""

    name: Literal["dash0", "datadog", "elastic", "grafana_cloud", "honeycomb", "newrelic", "uptrace"]
    """The vendor."""
    region: str = ""
    """The region. For `honeycomb` and `newrelic`: `us` (default) or `eu`; `newrelic` also has `fedramp`. For
    `datadog`: the site, `us1` (default), `us3`, `us5`, `eu1`, `ap1` or `ap2`. For `grafana_cloud`: the zone of the
    stack, like `prod-eu-west-2`. For `dash0`: that of the endpoint, like `eu-west-1`. `elastic` and `uptrace`
    have none."""
    user: str = ""
    """For `grafana_cloud` only: the instance id of the stack."""
    key: Secret = Field(min_length=1)
    """The key or token; for `uptrace`, the DSN of the project."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        vendor = VENDORS[self.name]
        if vendor.endpoints and self.region not in {"", *vendor.endpoints}:
            message = f"`{self.name}` has no region {self.region!r}: its regions are {', '.join(vendor.endpoints)}"
            raise ValueError(message)
        regional = "{region}" in vendor.endpoint
        if regional and not _REGION.fullmatch(self.region):
            message = f"`{self.name}` needs a `region`, as in `{vendor.endpoint}`"
            raise ValueError(message)
        if self.region and not (vendor.endpoints or regional):
            own = "" if vendor.endpoint else ", and give the `endpoint` of your project"
            message = f"`{self.name}` has no regions: remove `region`{own}"
            raise ValueError(message)
        if bool(self.user) != ("{basic}" in vendor.form):
            message = f"`{self.name}` needs a `user`" if not self.user else f"`{self.name}` has no `user`: remove it"
            raise ValueError(message)
        return self

    @property
    def endpoint(self) -> str:
        """The endpoint; "" if each customer has its own one."""
        vendor = VENDORS[self.name]
        if vendor.endpoints:
            return vendor.endpoints[self.region or next(iter(vendor.endpoints))]
        return vendor.endpoint.format(region=self.region)

    @property
    def headers(self) -> dict[str, str]:
        """The header with the key."""
        vendor, key = VENDORS[self.name], self.key.get_secret_value()
        basic = base64.b64encode(f"{self.user}:{key}".encode()).decode()
        return {vendor.header: vendor.form.format(key=key, basic=basic)}


def with_preset(settings: Any) -> Any:  # noqa: ANN401 - any YAML value
    """Return the settings of an exporter with those of its `preset`; what is given takes precedence."""
    if not isinstance(settings, dict) or not isinstance(settings.get("preset"), dict):
        return settings
    try:
        preset = VendorPreset.model_validate(settings["preset"])
    except ValidationError:  # reported where the preset is
        return settings
    given = settings.get("headers") or {}
    if not isinstance(given, dict):
        return settings
    own = {name.lower() for name in given if isinstance(name, str)}
    added = {name: value for name, value in preset.headers.items() if name not in own}
    filled: dict[str, Any] = {"headers": {**added, **given}}
    if preset.endpoint:
        filled["endpoint"] = preset.endpoint
    limit = VENDORS[preset.name].max_request_size
    if limit is not None:
        filled["max_request_size"] = limit
    return {**filled, **settings, "headers": filled["headers"]}
