"""Open listening sockets: TCP and UDP on one or both IP families, and unix sockets with a mode and a group."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from typing import TYPE_CHECKING

from otelwp_agent.errors import StartError

if TYPE_CHECKING:
    from otelwp_agent.config.types import Endpoint

_ADVICE = {
    errno.EADDRINUSE: "it is in use by another process; stop that one, or choose another endpoint",
    errno.EADDRNOTAVAIL: "this machine does not have that address; listen on 127.0.0.1, 0.0.0.0 or one of its own",
    errno.ENOENT: "its directory does not exist; create it first",
}


def listen(  # noqa: PLR0913 - the settings of a socket
    endpoint: Endpoint,
    *,
    name: str,
    backlog: int,
    unix_mode: str,
    unix_group: str | None,
    reuse_port: bool = False,
) -> socket.socket:
    """Return a listening socket on `endpoint`. With `reuse_port`, another socket that allows it may have the port.

    Raises a `StartError` that contains the component's `name` and advice.
    """
    try:
        if endpoint.unix:
            sock = _bind_unix(socket.SOCK_STREAM, endpoint.unix, int(unix_mode, 8), unix_group)
            sock.listen(backlog)
            return sock
        return _listen_tcp(endpoint, backlog, reuse_port=reuse_port)
    except (OSError, LookupError) as error:
        raise StartError(f"{name}: cannot listen on {endpoint}: {_advice(error, endpoint)}") from error


def bind_datagram(endpoint: Endpoint, *, name: str, unix_mode: str, unix_group: str | None) -> socket.socket:
    """Return a socket that receives datagrams on `endpoint`; raise `StartError` like `listen`."""
    try:
        if endpoint.unix:
            return _bind_unix(socket.SOCK_DGRAM, endpoint.unix, int(unix_mode, 8), unix_group)
        return _bind_udp(endpoint)
    except (OSError, LookupError) as error:
        raise StartError(f"{name}: cannot listen on {endpoint}: {_advice(error, endpoint)}") from error


def address_of(endpoint: Endpoint, port: int) -> str:
    """Return a listening address in readable form: `127.0.0.1:4318`, `[::1]:4318`, `*:4318` or `unix:///path`."""
    if endpoint.unix:
        return f"unix://{endpoint.unix}"
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host or "*"
    return f"{host}:{port}"


def _bind_udp(endpoint: Endpoint) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(
        endpoint.host or None, endpoint.port or 0, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
    return sock


def _listen_tcp(endpoint: Endpoint, backlog: int, *, reuse_port: bool) -> socket.socket:
    port = endpoint.port or 0
    if not endpoint.host:
        if socket.has_dualstack_ipv6():
            return socket.create_server(
                ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=backlog, reuse_port=reuse_port
            )
        return socket.create_server(("", port), backlog=backlog, reuse_port=reuse_port)
    family, _, _, _, address = socket.getaddrinfo(endpoint.host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address[:2], family=family, backlog=backlog, reuse_port=reuse_port)


def _bind_unix(kind: socket.SocketKind, path: str, mode: int, group: str | None) -> socket.socket:
    _remove_stale(kind, path)
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        previous = os.umask(0o777 & ~mode)
        try:
            sock.bind(path)
        finally:
            os.umask(previous)
        os.chmod(path, mode)  # noqa: PTH101 - same style as bind and chown, which have no pathlib form
        if group is not None:
            import grp  # noqa: PLC0415 - not available on Windows, and rarely needed

            os.chown(path, -1, grp.getgrnam(group).gr_gid)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
    return sock


def _remove_stale(kind: socket.SocketKind, path: str) -> None:
    """Remove a socket that a dead process has left; raise `OSError` if a process still listens on it."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH116
            raise OSError(errno.EEXIST, "this path is a file that is not a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108
            return
        except OSError as error:
            if error.errno != errno.EPROTOTYPE:  # a process listens, but with another socket type
                raise
    raise OSError(errno.EADDRINUSE, "a process listens on this path")


def _advice(error: Exception, endpoint: Endpoint) -> str:
    if isinstance(error, socket.gaierror):
        return f"the host name does not resolve ({error.strerror})"
    if isinstance(error, LookupError):
        return f"the group does not exist ({error})"
    if getattr(error, "errno", None) == errno.EACCES:
        where = "this directory" if endpoint.unix else "ports below 1024"
        return f"permission denied; {where} needs rights that this user does not have"
    return _ADVICE.get(getattr(error, "errno", None) or 0, str(error))
