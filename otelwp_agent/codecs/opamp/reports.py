"""Read what an agent reports about itself in a message of OpAMP; pure.

Texts are shortened and credentials in them removed, so that a registry can keep them. Agents send only what has changed
since their last message: a part that is `None` was not sent.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from otelwp_agent.codecs.opamp import opamp_pb2 as pb
from otelwp_agent.errors import MalformedError
from otelwp_agent.telemetry import credentials

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

INSTANCE_SIZE = 16
"""Bytes of an instance uid."""
REQUEST_INSTANCE_UID = 1
"""Flag of an agent that wants another instance uid."""

UNSET, APPLIED, APPLYING, FAILED = "unset", "applied", "applying", "failed"
"""States of a remote configuration."""
_STATES = {pb.UNSET: UNSET, pb.APPLIED: APPLIED, pb.APPLYING: APPLYING, pb.FAILED: FAILED}

MAX_ATTRIBUTES = 64
LONGEST_ATTRIBUTE = 256
LONGEST_MESSAGE = 4096
MAX_CONFIG = 256 * 1024
"""Most characters of an effective configuration, over all its files."""
MAX_FILES = 16
MAX_COMPONENTS = 500
MAX_HASH = 64
_INT64 = 2**63
_DEEPEST = 4
_MAX_UNHEALTHY = 50
_CUT = "\n# cut off here: it is too long"


@dataclass(frozen=True, slots=True)
class ConfigState:
    """The state of a remote configuration: `hash` is hexadecimal, `message` says why it failed."""

    hash: str
    state: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class AgentReport:
    """A message of an agent."""

    instance: str
    """The instance uid, as 32 hexadecimal digits."""
    sequence: int
    capabilities: int
    attributes: Mapping[str, str] | None = None
    """The identifying and the other attributes of its description."""
    health: Mapping[str, Any] | None = None
    """`healthy`, `status`, `last_error`, and `unhealthy`: the messages of its unhealthy components by name."""
    effective_config: Mapping[str, str] | None = None
    """Text by the name of the file."""
    components: tuple[str, ...] | None = None
    """Available components, such as `receivers/otlp`; empty if only their hash was sent."""
    components_hash: str = ""
    config: ConfigState | None = None
    disconnects: bool = False
    wants_uid: bool = False


def parse_report(body: bytes) -> AgentReport:
    """Read the message AgentToServer; raise `MalformedError` if it is invalid."""
    try:
        message = pb.AgentToServer.FromString(body)
    except DecodeError as error:
        raise MalformedError("the body is not a serialized AgentToServer message of OpAMP") from error
    if len(message.instance_uid) != INSTANCE_SIZE:
        raise MalformedError(
            f"`instance_uid` must have {INSTANCE_SIZE} bytes, not {len(message.instance_uid)}: send a UUID v7"
        )
    if max(message.sequence_num, message.capabilities) >= _INT64:
        raise MalformedError("`sequence_num` and `capabilities` must be below 2^63")
    components = message.available_components
    return AgentReport(
        instance=message.instance_uid.hex(),
        sequence=message.sequence_num,
        capabilities=message.capabilities,
        attributes=_attributes(message.agent_description) if message.HasField("agent_description") else None,
        health=_health(message.health) if message.HasField("health") else None,
        effective_config=_files(message.effective_config) if message.HasField("effective_config") else None,
        components=_components(components) if message.HasField("available_components") else None,
        components_hash=components.hash[:MAX_HASH].hex(),
        config=_config(message.remote_config_status) if message.HasField("remote_config_status") else None,
        disconnects=message.HasField("agent_disconnect"),
        wants_uid=bool(message.flags & REQUEST_INSTANCE_UID),
    )


def shown(text: str, longest: int) -> str:
    """Return a text of a peer without credentials and NUL, shortened to `longest` characters."""
    return credentials.redact(text[:longest].replace("\0", ""))


def _attributes(description: pb.AgentDescription) -> dict[str, str]:
    """Return the scalar attributes as texts; an identifying one takes precedence."""
    found: dict[str, str] = {}
    for each in itertools.chain(description.identifying_attributes, description.non_identifying_attributes):
        kind = each.value.WhichOneof("value")
        if kind is None or not each.key or each.key in found:
            continue
        value = getattr(each.value, kind)
        text = value.hex() if kind == "bytes_value" else str(value).lower() if kind == "bool_value" else str(value)
        found[shown(each.key, LONGEST_ATTRIBUTE)] = shown(text, LONGEST_ATTRIBUTE)
        if len(found) == MAX_ATTRIBUTES:
            break
    return found


def _health(health: pb.ComponentHealth) -> dict[str, Any]:
    unhealthy = dict(itertools.islice(_unhealthy(health, "", 0), _MAX_UNHEALTHY))
    return {
        "healthy": health.healthy,
        "status": shown(health.status, LONGEST_ATTRIBUTE),
        "last_error": shown(health.last_error, LONGEST_MESSAGE),
        "unhealthy": unhealthy,
    }


def _unhealthy(health: pb.ComponentHealth, path: str, depth: int) -> Iterator[tuple[str, str]]:
    """Yield the name and the message of each unhealthy component below `health`."""
    for name, below in health.component_health_map.items():
        full = f"{path}{shown(name, LONGEST_ATTRIBUTE)}"
        if not below.healthy:
            yield full, shown(below.last_error or below.status, LONGEST_ATTRIBUTE)
        if depth < _DEEPEST:
            yield from _unhealthy(below, f"{full}/", depth + 1)


def _files(config: pb.EffectiveConfig) -> dict[str, str]:
    files: dict[str, str] = {}
    left = MAX_CONFIG
    for name, file in itertools.islice(sorted(config.config_map.config_map.items()), MAX_FILES):
        text = file.body[: left + 1].decode("utf-8", "replace")
        files[shown(name, LONGEST_ATTRIBUTE)] = shown(text, left) + (_CUT if len(text) > left else "")
        left = max(0, left - len(text))
    return files


def _components(available: pb.AvailableComponents) -> tuple[str, ...]:
    return tuple(itertools.islice(_component_names(available.components.items()), MAX_COMPONENTS))


def _component_names(components: Iterable[tuple[str, pb.ComponentDetails]]) -> Iterator[str]:
    for name, details in sorted(components):
        below = sorted(details.sub_component_map)
        names = [f"{name}/{each}" for each in below] or [name]
        yield from (shown(each, LONGEST_ATTRIBUTE) for each in names)


def _config(status: pb.RemoteConfigStatus) -> ConfigState:
    hash_ = status.last_remote_config_hash[:MAX_HASH].hex()
    return ConfigState(hash_, _STATES.get(status.status, UNSET), shown(status.error_message, LONGEST_MESSAGE))
