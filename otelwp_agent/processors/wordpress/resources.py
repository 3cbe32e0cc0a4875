"""Add the site of a multisite network to the resource, and to the name of its service."""

from __future__ import annotations

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.attributes import as_string, decode, find
from otelwp_agent.model.projections import parse
from otelwp_agent.processors.wordpress.attributes import key_value

REMEMBERED = 256
"""Maximum number of cached resources."""
REMEMBERED_SIZE = 4096
"""Maximum size of a cached resource in bytes."""


class Resources:
    """Adds sites to resources, with a cache, because a site sends the same resource with every page."""

    __slots__ = ("_known", "_suffix")

    def __init__(self, suffix: str) -> None:
        """Append `suffix` to the service's name, with the site's number for `{id}`; "" appends nothing."""
        self._suffix = suffix
        self._known: dict[tuple[bytes | None, str, str], bytes | None] = {}

    def with_site(self, resource: bytes | None, site_id: str, host: str) -> bytes | None:
        """Return the resource with the site added; `None` if nothing is missing."""
        key = (resource, site_id, host)
        if key in self._known:
            return self._known[key]
        new = self._add_site(resource or b"", site_id, host)
        if resource is None or len(resource) <= REMEMBERED_SIZE:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[key] = new
        return new

    def _add_site(self, data: bytes, site_id: str, host: str) -> bytes | None:
        resource = parse(pb.Resource.FromString, data)
        attributes = resource.attributes
        known_id, known_host = find(attributes, b"wordpress.site.id"), find(attributes, b"wordpress.site.host")
        changed = False
        if known_id is None and site_id:
            attributes.add().MergeFromString(key_value("wordpress.site.id", int(site_id)))
            changed = True
        if known_host is None and host:
            attributes.add().MergeFromString(key_value("wordpress.site.host", host))
            changed = True
        number = as_string(decode(known_id.value)) if known_id is not None else site_id
        name = find(attributes, b"service.name")
        # This project's plugin has already added the site to the name.
        if name is not None and self._suffix and number.isdigit() and int(number) > 1 and b"otelwp" not in data:
            text, suffix = as_string(decode(name.value)), self._suffix.replace("{id}", number)
            if not text.endswith(suffix):
                name.MergeFromString(key_value("service.name", text + suffix))
                changed = True
        return resource.SerializeToString() if changed else None
