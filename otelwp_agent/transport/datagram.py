"""Receive datagrams on a unix socket (with file mode and group) or over UDP.

`DatagramSocket` reads into one buffer. Each time the socket is readable, it reads some datagrams and passes each to
`take`. If a socket of the same component already serves the address in this process, the new one shares it, so that a
reload loses no datagram.
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
"""Seconds to read datagrams before the event loop handles other events."""
DRAIN = 1.0
"""Maximum number of seconds at shutdown to read datagrams that the kernel still holds."""

_SO_RCVBUFFORCE = 33
_SO_MEMINFO = 55
_MEMINFO_DROPS = 8
"""Linux constants: asm-generic/socket.h, and the index of the drop counter in SK_MEMINFO_VARS of linux/sock_diag.h."""
_MEMINFO = struct.Struct("9I")


class DatagramSocket:
    """Passes each datagram that arrives on `endpoint` to `take`, and the size of each one above `limit` to `too_large`.

    `name` is the component's name, for messages. `receive_buffer` is the size of the kernel's receive buffer to
    request; `receive_buffer_size` is the size that the kernel allows.
    """

    _serving: dict[str, DatagramSocket] = {}  # noqa: RUF012 - by address, for the whole process, on purpose

    def __init__(  # noqa: PLR0913 - the address and the two callbacks
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
        """The socket while it is open."""
        self._before: DatagramSocket | None = None
        self._lost = 0

    @property
    def port(self) -> int:
        """The bound port; 0 on a unix socket or before `start`."""
        return 0 if self.socket is None or self.endpoint.unix else int(self.socket.getsockname()[1])

    @property
    def address(self) -> str:
        """The address in readable form."""
        return address_of(self.endpoint, self.port)

    @property
    def receive_buffer_size(self) -> int:
        """Size of the kernel's receive buffer in bytes, including the kernel's own data."""
        return 0 if self.socket is None else self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    @property
    def lost(self) -> int:
        """Number of datagrams that the kernel has dropped because its buffer was full, since `start`. Only for UDP.

        A unix socket drops none: if its buffer is full, the sender waits or gets the error EAGAIN.
        """
        if self.socket is not None:
            with contextlib.suppress(OSError, struct.error):
                memory = self.socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
                self._lost = _MEMINFO.unpack(memory)[_MEMINFO_DROPS]
        return self._lost

    def start(self) -> None:
        """Bind the socket and start to read; raise `StartError` and leave nothing open."""
        before = self._serving.get(self._key)
        if before is not None and before.socket is not None:
            if before.name != self.name:
                raise StartError(
                    f"{self.name}: cannot listen on {self.endpoint}: {before.name} already does; change one endpoint"
                )
            self.socket = before.socket.dup()
            self._before = before
        else:
            self.socket = bind_datagram(self.endpoint, name=self.name, unix_mode=self._mode, unix_group=self._group)
        self.socket.setblocking(False)  # noqa: FBT003 - the standard library's signature
        for option in (_SO_RCVBUFFORCE, socket.SO_RCVBUF):  # the first option needs CAP_NET_ADMIN
            try:
                self.socket.setsockopt(socket.SOL_SOCKET, option, self._receive_buffer)
                break
            except OSError:
                continue
        self._serving[self._key] = self
        self._buffer = memoryview(bytearray(self._limit))
        asyncio.get_running_loop().add_reader(self.socket.fileno(), self.read)

    def shutdown(self) -> None:
        """Read what has already arrived and close the socket; a successor reads the rest."""
        sock = self.socket
        if sock is None:
            return
        asyncio.get_running_loop().remove_reader(sock.fileno())
        if self._serving.get(self._key) is self:
            before, self._before = self._before, None
            if before is not None and before.socket is not None:  # a reload failed: the previous socket stays in use
                self._serving[self._key] = before
            else:
                del self._serving[self._key]
                if self.endpoint.unix:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(self.endpoint.unix)  # noqa: PTH108 - same style as bind
                self.read(DRAIN)
        _ = self.lost
        self.socket = self._before = None
        self._buffer = memoryview(b"")
        sock.close()

    def read(self, seconds: float | None = None) -> None:
        """Read the datagrams that have arrived, for at most `seconds`.

        If there are more, the event loop calls it again.
        """
        sock, buffer, take = self.socket, self._buffer, self._take
        limit, end, clock = len(buffer), time.monotonic() + (SLICE if seconds is None else seconds), time.monotonic
        assert sock is not None  # noqa: S101 - called only while the socket is open
        receive = sock.recv_into
        while True:
            try:
                size = receive(buffer, limit, socket.MSG_TRUNC)
            except BlockingIOError:
                return
            except OSError as error:
                # an ICMP error for a datagram sent earlier, or a signal
                if error.errno in (errno.ECONNREFUSED, errno.EINTR):
                    continue
                raise
            if size > limit:
                self._too_large(size)
            else:
                take(bytes(buffer[:size]))
            if clock() > end:
                return
