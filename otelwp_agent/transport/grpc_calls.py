"""Limit the calls of a gRPC server and the memory of their unfinished messages.

grpcio buffers a message until it is complete and does not report how much of it has arrived. The memory is therefore
estimated. While messages are late, the growth of the process's resident memory since the first of them began, minus the
growth of the other receivers' reservations, is reserved in the budget of the process (`InFlight`). Messages stored in
memory that the process had already free do not count, because they do not make it larger.

Above the soft limit, new calls wait before grpcio reads their message; a sender can then fill at most the stream's
first flow-control window (64 KiB). Above the hard limit, new calls and the oldest late ones are refused.

Invariant: `reserved` is the part of `in_flight.used` that is reserved for messages that have not arrived.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING
from urllib.parse import unquote

from otelwp_agent.errors import ConsumeError, Overloaded, RetryableError
from otelwp_agent.limiting.addresses import peer_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.config import blocks
    from otelwp_agent.transport.grpc_runtime import aio
    from otelwp_agent.transport.in_flight import InFlight

LATE = 0.02
"""Seconds after which an incomplete message is late. On a local network, small messages arrive sooner."""
SWEEP = 0.02
"""Seconds between two checks of the calls whose message has not arrived; at 1 GB/s, 20 MB arrive between two checks."""
PATIENCE = 0.25
"""Seconds for which late messages may keep the budget above its soft limit, which pauses all other senders."""
RETRY_AFTER = 1.0
"""Seconds after which a refused sender should try again."""


class Call:
    """A call whose message is arriving. `error` is set once the call has been refused."""

    __slots__ = ("began", "context", "error", "peer")

    def __init__(self, context: aio.ServicerContext[bytes, bytes], peer: str, began: float) -> None:
        self.context = context
        self.peer = peer
        self.began = began
        self.error: ConsumeError | None = None


class Calls:
    """The calls of one listener. Use it only from the event loop's thread.

    `refuse` answers a call with an error; `resident` returns the resident memory of the process in bytes; `clock`
    returns seconds.
    """

    def __init__(
        self,
        settings: blocks.GrpcServer,
        in_flight: InFlight,
        refuse: Callable[[Call, ConsumeError], object],
        *,
        resident: Callable[[], int],
        clock: Callable[[], float],
    ) -> None:
        self.in_flight = in_flight
        self.reserved = 0
        self.per_peer: dict[str, int] = {}
        """Number of calls in progress by address, if `max_concurrent_streams_per_peer` limits them."""
        self._max_message = settings.max_recv_msg_size_mib * 2**20
        self._max_per_peer = 0 if settings.endpoint.unix else settings.max_concurrent_streams_per_peer
        self._timeout = settings.read_timeout or math.inf
        self._refuse = refuse
        self._resident = resident
        self._clock = clock
        self._arriving: dict[Call, None] = {}  # oldest first
        self._paused: set[asyncio.Future[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._base = 0  # resident memory minus the reservations of others, at a time when no message was late
        self._above_since = math.inf

    def begin(self, context: aio.ServicerContext[bytes, bytes]) -> Call:
        """Count a call before its message is read; raise `Overloaded` if it must be refused."""
        if self.in_flight.above_hard:
            raise _crowded("too many bytes of requests are in flight")
        peer = ""
        if self._max_per_peer:
            peer = address(context.peer())
            count = self.per_peer.get(peer, 0)
            if count >= self._max_per_peer:
                raise Overloaded(
                    f"{count} calls from {peer} are in progress; max_concurrent_streams_per_peer allows no more",
                    retry_after=RETRY_AFTER,
                    reason="streams_per_peer",
                )
            self.per_peer[peer] = count + 1
        call = Call(context, peer, self._clock())
        self._arriving[call] = None
        if self._timer is None:
            self._measure()
            self._timer = asyncio.get_running_loop().call_later(SWEEP, self._look)
        return call

    async def pause(self, call: Call) -> None:
        """Wait while the budget is above its soft limit. Afterwards the call may have been refused."""
        while self.in_flight.above_soft and call.error is None:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._paused.add(future)
            try:
                await future
            finally:
                self._paused.discard(future)

    def arrived(self, call: Call) -> None:
        """Stop watching a call: its message is complete, or its sender has disconnected."""
        self._arriving.pop(call, None)

    def end(self, call: Call) -> None:
        """Remove a finished call."""
        self.arrived(call)
        if call.peer:
            count = self.per_peer[call.peer] - 1
            if count:
                self.per_peer[call.peer] = count
            else:
                del self.per_peer[call.peer]

    def stop(self) -> None:
        """Stop watching the calls and release the reserved bytes."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._reserve(0)

    def sweep(self) -> None:
        """Reserve the estimated memory of late messages; refuse messages that exceed the time limit or the budget."""
        now = self._clock()
        late = [call for call in self._arriving if now - call.began >= LATE]
        if not late:
            self._reserve(0)
            self._measure()
        else:
            growth = self._resident() - self._base - (self.in_flight.used - self.reserved)
            self._reserve(min(max(0, growth), len(late) * self._max_message))
            count = self._excess(now, len(late))
            for call in late[:count]:
                self._end(
                    call, _crowded("the message arrived too slowly while too many bytes of requests were in flight")
                )
            for call in late[count:]:
                if now - call.began < self._timeout:
                    break
                message = f"the message did not arrive within read_timeout ({self._timeout:g} s)"
                self._end(call, RetryableError(message, reason="timeout"))
        for future in self._paused:
            if not future.done():
                future.set_result(None)

    def _look(self) -> None:
        self._timer = None
        self.sweep()
        if self._arriving:
            self._timer = asyncio.get_running_loop().call_later(SWEEP, self._look)

    def _excess(self, now: float, late: int) -> int:
        """Return how many of the `late` calls to refuse, if they share the reserved bytes equally."""
        budget = self.in_flight
        self._above_since = min(self._above_since, now) if budget.above_soft else math.inf
        limit = budget.soft if now - self._above_since >= PATIENCE else budget.hard
        excess = min(budget.used - limit, self.reserved)
        return math.ceil(excess * late / self.reserved) if excess > 0 else 0

    def _end(self, call: Call, error: ConsumeError) -> None:
        call.error = error
        self.arrived(call)
        self._refuse(call, error)

    def _measure(self) -> None:
        self._base = self._resident() - (self.in_flight.used - self.reserved)

    def _reserve(self, size: int) -> None:
        self.in_flight.reserve(size - self.reserved)
        self.reserved = size


def host_of(peer: str) -> str:
    """Return the IP address in a peer string of grpcio; "" if there is none (a unix socket)."""
    family, _, rest = peer.partition(":")
    if family == "ipv4":
        return rest.rpartition(":")[0]
    return unquote(rest.rpartition(":")[0])[1:-1] if family == "ipv6" else ""


def address(peer: str) -> str:
    """Return the IP address in a peer string of grpcio, or the /64 network of an IPv6 address.

    One client usually has the whole /64 network.
    `ipv4:192.0.2.1:55000` becomes `192.0.2.1`, `ipv6:%5B2001:db8::1%5D:55000` becomes `2001:db8::/64`; any other string
    is returned unchanged.
    """
    family, _, rest = peer.partition(":")
    if family == "ipv4":
        return rest.rpartition(":")[0]
    if family == "ipv6":
        number, _, _ = rest.removeprefix("%5B").partition("%")
        return peer_key(number)
    return peer


def _crowded(message: str) -> Overloaded:
    return Overloaded(message, retry_after=RETRY_AFTER, reason="in_flight")
