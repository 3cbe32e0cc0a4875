"""Lease units from Redis in the background, for rates that several replicas share.

One Lua script charges and leases for many keys in one call, with the time of the Redis server, so the clocks of the
replicas do not matter. No request waits for Redis: `SharedRates` decides with the units it has. If Redis is
unreachable, slow, or answers nonsense, each replica uses its share of the limits until Redis answers again.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

from otelwp_agent.errors import StartError
from otelwp_agent.limiting.leases import REFRESH
from otelwp_agent.telemetry.tasks import spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import structlog

    from otelwp_agent.limiting.leases import LeaseRequest, SharedRates

KEYS_PER_CALL = 500
"""Most keys of one call: the script runs for about 1 ms, in which Redis serves no other client."""
COALESCE = 0.005
"""Seconds for which an urgent call waits for further keys."""
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between attempts while Redis is unreachable."""

SCRIPT = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local answers = {string.format('%.6f', now)}
local deadline = tonumber(ARGV[1])
if now > deadline then return answers end
for i, key in ipairs(KEYS) do
  local at = (i - 1) * 6 + 1
  local interval, window = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local spent, floor = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local want, least = tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6])
  local due = tonumber(redis.call('GET', key) or '') or now + floor
  if due ~= due or due < now then due = now end
  due = math.max(now, due + spent * interval)
  local granted = math.min(want, (now + window - due) / interval)
  if granted < least then
    granted = now + window - due > least * interval - 0.000001 and least or 0
  end
  due = due + granted * interval
  redis.call('SET', key, string.format('%.17g', due), 'PX', math.ceil((due - now) * 1000) + 60000)
  answers[2 * i] = string.format('%.17g', granted)
  answers[2 * i + 1] = string.format('%.17g', due - now)
end
return answers
"""
"""For each key: charges `spent` units, and leases `want` units, or as many as there are, at least `least`, or none.

