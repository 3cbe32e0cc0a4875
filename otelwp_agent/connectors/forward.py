"""Forward batches from the pipelines that list it as exporter to those that list it as receiver.

It merges pipelines into one or splits one into several, and does not change batches. Use it for processors that
several pipelines share, or that only a part of the data should pass.

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
    """No settings."""


class Forward(Connector):
    """Forwards each batch to the pipelines of its signal."""

    def consume(self, batch: Batch) -> None:
        """Forward the batch; errors of the pipelines are raised unchanged."""
        self.next[batch.signal].consume(batch)


def _build(_config: Config, context: Context) -> Forward:
    return Forward(context)


FACTORY = Factory(Kind.CONNECTOR, "forward", Config, _build, stability=Stability.STABLE, accepts=Carries.ENCODED)
