"""Keep the public keys of a recipient up to date: from a URL, a file or the configuration.

Invariants:

* Only a key set with a valid signature that is not older than the known one is used. After any failure, the known keys
  stay in use until their end.
* `current` does no I/O. Without a key, it refuses: nothing is ever forwarded unencrypted.
* At most one request is under way, and it takes at most `timeout` seconds. Requests because of a refused envelope
  (`renew`) begin at most once in `RENEW_EVERY` seconds.
"""

from __future__ import annotations

import asyncio
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

from otelwp_agent.codecs.compact_jws import decode_base64url
from otelwp_agent.errors import ConsumeError, MalformedError, RetryableError, StartError
from otelwp_agent.licensing.public_keys import load_keys
from otelwp_agent.sealing.key_files import load_text
from otelwp_agent.sealing.key_set import KeySetError, SealingKeySet, verify_key_set
from otelwp_agent.sealing.recipient import Recipient
from otelwp_agent.sealing.suites import BadKeyError, SealingSuite
from otelwp_agent.storage import files
from otelwp_agent.telemetry.tasks import spawn
from otelwp_agent.transport.documents import Documents
from otelwp_agent.transport.watched_file import WatchedFile

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import structlog

    from otelwp_agent.config.recipients import RecipientsConfig

RENEW_EVERY = 5.0
"""Seconds between two requests because of refused envelopes, at least."""
FIRST_RETRY, LONGEST_RETRY = 1.0, 30.0
"""Seconds to wait after the first failed request, and at most; the wait doubles with each failure."""
RETRY_AFTER = 1.0
"""Seconds after which data may be offered again that no key could encrypt."""
ACCEPTED = "accepted"
FAILURES = ("unreachable", "malformed", "algorithm", "product", "unknown_signer", "signature", "claims", "rolled_back")
"""Results of reading a key set, beside `ACCEPTED`."""


