"""Send the batches of one signal to a group of backends: divide each batch, and give each backend a queue of its own.

Each backend has an ordinary `Sender`. A backend gets no batches while its circuit breaker is open; when the breaker may
let a probe through, the next batch is the probe. What waits for a backend that is unavailable, or that is no longer in
the group, moves to the others as far as their queues have capacity. If no other backend is available, it stays.

Invariants:

* A batch is accepted by all backends that get a part of it, or refused as a whole.
* A batch is in the queue of one backend at a time. While an attempt to send it is under way it does not move, so it is
  sent twice only if an attempt fails whose data have arrived, as with any retry.
* A sender of a former backend is closed when it holds nothing.
"""

from __future__ import annotations

import asyncio
import random as chance
from functools import partial
from typing import TYPE_CHECKING, Any

from otelwp_agent.capacity import Capacity
from otelwp_agent.component import ComponentHealth, Kind
from otelwp_agent.errors import ConsumeError, Overloaded
from otelwp_agent.model.ledger_report import LedgerLine
from otelwp_agent.model.receipt import DEAD_LETTER
from otelwp_agent.routing.outlets import Move
from otelwp_agent.sending.breaker import State
from otelwp_agent.sending.metrics import INSTRUMENTS, breaker_of
from otelwp_agent.sending.sender import Drained, Sender, SignalSender
from otelwp_agent.telemetry.metrics import Instrument
from otelwp_agent.telemetry.tasks import spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelwp_agent.component import Backend, BackendGroup
    from otelwp_agent.errors import RetryableError
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.model.signal import Signal
    from otelwp_agent.routing.outlets import SendWatcher
    from otelwp_agent.sending.breaker import Breaker
    from otelwp_agent.sending.delivery import DeadLetters
    from otelwp_agent.sending.queued_batch import QueuedBatch

    Parts = list[tuple[Sender, Batch]]

MOVED = Instrument(
    "otelwp_loadbalancer_moved_items",
    "Items that were queued for a backend that became unavailable, and moved to other backends.",
    labels=("exporter", "data_type"),
)
INTERVAL = 1.0
"""Seconds after which batches are offered to other backends again that these had no capacity for."""


