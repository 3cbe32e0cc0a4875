"""A socket that takes datagrams: unix, with a mode and a group, or UDP.

`DatagramSocket` reads into one buffer, a few datagrams for each time that the event loop finds it readable, and hands
each to `take`. A socket on an address that one of the same name already serves in this process shares it, so that a
reload loses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
import time
from typing import TYPE_CHECKING

from otelwp_agent.errors import StartError
from otelwp_agent.transport.listen import address_of, bind_datagram

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.config.types import Endpoint

SLICE = 0.002
"""Seconds for which datagrams are taken before others have their turn."""
DRAIN = 1.0
"""Seconds for which, at the end, what the kernel still holds is taken."""

_SO_RCVBUFFORCE = 33
_SO_MEMINFO = 55
_MEMINFO_DROPS = 8
"""Linux: asm-generic/socket.h, and the place of the drops in linux/sock_diag.h's SK_MEMINFO_VARS."""
_MEMINFO = struct.Struct("9I")


class DatagramSocket:
    """Hands the datagrams that arrive on `endpoint` to `take`, and the size of each one above `limit` to `too_large`.

    `name` is the component's, for messages. `receive_buffer` asks the kernel for that much room; `receive_buffer_size`
    is what it gave.
    """

    _serving: dict[str, DatagramSocket] = {}  # noqa: RUF012 - by address, for the whole process, on purpose

    def __init__(  # noqa: PLR0913 - where it listens, and what it does with what arrives
        self,
        endpoint: Endpoint,
        take: Callable[[bytes], None],
        too_large: Callable[[int], None],
        *,
        name: str,
        limit: int,
        receive_buffer: int,
        unix_mode: str = "0660",
        unix_group: str | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.name = name
        self._take = take
        self._too_large = too_large
        self._limit = limit
        self._buffer = memoryview(b"")
        self._receive_buffer = receive_buffer
        self._mode, self._group = unix_mode, unix_group
        self._key = str(endpoint) if endpoint.port != 0 else f"{endpoint}#{name}"
        self.socket: socket.socket | None = None
        """While it listens."""
        self._before: DatagramSocket | None = None
        self._lost = 0

    @property
    def port(self) -> int:
        """The port it got; 0 on a unix socket, or before `start`."""
        return 0 if self.socket is None or self.endpoint.unix else int(self.socket.getsockname()[1])

    @property
    def address(self) -> str:
        """Where it listens, for people."""
        return address_of(self.endpoint, self.port)

    @property
    def receive_buffer_size(self) -> int:
        """Bytes that the kernel keeps for it, its own records included."""
        return 0 if self.socket is None else self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    @property
    def lost(self) -> int:
        """How many datagrams the kernel had no room for, since `start`; it tells of UDP alone.

        On a unix socket it loses none: who sends to a full one waits, or is told at once (EAGAIN).
        """
        if self.socket is not None:
            with contextlib.suppress(OSError, struct.error):
                memory = self.socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
                self._lost = _MEMINFO.unpack(memory)[_MEMINFO_DROPS]
        return self._lost

    def start(self) -> None:
        """Bind and read; raise `StartError` with nothing left open."""
        before = self._serving.get(self._key)
        if before is not None and before.socket is not None:
            if before.name != self.name:
                raise StartError(
                    f"{self.name}: cannot listen on {self.endpoint}: {before.name} already does; give one another"
                )
            self.socket = before.socket.dup()
            self._before = before
        else:
            self.socket = bind_datagram(self.endpoint, name=self.name, unix_mode=self._mode, unix_group=self._group)
        self.socket.setblocking(False)  # noqa: FBT003 - the standard library's signature
        for option in (_SO_RCVBUFFORCE, socket.SO_RCVBUF):  # the first one only with CAP_NET_ADMIN
            try:
                self.socket.setsockopt(socket.SOL_SOCKET, option, self._receive_buffer)
                break
            except OSError:
                continue
        self._serving[self._key] = self
        self._buffer = memoryview(bytearray(self._limit))
        asyncio.get_running_loop().add_reader(self.socket.fileno(), self.read)

    def shutdown(self) -> None:
        """Stop listening, having taken what has arrived; what a successor reads is left to it."""
        sock = self.socket
        if sock is None:
            return
        asyncio.get_running_loop().remove_reader(sock.fileno())
        if self._serving.get(self._key) is self:
            before, self._before = self._before, None
            if before is not None and before.socket is not None:  # a reload that failed: it goes on
                self._serving[self._key] = before
            else:
                del self._serving[self._key]
                if self.endpoint.unix:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(self.endpoint.unix)  # noqa: PTH108 - beside the bind that made it
                self.read(DRAIN)
        _ = self.lost
        self.socket = self._before = None
        self._buffer = memoryview(b"")
        sock.close()

    def read(self, seconds: float | None = None) -> None:
        """Take what has arrived, for a while: the loop calls again as long as there is more."""
        sock, buffer, take = self.socket, self._buffer, self._take
        limit, end, clock = len(buffer), time.monotonic() + (SLICE if seconds is None else seconds), time.monotonic
        assert sock is not None  # noqa: S101 - it is being read
        receive = sock.recv_into
        while True:
            try:
                size = receive(buffer, limit, socket.MSG_TRUNC)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.ECONNREFUSED, errno.EINTR):  # an answer of somebody's that was not taken
                    continue
                raise
            if size > limit:
                self._too_large(size)
            else:
                take(bytes(buffer[:size]))
            if clock() > end:
                return
