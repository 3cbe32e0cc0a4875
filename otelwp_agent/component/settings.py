"""The bases of components' configurations, with the settings that all receivers or all exporters have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from otelwp_agent.component.declarations import Carries
from otelwp_agent.config.blocks import Block, Queue, Retry
from otelwp_agent.model.checking import DEFAULT_MAX_ITEMS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otelwp_agent.config.document import Path
    from otelwp_agent.config.references import Capability
    from otelwp_agent.model.signal import Signal


@dataclass(frozen=True, slots=True)
class Unfit:
    """A setting with which a component cannot accept encoded bodies."""

    setting: Path
    """Path of the setting below the component."""
    reason: str
    """Why, and what to set instead."""


class ComponentConfig(Block):
    """Base of every component's `Config`: unknown keys are refused, and the values cannot be changed after loading."""

    def lack(self, capability: Capability) -> str:  # noqa: ARG002 - for extensions whose settings decide
        """Return why an extension with these settings cannot be used as `capability`, "" if it can.

        Only for capabilities that the factory declares.
        """
        return ""

    def contradictions(self) -> Iterator[tuple[Path, str]]:
        """Yield settings that contradict others: their path below the component, and what is wrong."""
        yield from ()

    def refuses(self, signal: Signal) -> str:  # noqa: ARG002 - for settings that do not apply to a signal
        """Return why a component with these settings cannot accept a signal that its factory declares, "" if it can."""
        return ""

    def encodes(self) -> Carries:
        """Return how far a component with these settings encodes its bodies, if its factory declares less.

        For a receiver: how far the bodies that it creates may be encoded.
        """
        return Carries.PLAIN

    def unfit_for(self, bodies: Carries) -> Unfit | None:  # noqa: ARG002 - for settings that need plain bodies
        """Return why a component with these settings cannot accept such bodies, `None` if it can.

        Only for bodies that the factory accepts.
        """
        return None


class ReceiverConfig(ComponentConfig):
    """Base of the `Config` of receivers whose senders wait for an answer."""

    acknowledge: Literal["accepted", "delivered"] = "accepted"
    """When to answer. `accepted`: as soon as the journal has accepted the request, or the pipelines if there is no
    journal. `delivered`: when the exporters have sent or dropped it. Then a sender gets an error if its request was
    dropped, and after 30 seconds without a result an error that asks it to retry."""
    max_items_per_request: int = Field(DEFAULT_MAX_ITEMS, gt=0)
    """Most resources, scopes and items (spans, metrics and data points, log records) in a request, counted together
    before it is decoded. A larger request is refused with status 413, which senders do not retry. The number of values
    inside the items is limited in proportion."""


class ExporterConfig(ComponentConfig):
    """Base of the `Config` of exporters: the queue before the exporter and the retries after a failure."""

    sending_queue: Queue = Queue()
    """The queue before the exporter."""
    retry_on_failure: Retry = Retry()
    """How to retry a send after a failure that may pass."""

    def unfit_for(self, bodies: Carries) -> Unfit | None:
        """Refuse a queue that would merge encoded bodies."""
        if bodies is Carries.PLAIN or self.sending_queue.batch is None:
            return None
        return Unfit(("sending_queue", "batch"), "it merges batches, which must be plain: remove it")

    @property
    def attempt_timeout(self) -> float:
        """Seconds after which an attempt is cancelled; 0 if the exporter has its own limit."""
        timeout = getattr(self, "timeout", None)
        return timeout if isinstance(timeout, float) else 0.0