class BalancedSender(SignalSender):
    """Sends batches of one signal to the backends of `exporter`."""

    def __init__(  # noqa: PLR0913 - parts that are shared with other senders
        self,
        exporter: BackendGroup,
        signal: Signal,
        *,
        keeps: bool = False,
        dead_letters: DeadLetters | None = None,
        breakers: dict[str, Breaker] | None = None,
        random: Callable[[], float] = chance.random,
    ) -> None:
        """Use the queue and the retries in the settings of the group; see `Sender`.

        `breakers` are those of the backends by name, shared with the group's senders of other signals.
        """
        self.exporter = self._group = exporter
        self.signal = signal
        self.breakers = {} if breakers is None else breakers
        """The circuit breakers of the backends, by name."""
        context = exporter.context
        self._clock = context.clock
        self._id = str(context.id)
        self._log = context.log.bind(data_type=signal.value)
        self._keeps = keeps
        self._dead_letters = dead_letters
        self._random = random
        self._none = Capacity(self._id, context.clock, isolate_after=exporter.settings.sending_queue.isolate_after)
        """The capacity that is missing while there is no backend."""
        self._senders: dict[str, Sender] = {}
        self._leaving: dict[str, Sender] = {}
        """Senders of former backends that still hold something."""
        self._backends: dict[str, Backend] = {}
        """The backends of all of these senders."""
        self._listeners: dict[str, Callable[[], None]] = {}
        self._closed = LedgerLine("exporter", self._id)
        """The sum of the ledgers of closed senders."""
        self._resent: dict[str, int] = {}
        """Items of dead letters that were accepted again, by reason."""
        self._watchers: dict[SendWatcher, _GroupWatcher] = {}
        self._draining = False
        self._sweep: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._moved = context.registry.counter(MOVED, exporter=self._id, data_type=signal.value)

    @property
    def headers(self) -> Sequence[str]:
        """The client headers that its exporter reads."""
        keys = self._group.settings.sending_queue.batch
        return (*self._group.headers, *([key.lower() for key in keys.partition.metadata_keys] if keys else ()))

    @property
    def holds(self) -> bool:
        """Whether it holds a batch for any backend."""
        return any(sender.holds for sender in self._all())

    @property
    def blocked_until(self) -> float:
        """Time before which no backend is sent to."""
        return min((sender.blocked_until for sender in self._senders.values()), default=float("inf"))

    @property
    def broken(self) -> bool:
        """Whether there is no backend, or attempts with all of them have failed."""
        return all(sender.broken for sender in self._senders.values())

    @property
    def backlog(self) -> int:
        """Number of batches for all backends."""
        return sum(sender.backlog for sender in self._all())

    def watch(self, watcher: SendWatcher) -> None:
        """Report the results of attempts to `watcher`, too; failures only while no backend works."""
        if watcher not in self._watchers:
            own = self._watchers[watcher] = _GroupWatcher(self, watcher)
            for sender in self._all():
                sender.watch(own)

    def unwatch(self, watcher: SendWatcher) -> None:
        """Stop reporting to `watcher`."""
        if watcher in self._watchers:
            own = self._watchers.pop(watcher)
            for sender in self._all():
                sender.unwatch(own)

    def move(self, pipeline: str, forward: Callable[[Batch], bool]) -> None:
        """Offer the waiting batches of `pipeline` to `forward`; release those for which it returns `True`."""
        for sender in self._all():
            sender.move(pipeline, forward)

    def fill(self, tenant: str) -> float:
        """Return the used share of the fullest queue of a backend that is available; 1 without backends."""
        return max((self._senders[name].fill(tenant) for name in self._available()), default=1.0)

    def admit(self) -> None:
        """Raise `Overloaded` if there is no backend, or if the queue of each one is full."""
        refusal: Overloaded | None = None
        for name in self._available():
            try:
                self._senders[name].admit()
            except Overloaded as error:
                refusal = error
            else:
                return
        raise refusal or self._no_backend()

    def refusal(self, batch: Batch) -> RetryableError | None:
        """Return why `consume` would refuse the batch now, or `None`."""
        names = self._available()
        return self._refusal(self._divide(batch, names)) if names else self._no_backend()

    def consume(self, batch: Batch) -> None:
        """Queue the parts of the batch for their backends, or raise `Overloaded`, with nothing accepted."""
        names = self._available()
        if not names:
            raise self._no_backend()
        parts = self._divide(batch, names)
        if len(parts) == 1:
            parts[0][0].consume(parts[0][1])
            return
        if not batch.admitted:
            refusal = self._refusal(parts)
            if refusal is not None:
                try:
                    raise refusal
                finally:
                    del refusal  # else this frame, with the body, and the error would hold each other
        for sender, part in parts:
            part.admitted = True
            sender.consume(part)

    def resent(self, items: int, reason: str) -> None:
        """Count the items of a dead letter of this exporter, which `consume` accepted, as in flight again."""
        reason = DEAD_LETTER + reason
        items = min(items, self.line().reasons.get(reason, 0))
        if items:
            self._resent[reason] = self._resent.get(reason, 0) + items

    def rewired(self) -> None:
        """Let every stage that waits for capacity offer again."""
        self._none.freed(progress=False)
        for sender in self._all():
            sender.rewired()

    async def start(self) -> None:
        """Start to send to the backends, and follow their changes."""
        self._group.listeners.append(self._changed)
        self._changed()

    async def drain(self, deadline: float) -> Drained:
        """Accept nothing more, send what is queued until `deadline`, abandon the rest."""
        self._draining = True
        if self._changed in self._group.listeners:
            self._group.listeners.remove(self._changed)
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        self._none.freed(progress=False)
        senders = self._all()
        results = await asyncio.gather(*(sender.drain(deadline) for sender in senders))
        await asyncio.gather(*self._closing)
        return Drained(
            sum(each.delivered for each in results),
            sum(each.left for each in results),
            sum(each.kept for each in results),
        )

    def health(self) -> ComponentHealth:
        """Return the state of the group: healthy if any backend works; the details are those of each one."""
        states = {name: sender.health() for name, sender in self._senders.items()}
        failing = [f"{name}: {state.message}" for name, state in states.items() if not state.healthy]
        message = "; ".join(failing) if states else "there is no backend"
        details: dict[str, Any] = {
            "data_type": self.signal.value,
            "backends": {name: dict(state.details) for name, state in states.items()},
            "leaving": sorted(self._leaving),
        }
        healthy = any(state.healthy for state in states.values())
        return ComponentHealth(Kind.EXPORTER, self._id, healthy, message, details)

    def line(self) -> LedgerLine:
        """Return the sum of the ledgers of all backends, former ones included."""
        line = LedgerLine("exporter", self._id)
        line.add(self._closed)
        for sender in self._all():
            line.add(sender.line())
        for reason, items in self._resent.items():
            line.accepted -= items
            line.dropped -= items
            line.reasons[reason] -= items
        return line

    def _all(self) -> list[Sender]:
        return [*self._senders.values(), *self._leaving.values()]

    def _is_usable(self, name: str) -> bool:
        """Return whether a backend is in the group, and its breaker permits an attempt."""
        if name not in self._senders:
            return False
        breaker = self.breakers[name]
        return breaker.state is State.CLOSED or (breaker.state is State.OPEN and self._clock() >= breaker.until)

    def _available(self) -> list[str]:
        """Return the names of the usable backends, or of all if none is usable: then batches wait for their own one."""
        return [name for name in self._senders if self._is_usable(name)] or [*self._senders]

    def _divide(self, batch: Batch, names: Sequence[str]) -> Parts:
        return [(self._senders[name], part) for name, part in self._group.divide(batch, names)]

    @staticmethod
    def _refusal(parts: Parts) -> RetryableError | None:
        for sender, part in parts:
            refusal = sender.refusal(part)
            if refusal is not None:
                return refusal
        return None

    def _no_backend(self) -> Overloaded:
        if self._draining:
            return Overloaded(f"{self._id} is shutting down", reason="shutting_down")
        self._none.refuse()
        return Overloaded(f"{self._id} has no backend now", reason="no_backend", capacity=self._none)

    # Changes of the group

    def _changed(self) -> None:
        """Follow a change of the group's backends."""
        backends = self._group.backends
        self._leaving |= {name: sender for name, sender in self._senders.items() if name not in backends}
        known = self._senders
        self._senders = {
            name: known.get(name) or self._leaving.pop(name, None) or self._begin(backend)
            for name, backend in backends.items()
        }
        if self._senders:
            self._none.freed(progress=False)
        if self._leaving:
            self._sweep_after(0)

    def _begin(self, backend: Backend) -> Sender:
        """Return a started sender for a backend."""
        name, settings, context = backend.name, self._group.settings, backend.exporter.context
        if name not in self.breakers:
            self.breakers[name] = breaker_of(context, settings.retry_on_failure, self._random)
        listener = self._listeners[name] = partial(self._breaker_changed, name)
        self.breakers[name].listeners.append(listener)
        backend.users += 1
        self._backends[name] = backend
        sender = Sender(
            backend.exporter,
            self.signal,
            queue=settings.sending_queue,
            retry=settings.retry_on_failure,
            timeout=settings.attempt_timeout,
            breaker=self.breakers[name],
            keeps=self._keeps,
            dead_letters=self._dead_letters,
            random=self._random,
            account=self._id,
            elsewhere=lambda entry: not self._is_usable(name) and self._move(name, entry),
        )
        for own in self._watchers.values():
            sender.watch(own)
        spawn(sender.start(), name=f"start to send {self.signal.value} to {name}")
        return sender

    def _breaker_changed(self, name: str) -> None:
        if not self._is_usable(name):
            self._sweep_after(0)

    def _move(self, name: str, entry: QueuedBatch) -> bool:
        """Put a batch that is queued for `name` into the queues of other backends; return whether it was possible."""
        names = [each for each in self._senders if each != name and self._is_usable(each)]
        if not names or self._draining:
            return False
        try:
            parts = self._divide(entry.batch, names)
        except ConsumeError:  # it is malformed, which the backend will say
            return False
        if self._refusal(parts) is not None:
            return False
        for sender, part in parts:
            sender.put_moved(part, entry.backoff)
        self._moved.add(entry.batch.items)
        return True

    def _sweep_after(self, delay: float) -> None:
        """Move what waits for backends that are not usable after `delay` seconds, or earlier if that is planned."""
        if self._draining or (self._sweep is not None and delay):
            return
        if self._sweep is not None:
            self._sweep.cancel()
        self._sweep = asyncio.get_running_loop().call_later(delay, self._move_all)

    def _move_all(self) -> None:
        """Move what waits for backends that are not usable; close the senders of former ones that hold nothing."""
        self._sweep = None
        waits = False
        for name, sender in [*self._senders.items(), *self._leaving.items()]:
            if sender.holds and not self._is_usable(name):
                sender.withdraw(partial(self._move, name))
                waits = waits or sender.holds
        for name in [name for name, sender in self._leaving.items() if not sender.holds]:
            sender, backend = self._leaving.pop(name), self._backends.pop(name)
            self._closed.add(sender.line())
            self.breakers[name].listeners.remove(self._listeners.pop(name))
            task = spawn(self._end(backend, sender), name=f"close the sender to {name}")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        if waits:
            self._sweep_after(INTERVAL)

    async def _end(self, backend: Backend, sender: Sender) -> None:
        """Close the sender of a former backend, which holds nothing; the last one closes the backend."""
        await sender.drain(self._clock())
        backend.users -= 1
        if backend.users or backend.name in self._group.backends:
            return
        del self.breakers[backend.name]
        for instrument in INSTRUMENTS:
            self._group.context.registry.remove(instrument, exporter=str(backend.exporter.context.id))
        await self._group.released(backend)


class _GroupWatcher:
    """Reports the attempts with the backends of a group as those of one exporter."""

    def __init__(self, group: BalancedSender, watcher: SendWatcher) -> None:
        """Report to `watcher`."""
        self.delivered = watcher.delivered
        self._group = group
        self._watcher = watcher

    def failed(self, batch: Batch, error: ConsumeError, pipeline: str) -> Move:
        """Report a failure if no backend works: else the group moves the batch itself."""
        return self._watcher.failed(batch, error, pipeline) if self._group.broken else Move.NONE
