"""Declarations of the operations of the admin API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from otelwp_agent.admin.models import KEY_ID_PATTERN, NAME_PATTERN, ApiModel
from otelwp_agent.control.operations.operators import Role

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from otelwp_agent.admin.identity import Principal
    from otelwp_agent.control.api_keys import Hasher, Scope
    from otelwp_agent.control.mutation import Actor

PREFIX = "/api/v1"
TENANT = "tenant"
"""Name of the path parameter for the tenant. An API key is refused if it is not of this tenant."""
PLUGIN = "plugin"
"""Name of the path parameter for an installation of a plugin."""
UUID_PATTERN = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
PATTERNS: Mapping[str, str] = {"key": KEY_ID_PATTERN, PLUGIN: UUID_PATTERN}
"""Patterns of the variable parts of paths, if they are not names."""
MUTATING = frozenset({"POST", "PUT", "PATCH", "DELETE"})


@dataclass(frozen=True, slots=True)
class ApiCall:
    """A request to an operation, authenticated and validated."""

    principal: Principal
    actor: Actor
    """The author of changes, for the audit log."""
    hasher: Hasher
    """Hashes API keys and tokens."""
    path: Mapping[str, str]
    """The variable parts of the path."""
    query: Any = None
    """The query, an object of the operation's model."""
    body: Any = None
    """The body, an object of the operation's model."""


Handler = Callable[["Connection", ApiCall], object]
"""Carries out an operation in a transaction, in the thread of the store.

It returns JSON, an `ItemPage` for a list, or `None` for an answer without a body; it raises `OperationError` or
`ProblemError`, after which nothing is changed.
"""


@dataclass(frozen=True, slots=True)
class ApiOperation:
    """An operation of the API. Operations that change something have a method in `MUTATING` and write the audit log."""

    method: str
    path: str
    """Path with variable parts: `/api/v1/tenants/{tenant}`."""
    name: str
    """Unique name (`operationId` in OpenAPI)."""
    summary: str
    handler: Handler
    role: Role = Role.VIEWER
    """The lowest role of operators that may call it."""
    scopes: tuple[Scope, ...] = ()
    """API keys with one of these scopes may call it too, for their own tenant."""
    query: type[ApiModel] | None = None
    body: type[ApiModel] | None = None
    answer: type[ApiModel] | None = None
    """Model of a successful answer; `None` if it has no body."""
    is_array: bool = False
    """Whether the answer is an array of `answer`. Then only the header `Link` has the URL of the next page."""
    status: int = 200
    """Status of a successful answer."""
    gives: Mapping[str, str] = field(default_factory=dict)
    """Fields of the answer that are variable parts of other paths: `{"tenant": "id"}`. They become links in OpenAPI."""
    secret: str = ""
    """Field of the answer with a new secret. It is not repeated if the request is repeated."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The path, split at `/`."""
        return tuple(self.path.split("/"))

    @property
    def variables(self) -> tuple[str, ...]:
        """The names of the variable parts of the path."""
        return tuple(part[1:-1] for part in self.parts if part.startswith("{"))

    @property
    def mutates(self) -> bool:
        """Whether it changes something."""
        return self.method in MUTATING

    @property
    def body_required(self) -> bool:
        """Whether a body must be sent, because an empty object is not valid."""
        if self.body is None:
            return False
        try:
            self.body()
        except ValidationError:
            return True
        return False


def pattern_of(variable: str) -> str:
    """Return the pattern of a variable part of paths."""
    return PATTERNS.get(variable, NAME_PATTERN)
