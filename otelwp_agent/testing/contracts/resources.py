"""Contracts about a port or a file that is not available."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

from otelwp_agent.component import Kind
from otelwp_agent.errors import StartError
from otelwp_agent.testing.contract import contract
from otelwp_agent.testing.contracts.lifecycle import open_things, require_closed, start_and_stop
from otelwp_agent.testing.requirement import LISTENERS, require

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from otelwp_agent.testing.subject import Subject

Path = tuple[str, ...]


@contract(kinds=LISTENERS)
async def port_in_use_is_reported(subject: Subject) -> None:
    """Raise a `StartError` that names the port and the component when a port is in use.

    Nothing may stay open. The contract sets all settings named `endpoint` to the used port together, and then one by
    one; servers that have already started must be closed again.
    """
    await start_and_stop(subject)
    settings = subject.settings()
    paths = list(_endpoints(settings))
    with _port_in_use() as port:
        for chosen in [paths, *([path] for path in paths)] if paths else []:
            in_use = settings
            for path in chosen:
                in_use = _replace(in_use, path, f"127.0.0.1:{port}")
            await _fails(subject, in_use, str(port))


@contract(kinds=[Kind.EXPORTER])
async def path_that_cannot_be_written_is_reported(subject: Subject) -> None:
    """Raise a `StartError` that names the file and the component when `path` cannot be written.

    Nothing may stay open. This is for components with a setting named `path`.
    """
    settings = subject.settings()
    if "path" not in settings:
        return
    (subject.folder / "file").write_text("")
    path = str(subject.folder / "file" / "below" / "out.json")
    await _fails(subject, {**settings, "path": path}, path)


async def _fails(subject: Subject, settings: Mapping[str, Any], culprit: str) -> None:
    """Require that `start` raises a `StartError` that contains `culprit` and the component's id; nothing stays open."""
    before = await open_things()
    component, _ = subject.build(settings)
    try:
        await component.start()
    except StartError as error:
        text = str(error)
        require(culprit in text, f"the message does not name {culprit}: {text}")
        name = f"{subject.factory.type}/contract"
        require(name in text, f"the message does not name the component, {name}: {text}")
    else:
        await component.shutdown()
        require(condition=False, happened=f"it starts, although {culprit} cannot be used")
    await component.shutdown()
    del component
    await require_closed(before)


@contextlib.contextmanager
def _port_in_use() -> Iterator[int]:
    """Yield a port that is in use, both for streams and for datagrams."""
    with socket.create_server(("127.0.0.1", 0)) as stream, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(stream.getsockname())
        yield stream.getsockname()[1]


def _endpoints(settings: Mapping[str, Any], path: Path = ()) -> Iterator[Path]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _endpoints(value, (*path, key))
        elif key == "endpoint":
            yield (*path, key)


def _replace(settings: Mapping[str, Any], path: Path, value: str) -> dict[str, Any]:
    head, *rest = path
    return {**settings, head: _replace(settings[head], tuple(rest), value) if rest else value}


CONTRACTS = (port_in_use_is_reported, path_that_cannot_be_written_is_reported)
