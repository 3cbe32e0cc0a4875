"""One statement of delivery. No I/O, no cryptography."""

from __future__ import annotations

from collections.abc import Mapping, Sequence  # noqa: TC003 - fields' annotations
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = 1
HASH_PATTERN = r"^([0-9a-f]{64})?$"


class StatementError(ValueError):
    """A text is not a statement that one of the keys has signed."""


class _Claims(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class PipelineFigures(_Claims):
    """The items of one tenant in one pipeline. An item that enters two pipelines is in both.

    `opening + accepted - delivered - sampled_out - filtered - dropped - written_off = closing`
    """

    opening: int = 0
    """Items in flight at the beginning: accepted before, and not settled."""
    accepted: int = 0
    delivered: int = 0
    sampled_out: int = 0
    filtered: int = 0
    dropped: Mapping[str, int] = Field(default_factory=dict)
    """By reason. Items that are kept as dead letters have reasons that begin with `dead_letter:`."""
    written_off: int = 0
    """Items in flight of which the agent lost track: it was killed without a journal, or lost its journal."""
    closing: int = 0
    """Items in flight at the end."""

    @property
    def settled(self) -> int:
        """Items whose outcome became known."""
        return self.delivered + self.sampled_out + self.filtered + sum(self.dropped.values()) + self.written_off

    @property
    def balance(self) -> int:
        """Items that are missing (above 0) or too many; 0 if the equation holds."""
        return self.opening + self.accepted - self.settled - self.closing


class ExporterFigures(_Claims):
    """The items of one tenant at one exporter."""

    delivered: int = 0
    dropped: int = 0


class Interruption(_Claims):
    """A time in which the agent was not stopped in order: from its last checkpoint to its next start."""

    begin: float
    end: float
    pipelines: bool
    """Whether a journal has continued the sums of the pipelines, so that they are complete. The sums of the exporters
    never contain what happened after `begin`."""


class DeliveryStatement(_Claims):
    """The outcomes of the items of one tenant in one agent from `begin` to `end` (seconds since 1970)."""

    version: int = VERSION
    agent: str
    tenant: str
    sequence: int = Field(ge=1)
    """1 for the first one of this tenant and agent, then one more each time."""
    previous: str = Field(pattern=HASH_PATTERN)
    """SHA-256 of the text of the statement before, in hexadecimal; "" in the first one."""
    begin: float
    end: float
    pipelines: Mapping[str, PipelineFigures] = Field(default_factory=dict)
    exporters: Mapping[str, ExporterFigures] = Field(default_factory=dict)
    interruptions: Sequence[Interruption] = ()

    @classmethod
    def from_claims(cls, claims: Mapping[str, Any]) -> DeliveryStatement:
        """Read a decoded statement; raise `StatementError`."""
        if claims.get("version") != VERSION:
            message = f"it has version {claims.get('version')!r}, which this agent does not know"
            raise StatementError(message)
        try:
            return cls.model_validate(dict(claims))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            message = f"its member `{'.'.join(map(str, first['loc']))}` is not valid ({first['msg']})"
            raise StatementError(message) from None

    def to_claims(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return self.model_dump(mode="json")

    def problems(self) -> Iterator[str]:
        """Yield messages about figures that do not add up."""
        for name, figures in self.pipelines.items():
            if figures.balance:
                yield f"pipeline {name}: {figures.balance} items are neither settled nor in flight"
            if figures.closing < 0 or figures.opening < 0:
                yield f"pipeline {name}: fewer than 0 items are in flight"
        if self.end < self.begin:
            yield "it ends before it begins"

    def problems_after(self, before: DeliveryStatement) -> Iterator[str]:
        """Yield messages about figures that do not continue those of the statement before."""
        if self.agent != before.agent:
            yield f"it is of agent {self.agent}, the one before of {before.agent}"
        if self.begin != before.end:
            yield f"it begins at {self.begin}, but the one before ends at {before.end}"
        for name in {*self.pipelines, *before.pipelines}:
            closing = before.pipelines.get(name, PipelineFigures()).closing
            opening = self.pipelines.get(name, PipelineFigures()).opening
            if opening != closing:
                yield f"pipeline {name}: it begins with {opening} items in flight, the one before ends with {closing}"