class RecipientSource:
    """The recipient that envelopes are sealed to now."""

    def __init__(  # noqa: PLR0913 - its component's name and log, and two functions
        self,
        settings: RecipientsConfig,
        suites: Collection[SealingSuite],
        *,
        name: str,
        log: structlog.typing.FilteringBoundLogger,
        read: Callable[[str], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        """Use keys of these suites. `read(result)` counts key sets, `now` returns seconds since 1970.

        `name` is the component (`processors/encryption`) in messages.
        """
        self.problem = ""
        """Why the keys are not up to date, or ""."""
        self._settings = settings
        self._suites = frozenset(suites)
        self._name = name
        self._log = log
        self._count = read
        self._now = now
        self._key_set: SealingKeySet | None = None
        self._signers: Mapping[str, str] = {}
        self._file: WatchedFile | None = None
        self._documents: Documents | None = None
        self._task: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._fetched: asyncio.Future[None] | None = None
        self._renewed = -math.inf
        if settings.file is not None:
            self._file = WatchedFile(settings.file, self._use_file, name=name, log=log)
        elif settings.url is not None:
            self._documents = Documents(settings.ca_file or "", settings.timeout, name=name, log=log)

    async def start(self) -> None:
        """Read the keys that are on this host; raise `StartError`. It does not wait for a URL."""
        settings = self._settings
        try:
            self._signers = load_keys(settings.public_keys)
            if settings.keys:
                self._key_set = SealingKeySet(1, 0, tuple(inline_recipients(self._settings)))
        except (ValueError, BadKeyError) as error:
            message = f"{self._name}: recipients: {error}"
            raise StartError(message) from error
        if self._file is not None:
            self._file.start()
        if self._documents is not None and settings.url is not None:
            self._read_state()
            await self._documents.prepare(settings.url)
            self._task = spawn(self._run(self._documents, settings.url), name=f"{self._name}: fetch the key set")

    async def stop(self) -> None:
        """Stop fetching, and close all connections."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        if self._file is not None:
            self._file.stop()
        if self._documents is not None:
            await self._documents.aclose()

    def refresh(self) -> None:
        """Read the file or the certificates again, and fetch the key set; raise `StartError`."""
        if self._file is not None:
            self._file.read()
        if self._documents is not None:
            self._documents.reload_tls()
            self._wanted.set()

    @property
    def version(self) -> int:
        """Version of the key set in use; 0 if there is none."""
        return 0 if self._key_set is None else self._key_set.version

    @property
    def reason(self) -> str:
        """Why nothing can be encrypted, or why the keys are not up to date; "" if all is well."""
        problem = self.problem if self._file is None else self._file.problem
        if self._recipient() is None:
            return f"no key is valid now: {problem or 'the key set has none of the wanted suites that is valid'}"
        return problem

    def current(self) -> Recipient:
        """Return the key to seal to now; raise `RetryableError` if there is none."""
        found = self._recipient()
        if found is None:
            message = f"nothing can be encrypted: {self.reason}"
            raise RetryableError(message, retry_after=RETRY_AFTER, reason="no_recipient_key")
        return found

    async def renew(self) -> None:
        """Request the key set now, because the recipient refused an envelope; wait for the result. Never raises."""
        if self._documents is None or self._task is None:
            return
        moment = asyncio.get_running_loop().time()
        if self._fetched is None and moment - self._renewed < RENEW_EVERY:
            return
        if self._fetched is None:
            self._renewed = moment
            self._fetched = asyncio.get_running_loop().create_future()
            self._wanted.set()
        await asyncio.wait([self._fetched], timeout=self._settings.timeout)

    def _recipient(self) -> Recipient | None:
        return None if self._key_set is None else self._key_set.recipient(self._now(), self._suites)

    async def _run(self, documents: Documents, url: str) -> None:
        """Fetch the key set regularly, and when it is wanted."""
        retry = FIRST_RETRY
        while True:
            self._wanted.clear()
            waiting = self._fetched  # not those who ask from now on: they may know of newer keys
            try:
                async with asyncio.timeout(self._settings.timeout):
                    content = await documents.get(url)
                changed = self._accept(content.decode("utf-8", "replace"))
            except (ConsumeError, StartError, KeySetError, TimeoutError) as error:
                self._report(error)
                wait, retry = min(retry, self._settings.refresh_interval), min(2 * retry, LONGEST_RETRY)
            else:
                self._count(ACCEPTED)
                self.problem = ""
                wait, retry = self._settings.refresh_interval, FIRST_RETRY
                if changed:
                    await asyncio.to_thread(self._write_state)
            if waiting is not None:
                waiting.set_result(None)
                self._fetched = None
            try:
                async with asyncio.timeout(wait):
                    await self._wanted.wait()
            except TimeoutError:
                continue

    def _use_file(self, content: str) -> Mapping[str, object]:
        try:
            self._accept(content)
        except KeySetError as error:
            self._count(error.reason)
            raise
        self._count(ACCEPTED)
        return {"version": self.version}

    def _accept(self, text: str) -> bool:
        """Use a key set from now on if it is valid; return whether it is another one; raise `KeySetError`."""
        found = verify_key_set(text, self._signers)
        known = self._key_set
        if known is not None:
            found.check_follows(known)
            if found.version == known.version:
                return False
        self._key_set = found
        if known is not None:
            self._log.info("key set changed", version=found.version, keys=len(found.recipients))
        if self._recipient() is None:
            self._log.error("no key is valid now; nothing can be encrypted", version=found.version)
        return True

    def _report(self, error: Exception) -> None:
        """Count a failed request, and log it if it is not the same as before."""
        reason = error.reason if isinstance(error, (KeySetError, MalformedError)) else "unreachable"
        self._count(reason)
        problem = f"the key set cannot be used: {error}" if str(error) else "the key set was not answered in time"
        if problem != self.problem:
            self._log.warning("key set not refreshed; known keys stay in use", error=problem, version=self.version)
        self.problem = problem

    def _read_state(self) -> None:
        """Use the key set of the state file, if there is a valid one."""
        path = self._settings.state_file
        if path is None or not Path(path).exists():
            return
        try:
            self._accept(load_text(Path(path)))
        except ValueError as error:
            self._log.warning("state file of the key set cannot be used; it will be replaced", error=str(error))

    def _write_state(self) -> None:
        path, key_set = self._settings.state_file, self._key_set
        if path is None or key_set is None:
            return
        try:
            files.make_directory(Path(path).absolute().parent)
            files.replace_file(Path(path), key_set.text.encode())
        except OSError as error:
            self._log.warning("state file of the key set cannot be written", file=path, error=str(error))


def inline_recipients(settings: RecipientsConfig) -> list[Recipient]:
    """Return the keys of the configuration; the last one of a suite counts as the newest. Raise `BadKeyError`."""
    return [
        Recipient(key.key_id, SealingSuite[key.suite], decode_base64url(key.public_key), float(place))
        for place, key in enumerate(settings.keys)
    ]
