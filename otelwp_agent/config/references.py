"""References from a component's settings to extensions, such as `auth: {authenticator: bearertokenauth}`, or pipelines.

A field with a reference has one of the types below. They say what the extension must be able to do, so that `validate`
finds references to extensions that are missing or of another kind, and the graph builds the extensions first.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otelwp_agent.config.document import Path

R = TypeVar("R", bound=str)


class Capability(Enum):
    """Something that other components use an extension for; the value completes "this must be …"."""

    SERVER_AUTHENTICATOR = "a server authenticator"
    """Authenticates the requests of servers (`transport.authentication.ServerAuthenticator`)."""
    CLIENT_AUTHENTICATOR = "a client authenticator"
    """Adds credentials to the requests of exporters (`transport.authentication.ClientAuthenticator`)."""
    REQUEST_LIMITER = "a rate limiter"
    """Limits the requests of servers (`transport.limiting.RequestLimiter`)."""
    CONTROL_STORE = "a control store"
    """Offers tenants, plans and API keys (`control.access.ControlAccess`)."""
    ADMIN_API = "an admin API"
    """Serves the operations that other extensions mount (`admin.mounting.AdminRoutes`)."""


class ExtensionRef(str):
    """The id of an extension, `type[/name]`, in a setting of another component."""

    __slots__ = ()

    needs: ClassVar[Capability]
    """The capability that the extension must have."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401
        """Return a schema that accepts a string."""
        return core_schema.no_info_after_validator_function(
            cls._parse, core_schema.str_schema(), serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def _parse(cls, value: str) -> ExtensionRef:
        type_, slash, name = (part.strip() for part in value.partition("/"))
        if not type_ or (slash and not name):
            message = f"{value!r} is not the id of an extension: write `type` or `type/name`, as under `extensions`"
            raise ValueError(message)
        return cls(f"{type_}/{name}" if name else type_)


class ServerAuthenticatorRef(ExtensionRef):
    """The id of an extension that authenticates the requests of a server."""

    __slots__ = ()
    needs = Capability.SERVER_AUTHENTICATOR


class ClientAuthenticatorRef(ExtensionRef):
    """The id of an extension that adds credentials to the requests of a client."""

    __slots__ = ()
    needs = Capability.CLIENT_AUTHENTICATOR


class RequestLimiterRef(ExtensionRef):
    """The id of an extension that limits the requests of a server."""

    __slots__ = ()
    needs = Capability.REQUEST_LIMITER


class ControlStoreRef(ExtensionRef):
    """The id of an extension that opens a control store."""

    __slots__ = ()
    needs = Capability.CONTROL_STORE


class AdminApiRef(ExtensionRef):
    """The id of an extension that serves the admin API."""

    __slots__ = ()
    needs = Capability.ADMIN_API


class PipelineRef(str):
    """The id of a pipeline, in the settings of a connector that divides batches between pipelines."""

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401
        """Return a schema that accepts a string."""
        return core_schema.no_info_after_validator_function(
            cls, core_schema.str_schema(strip_whitespace=True), serialization=core_schema.to_string_ser_schema()
        )


def references(value: object, path: Path = ()) -> Iterator[tuple[ExtensionRef, Path]]:
    """Yield every reference to an extension in validated settings, with its path below them."""
    return _instances(ExtensionRef, value, path)


def pipeline_references(value: object) -> Iterator[tuple[PipelineRef, Path]]:
    """Yield every reference to a pipeline in validated settings, with its path below them."""
    return _instances(PipelineRef, value, ())


def _instances(of: type[R], value: object, path: Path) -> Iterator[tuple[R, Path]]:
    if isinstance(value, of):
        yield value, path
    elif isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            yield from _instances(of, getattr(value, name), (*path, field.alias or name))
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _instances(of, each, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _instances(of, each, (*path, index))
