"""Add headers to the requests of exporters: fixed ones, the tenant, or headers and attributes of the original client.

An exporter that names this extension in `auth` sends the headers with each batch. The values of a batch come from the
requests that it was made of: with the processor `batch`, list the headers in its `metadata_keys`, so that requests with
different values are not merged.

Example::

    extensions:
      headers_setter:
        headers:
        - key: X-Scope-OrgID
          from_tenant: true
          default_value: unknown
        - key: X-Shop
          from_context: x-shop
        - key: X-Relayed
          action: insert
          value: "yes"
    exporters:
      otlp_http:
        endpoint: https://collector.example:4318
        auth:
          authenticator: headers_setter
    service:
      tier: pro
      extensions: [headers_setter]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from otelwp_agent.component import ComponentConfig, Context, Extension, Factory, Kind, Tier
from otelwp_agent.config.blocks import Block
from otelwp_agent.config.http_headers import header_problem
from otelwp_agent.config.references import Capability, ClientAuthenticatorRef
from otelwp_agent.transport.authentication import ATTRIBUTE_PREFIX, ClientAuthenticator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otelwp_agent.model.batch import Origin
    from otelwp_agent.transport.authentication import Headers

_SOURCES = ("value", "from_context", "from_attribute", "from_tenant")


def _is_sendable(key: str) -> str:
    problem = header_problem(key, "")
    if problem is not None:
        raise ValueError(problem)
    return key.lower()


class Header(Block):
    """A header to set."""

    key: Annotated[str, AfterValidator(_is_sendable)]
    """Name of the header."""
    action: Literal["insert", "update", "upsert", "delete"] = "upsert"
    """`insert` sets it if the exporter's configuration does not have it, `update` only if it has it, `upsert` in both
    cases; `delete` removes it."""
    value: str | None = None
    """A fixed value."""
    from_context: Annotated[str, AfterValidator(str.lower)] | None = None
    """The value of this header, or gRPC metadata, of the original request."""
    from_attribute: str | None = None
    """The value of this attribute of the original client, such as a claim of its JWT."""
    from_tenant: bool = False
    """The tenant of the original client."""
    default_value: str | None = None
    """The value if the original request has none. Without it, the header is then not set."""

    @model_validator(mode="after")
    def _has_one_source(self) -> Header:
        given = [name for name in _SOURCES if getattr(self, name) not in {None, False}]
        if self.action == "delete":
            if given:
                message = f"`{given[0]}` has no effect with `action: delete`: remove it"
                raise ValueError(message)
            return self
        if len(given) != 1:
            message = "give one of `value`, `from_context`, `from_attribute` and `from_tenant`"
            raise ValueError(message if not given else f"{message}, not {len(given)} of them")
        for name in ("value", "default_value"):
            value = getattr(self, name)
            if value is not None and (problem := header_problem(self.key, value)):
                message = f"{name}: {problem}"
                raise ValueError(message)
        return self


class Config(ComponentConfig):
    """Settings of `headers_setter`."""

    headers: list[Header] = Field(min_length=1)
    """The headers, in the order in which they are set."""
    additional_auth: ClientAuthenticatorRef | None = None
    """Id of another extension that adds a credential before these headers are set."""


class HeadersSetter(Extension, ClientAuthenticator):
    """Sets headers from the origin of each batch."""

    def __init__(self, config: Config, context: Context) -> None:
        """Copy the settings."""
        super().__init__(context)
        self._rules = [(each.key, each.action, _source(each), each.default_value) for each in config.headers]
        self._other = (
            context.extension(config.additional_auth, ClientAuthenticator)  # type: ignore[type-abstract]
            if config.additional_auth is not None
            else None
        )
        own = [each.from_context for each in config.headers if each.from_context is not None]
        own += [ATTRIBUTE_PREFIX + each.from_attribute for each in config.headers if each.from_attribute is not None]
        self.reads = tuple(dict.fromkeys([*own, *(self._other.reads if self._other is not None else ())]))

    def headers(self, origin: Origin | None, given: Mapping[str, str]) -> Headers:
        """Return the headers for a batch, after those of the additional authenticator."""
        found: dict[str, str | None] = dict(self._other.headers(origin, given)) if self._other is not None else {}
        for key, action, source, default in self._rules:
            present = found[key] is not None if key in found else key in given
            if action == "delete":
                found[key] = None
            elif action == "upsert" or present is (action == "update"):
                value = source(origin)
                if not value or not (value.isascii() and value.isprintable()):  # a claim may contain a line break
                    value = default
                if value is not None:
                    found[key] = value
        return tuple(found.items())

    def rejected(self, headers: Headers) -> bool:
        """Return whether the additional authenticator can replace its credential."""
        return self._other is not None and self._other.rejected(headers)


def _source(header: Header) -> Callable[[Origin | None], str | None]:
    """Return the function that reads the value of a header from an origin."""
    if header.from_tenant:
        return lambda origin: origin.tenant if origin is not None else None
    name = header.from_context
    if header.from_attribute is not None:
        name = ATTRIBUTE_PREFIX + header.from_attribute
    if name is not None:
        return lambda origin: origin.headers.get(name) if origin is not None else None
    return lambda _: header.value


FACTORY = Factory(
    Kind.EXTENSION,
    "headers_setter",
    Config,
    HeadersSetter,
    signals=frozenset(),
    tier=Tier.FREE,
    capabilities=frozenset({Capability.CLIENT_AUTHENTICATOR}),
)
