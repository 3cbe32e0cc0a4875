"""Edit the attributes of resources, which describe the source of the telemetry.

Place it anywhere in a pipeline, but before `batch` if it uses the sender (`from_context`), because a batch has many
senders. Only the resource is decoded, never its spans, metrics or log records.

Example::

    processors:
      resource:
        attributes:
          - key: deployment.environment.name
            value: production
            action: upsert
          - key: k8s.cluster.name
            from_attribute: k8s-cluster
            action: insert
          - key: redundant-attribute
            action: delete
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from pydantic import Field

from otelwp_agent.component import ComponentConfig, Context, Effect, Factory, Kind, Processor, Reads, Stability
from otelwp_agent.config.attribute_actions import AttributeAction  # noqa: TC001 - pydantic reads it
from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.attribute_actions import compile_actions, from_context, header_of
from otelwp_agent.model.attribute_edits import edit_resources
from otelwp_agent.model.projections import parse

if TYPE_CHECKING:
    from otelwp_agent.model.batch import Batch, Origin

_CACHED = 1024
"""Maximum number of cached edited resources."""

_CACHED_SIZE = 2048
"""Maximum size in bytes of a cached resource; with `_CACHED` this bounds the memory."""


class Config(ComponentConfig):
    """The changes to make."""

    attributes: list[AttributeAction] = Field(min_length=1)
    """Actions on the attributes of every resource, applied in this order."""


class ResourceProcessor(Processor):
    """Applies attribute actions to the resource of each group of items."""

    def __init__(self, config: Config, context: Context) -> None:
        """Compile the actions."""
        super().__init__(context)
        actions = [action.to_action() for action in config.attributes]
        self._editor = edit_resources(actions)
        self._apply = compile_actions(actions)
        self._sender_names = tuple(action.from_context for action in config.attributes if action.from_context)
        self.headers = tuple(map(header_of, self._sender_names))
        self._edited: OrderedDict[tuple[bytes | None, ...], bytes] = OrderedDict()

    def consume(self, batch: Batch) -> None:
        """Forward the batch with its resources changed."""
        body = None if self._editor is None else self._editor.edit(batch.body, batch.origin)
        if body is None:
            body = self._edit_in_python(batch)
        self.next.consume(batch if body is batch.body else batch.with_body(body))

    def _edit_in_python(self, batch: Batch) -> bytes:
        """Edit a batch without the extension module, or one with an unusual layout; return its body."""
        request = parse(pb.Resources.FromString, batch.body)
        changed = False
        sender = tuple([from_context(batch.origin, name) for name in self._sender_names])
        for group in request.resources:
            resource = group.resource
            edited = self._edit(resource, batch.origin, sender)
            if edited != resource:
                group.resource = edited
                changed = True
        return request.SerializeToString() if changed else batch.body

    def _edit(self, resource: bytes, origin: Origin, sender: tuple[bytes | None, ...]) -> bytes:
        """Return the edited resource. Equal bytes from the same sender give equal bytes."""
        key = (resource, *sender)
        edited = self._edited.get(key)
        if edited is not None:
            self._edited.move_to_end(key)
            return edited
        message = parse(pb.Resource.FromString, resource)
        edited = message.SerializeToString() if self._apply(message.attributes, origin) else resource
        if len(resource) <= _CACHED_SIZE:
            self._edited[key] = edited
            if len(self._edited) > _CACHED:
                self._edited.popitem(last=False)
        return edited


FACTORY = Factory(
    Kind.PROCESSOR,
    "resource",
    Config,
    ResourceProcessor,
    stability=Stability.STABLE,
    reads=Reads.RESOURCES,
    effects=frozenset({Effect.EDITS}),
)
