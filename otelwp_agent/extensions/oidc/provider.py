"""Keep the public keys of one issuer up to date in the background.

Invariants:

* `find` does no I/O, and starts at most one fetch in `UNKNOWN_EVERY` seconds, whatever the tokens are.
* A failed fetch changes no key. Keys are dropped only by a successful fetch, or when they are older than
  `keys_max_age`.
* `changed` is called whenever a key was removed or replaced, so that earlier answers are not used any more.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from otelwp_agent.errors import ConsumeError, MalformedError, RetryableError, StartError
from otelwp_agent.extensions.oidc.keys import NO_KEYS, KeySet, parse_key_set
from otelwp_agent.extensions.oidc.settings import url_problem
from otelwp_agent.telemetry.tasks import spawn
from otelwp_agent.transport.documents import Documents
from otelwp_agent.transport.watched_file import WatchedFile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

    from otelwp_agent.component import Context
    from otelwp_agent.extensions.oidc.settings import OidcProviderSettings

UNKNOWN_EVERY = 10.0
"""Seconds between two fetches because of an unknown key id, at least."""
FIRST_RETRY, LONGEST_RETRY = 1.0, 30.0
"""Seconds to wait after the first failed fetch, and at most; the wait doubles with each failure."""
RETRY_AFTER = 1.0
"""Seconds after which a client may send a request again that needs keys that are being fetched."""
DISCOVERY = "/.well-known/openid-configuration"
"""Path of the discovery document below the issuer (OpenID Connect Discovery 1.0, 4)."""


@dataclass(frozen=True, slots=True)
class FetchTimes:
    """Times of the fetches of keys, in seconds."""

    interval: float
    """Between two fetches."""
    max_age: float
    """After which keys are dropped that could not be fetched again."""
    timeout: float
    """Maximum of one request."""


class IssuerKeys:
    """The keys of one issuer, fetched from it or read from a file."""

    def __init__(
        self,
        settings: OidcProviderSettings,
        times: FetchTimes,
        context: Context,
        *,
        changed: Callable[[], None],
        failed: Callable[[], None],
    ) -> None:
        """Copy the settings; `changed` is called when a key is no longer valid, `failed` after a failed fetch."""
        self.settings = settings
        self.problem = "the keys were not fetched yet"
        """Why the keys are not up to date, or ""."""
        self._name = f"{context.kind.value}/{context.id}"
        self._log = context.log.bind(issuer=settings.issuer_url)
        self._clock = context.clock
        self._interval = times.interval
        self._max_age = times.max_age
        self._changed = changed
        self._failed = failed
        self._documents: Documents | None = None
        self._file: WatchedFile | None = None
        if settings.public_keys_file:
            self._file = WatchedFile(settings.public_keys_file, self._use_file, name=self._name, log=self._log)
        else:
            self._documents = Documents(settings.issuer_ca_path, times.timeout, name=self._name, log=self._log)
        self._keys = NO_KEYS
        self._fetched = -math.inf
        self._asked = -math.inf
        self._wanted = asyncio.Event()
        self._fetching = False
        self._expiry: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the file and certificates, and start to fetch; raise `StartError`. It does not wait for the keys."""
        if self._file is not None:
            self._file.start()
        if self._documents is not None:
            await self._documents.prepare(self.settings.issuer_url)
            self._fetching = True  # from now on: the task has not begun yet
            self._task = spawn(self._run(self._documents), name=f"{self._name}: fetch keys")

    async def stop(self) -> None:
        """Stop fetching, and close all connections."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        if self._expiry is not None:
            self._expiry.cancel()
        if self._file is not None:
            self._file.stop()
        if self._documents is not None:
            await self._documents.aclose()

    def refresh(self) -> None:
        """Read the file or the certificates again, and fetch the keys; raise `StartError`."""
        if self._file is not None:
            self._file.read()
        if self._documents is not None:
            self._documents.reload_tls()
            self._wanted.set()

    @property
    def count(self) -> int:
        """Number of key ids."""
        return len(self._keys.ids)

    @property
    def age(self) -> float:
        """Seconds since the last successful fetch; 0 for a file, `nan` before the first fetch."""
        if self._file is not None:
            return 0.0
        return self._clock() - self._fetched if math.isfinite(self._fetched) else math.nan

    @property
    def reason(self) -> str:
        """Why the keys are not up to date, or ""."""
        return self.problem if self._file is None else self._file.problem

    def find(self, kid: str, algorithm: str) -> PublicKeyTypes | None:
        """Return a key for an algorithm, `None` if the issuer has none; raise `RetryableError` if that is not known.

        An id that is not known makes the background task fetch the keys.
        """
        key = self._keys.get(kid, algorithm)
        if key is not None or self._file is not None or kid in self._keys.ids:
            return key
        now = self._clock()
        if now - self._asked >= UNKNOWN_EVERY:
            self._asked = now
            self._wanted.set()
        if self._fetching or self._wanted.is_set():
            raise RetryableError("keys are being fetched", retry_after=RETRY_AFTER, reason="keys_pending")
        if self.problem:
            raise RetryableError("keys cannot be fetched now", retry_after=FIRST_RETRY, reason="keys_unavailable")
        return None

    async def _run(self, documents: Documents) -> None:
        """Fetch the keys regularly, and when an unknown one is wanted."""
        retry = FIRST_RETRY
        while True:
            self._wanted.clear()
            self._fetching = True
            try:
                keys = await self._fetch(documents)
            except (ConsumeError, StartError) as error:
                self._report(str(error))
                wait, retry = min(retry, self._interval), min(2 * retry, LONGEST_RETRY)
            else:
                self._succeeded(keys)
                wait, retry = self._interval, FIRST_RETRY
            finally:
                self._fetching = False
            try:
                async with asyncio.timeout(wait):
                    await self._wanted.wait()
            except TimeoutError:
                continue

    async def _fetch(self, documents: Documents) -> KeySet:
        """Return the keys that the issuer publishes now."""
        issuer = self.settings.issuer_url
        try:
            url = _keys_url(await documents.get(issuer.rstrip("/") + DISCOVERY), issuer)
        except (ConsumeError, ValueError) as error:
            raise MalformedError(f"discovery document: {error}") from error
        try:
            return parse_key_set(await documents.get(url))
        except (ConsumeError, ValueError) as error:
            raise MalformedError(f"keys at {url}: {error}") from error

    def _succeeded(self, keys: KeySet) -> None:
        self._fetched = self._clock()
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = asyncio.get_running_loop().call_later(self._max_age, self._expire)
        if self.problem:
            self._log.info("keys fetched", keys=len(keys.ids), ignored=keys.ignored)
        self.problem = ""
        self._use(keys)

    def _report(self, problem: str) -> None:
        """Count a failed fetch, and log it if it is not the same as before."""
        self._failed()
        if problem != self.problem:
            self._log.warning("keys not fetched; known keys stay in use", error=problem, keys=self.count)
        self.problem = problem

    def _use_file(self, content: str) -> Mapping[str, object]:
        keys = parse_key_set(content)
        self._use(keys)
        return {"keys": len(keys.ids), "ignored": keys.ignored}

    def _use(self, keys: KeySet) -> None:
        """Use these keys from now on."""
        old, self._keys = self._keys, keys
        if not keys.has_all_of(old):
            self._changed()
        if old is not NO_KEYS and keys.ids != old.ids:
            added, removed = len(keys.ids - old.ids), len(old.ids - keys.ids)
            self._log.info("keys changed", added=added, removed=removed, ignored=keys.ignored)

    def _expire(self) -> None:
        """Drop the keys: they are older than `keys_max_age`."""
        self._log.error("keys are too old; tokens of the issuer are refused until keys are fetched", error=self.problem)
        self.problem = self.problem or "the keys are too old"
        self._keys = NO_KEYS
        self._changed()


def _keys_url(document: bytes, issuer: str) -> str:
    """Return the URL of the keys in a discovery document; raise `MalformedError`."""
    try:
        found = orjson.loads(document)
    except orjson.JSONDecodeError as error:
        raise MalformedError(f"it is not JSON: {error.msg}") from None
    if not isinstance(found, dict):
        raise MalformedError("it is not a JSON object")
    if found.get("issuer") != issuer:
        raise MalformedError("its `issuer` is not the configured `issuer_url`: both must be equal")
    url = found.get("jwks_uri")
    if not isinstance(url, str):
        raise MalformedError("it has no `jwks_uri`")
    if problem := url_problem(url):
        raise MalformedError(f"`jwks_uri`: {problem}")
    return url
