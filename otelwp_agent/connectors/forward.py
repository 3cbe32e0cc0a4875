"""Hand batches from the pipelines that name it as exporter to those that name it as receiver.

It joins pipelines into one, or branches one into several, without changing anything: for processors that several
pipelines share, or that only some of the data should pass.

Example::

    connectors:
      forward: {}
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.component import Carries, ComponentConfig, Connector, Context, Factory, Kind, Stability

if TYPE_CHECKING:
    from otelwp_agent.model.batch import Batch


class Config(ComponentConfig):
    """There is nothing to set."""


class Forward(Connector):
    """Hands each batch to the pipelines of its signal."""

    def consume(self, batch: Batch) -> None:
        """Hand the batch on, or raise what they raise."""
        self.next[batch.signal].consume(batch)


def _build(_config: Config, context: Context) -> Forward:
    return Forward(context)


FACTORY = Factory(Kind.CONNECTOR, "forward", Config, _build, stability=Stability.STABLE, accepts=Carries.ENCODED)
