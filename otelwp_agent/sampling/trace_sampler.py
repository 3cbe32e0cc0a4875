"""The interface of processors that decide about whole traces.

`remote_sampling`, the exporter `managed`, `sampling explain`, `rescue` and replay find such processors by this class
(`Host.providers(TraceSampler)`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otelwp_agent.sampling.adaptive.controller import Controller
    from otelwp_agent.sampling.advice import SamplingAdvice


class DecisionObserver(Protocol):
    """Receives each decision about a trace."""

    def __call__(  # noqa: PLR0913, PLR0917 - called for every trace: building an object for each would cost more
        self,
        trace: object,
        key: tuple[str, ...] | None,
        spans: int,
        size: int,
        keep: bool,  # noqa: FBT001 - called for every trace: keyword arguments cost time
        reason: str,
    ) -> None:
        """Record one decision: `trace` identifies it, `key` is `None` for late spans, `size` is in bytes."""


class TraceSampler:
    """Decides about whole traces; can be explained, observed and asked to recover dropped traces."""

    controller: Controller
    """Decides about the traces."""
    per: Sequence[str]
    """Names of the attributes whose values form its keys."""
    records: bool = False
    """Whether a flight recorder keeps dropped traces for `rescue`."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Its position in the configuration: `{"pipeline": …, "processor": …}`."""
        raise NotImplementedError

    def explain(self, top: int) -> dict[str, Any]:
        """Return its state and its `top` busiest keys as JSON-compatible data."""
        raise NotImplementedError

    def observe(self, observer: DecisionObserver) -> None:
        """Call `observer` for every decision from now on."""
        raise NotImplementedError

    def advise(self, source: str, advice: SamplingAdvice, until: float) -> None:
        """Keep no more by probability than the backend `source` requests, until a time on the context's clock.

        The advice replaces an earlier one of the same source. It applies from the next second on.
        """
        self.controller.advices.put(source, advice, until)

    def rescue(
        self, *, trace_id: bytes | None = None, since: float | None = None, where: Mapping[str, str] | None = None
    ) -> int:
        """Forward recorded traces that were dropped; return the number of their spans.

        All given conditions must hold: `since` is seconds since 1970, `where` maps attributes to values.
        """
        raise NotImplementedError