Arguments: the deadline of the call in server time, then by key: interval, window, spent, floor, want, least. Answers:
the server's time, then by key: the leased units, and the seconds by which the number is ahead of the time. After the
deadline, only the time is returned and nothing is charged. So a call has no effect that is executed late, because
Redis hung while it was sent: the replica has given it up and reports its units again.
"""


class InvalidAnswerError(Exception):
    """Redis has answered something that the script cannot have returned."""


class RedisStore:
    """The background task that leases units from Redis for some `SharedRates`."""

    def __init__(  # noqa: PLR0913 - the address, and where failures are reported
        self,
        url: str,
        prefix: str,
        timeout: float,
        *,
        clock: Callable[[], float],
        log: structlog.typing.FilteringBoundLogger,
        on_error: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        """Use the Redis at `url` for keys that begin with `prefix`; a call may take `timeout` seconds.

        `on_error` is called with the reason of each failure: connection, timeout, server (an error that Redis reports)
        or answer (nonsense).
        """
        self.connected = False
        """Whether the last call has succeeded."""
        self.failure = "not connected yet"
        """The reason why it has not."""
        self.rates: Sequence[SharedRates] = ()
        self._url = url
        self._prefix = prefix
        self._timeout = timeout
        self._clock = clock
        self._log = log
        self._on_error = on_error
        self._wake = asyncio.Event()
        self._client: Any = None
        self._script: Any = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._ahead = math.inf
        """Seconds by which the clock of Redis is ahead of `clock`, at least; infinite before the first answer."""

    def wake(self) -> None:
        """Call Redis soon: a key needs units."""
        self._wake.set()

    def start(self) -> None:
        """Start the background task; raise `StartError` if the Redis client is not installed or the URL is invalid."""
        try:
            from redis import asyncio as aioredis  # noqa: PLC0415 - an optional extra
            from redis.asyncio.retry import Retry  # noqa: PLC0415
            from redis.backoff import NoBackoff  # noqa: PLC0415
        except ImportError as error:
            raise StartError(
                "`redis` needs the Redis client: install it with `pip install otelwp-agent[redis]`"
            ) from error
        try:
            self._client = aioredis.Redis.from_url(
                self._url,
                socket_timeout=self._timeout,
                socket_connect_timeout=self._timeout,
                retry=Retry(NoBackoff(), 0),
                max_connections=1,
            )
        except ValueError as error:
            raise StartError(f"redis.url: {error}") from error
        self._script = self._client.register_script(SCRIPT)
        self._stopping = False
        self._task = spawn(self._run(), name="rate_limiter: lease units from Redis")

    async def stop(self) -> None:
        """Return the leased units if Redis answers, and disconnect."""
        task, self._task = self._task, None
        if task is None:
            return
        # The client sends with `asyncio.wait_for`, which loses a cancellation on Python 3.11 if the send just ended:
        # without the flag, the task would never end.
        self._stopping = True
        task.cancel()
        await asyncio.wait([task])
        if self.connected:
            for rates in self.rates:
                rates.release()
            await self._exchange()
        await self._client.aclose()

    async def _run(self) -> None:
        pause = SHORTEST_PAUSE
        while True:
            answers = await self._exchange()
            if self._stopping:
                return
            if answers:
                pause = SHORTEST_PAUSE
                await self._rest()
            else:
                await asyncio.sleep(pause)  # backoff: Redis is unreachable
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _rest(self) -> None:
        """Wait for the next regular call, or until a key needs units."""
        try:
            async with asyncio.timeout(REFRESH):
                await self._wake.wait()
                await asyncio.sleep(COALESCE)  # collects the keys of other requests that are being processed
        except TimeoutError:
            pass
        self._wake.clear()

    async def _exchange(self) -> bool:
        """Report and lease for all keys that need it; return whether Redis answers."""
        now = self._clock()
        asked = [(rates, request) for rates in self.rates for request in rates.requests(now, KEYS_PER_CALL)]
        done = 0
        while done < len(asked) or not self.connected:
            part = asked[done : done + KEYS_PER_CALL]
            try:
                answers = await self._call([(rates.name, request) for rates, request in part])
            except Exception as error:  # noqa: BLE001 - whatever the client raises, Redis is of no use now
                for rates, request in asked[done:]:
                    rates.failed(request)
                self._lost(error)
                return False
            now = self._clock()
            for (rates, request), (tokens, ahead) in zip(part, answers, strict=True):
                rates.granted(request, tokens, ahead, now)
            done += len(part)
            self._found()
        return True

    async def _call(self, requests: list[tuple[str, LeaseRequest]]) -> list[tuple[float, float]]:
        keys = [f"{{{self._prefix}}}:{name}:{request.key}" for name, request in requests]
        arguments: list[str] = []
        for _, each in requests:
            arguments += map(repr, (each.rate.interval, each.window, each.spent, each.floor, each.want, each.least))
        async with asyncio.timeout(self._timeout):
            answers = await self._run_script(keys, arguments)
            if keys and not answers:  # late: the clock of Redis was set forward, and is now known
                answers = await self._run_script(keys, arguments)
        return _checked(answers, [each for _, each in requests])

    async def _run_script(self, keys: list[str], arguments: list[str]) -> list[Any]:
        """Return the answers of the script, and note the server's time."""
        deadline = self._clock() + self._timeout + self._ahead
        answers = await self._script(keys=keys, args=[repr(deadline), *arguments])
        if not isinstance(answers, list) or not answers:
            raise InvalidAnswerError
        self._ahead = _number(answers[0]) - self._clock()
        return answers[1:]

    def _found(self) -> None:
        if not self.connected:
            self.connected = True
            self.failure = ""
            self._log.info("Redis answers; limits are shared")

    def _lost(self, error: Exception) -> None:
        reason = _reason(error)
        self._on_error(reason)
        for rates in self.rates:
            rates.disconnected()
        if self.connected or not self.failure or self.failure == "not connected yet":
            self._log.warning("Redis does not answer; each replica uses its share of the limits", reason=reason)
        self.connected = False
        self.failure = f"{reason}: {type(error).__name__}"


def _checked(answers: Sequence[object], requests: Sequence[LeaseRequest]) -> list[tuple[float, float]]:
    """Return (leased units, seconds ahead) for each request; raise `InvalidAnswerError` if the answers are nonsense."""
    if len(answers) != 2 * len(requests):
        raise InvalidAnswerError
    found = []
    for request, tokens, ahead in zip(requests, answers[::2], answers[1::2], strict=True):
        units, seconds = _number(tokens), _number(ahead)
        if units > request.want:
            raise InvalidAnswerError
        found.append((units, seconds))
    return found


def _number(value: Any) -> float:  # noqa: ANN401 - what Redis has answered
    """Return a number that is finite and not negative; raise `InvalidAnswerError`."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InvalidAnswerError from None
    if not 0 <= number < math.inf:
        raise InvalidAnswerError
    return number


def _reason(error: Exception) -> str:
    """Return the label of an error in metrics."""
    from redis import exceptions  # noqa: PLC0415 - an optional extra

    if isinstance(error, (TimeoutError, exceptions.TimeoutError)):
        return "timeout"
    if isinstance(error, (InvalidAnswerError, exceptions.InvalidResponse)):
        return "answer"
    if isinstance(error, (OSError, exceptions.ConnectionError)):
        return "connection"
    return "server" if isinstance(error, exceptions.RedisError) else "answer"
