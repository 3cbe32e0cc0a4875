"""Keys of a recipient of envelopes, and a server on loopback that publishes their signed set."""

import asyncio
import contextlib
import time

from otelwp_agent.licensing.signatures import generate_key, public_text
from otelwp_agent.sealing.key_ring import KeyRing
from otelwp_agent.sealing.key_set import sign_key_set
from otelwp_agent.sealing.rotation import key_set_of, new_key, rotate
from otelwp_agent.sealing.suites import SealingSuite

SIGNER = generate_key()
"""The key that signs all sets, so that tests need not generate one."""


class Owner:
    """The owner of private keys, which are replaced with `rotate`."""

    def __init__(self, *suites, now=None, signer=SIGNER):
        self.signer, self.version = signer, 1
        self.keys = [new_key(suite, now or time.time()) for suite in suites or [SealingSuite.X25519]]

    @property
    def public_keys(self):
        return [public_text(self.signer)]

    @property
    def ring(self):
        return KeyRing(self.keys)

    def key_set(self, **changes):
        """Return the signed set; `changes` replace its version or signer."""
        found = key_set_of(changes.get("version", self.version), self.keys, time.time())
        return sign_key_set(found, changes.get("signer", self.signer))

    def rotate(self, overlap=3600.0, suite=SealingSuite.X25519):
        """Replace the keys of the suite; the new one may be used at once."""
        now = time.time()
        self.version += 1
        self.keys = rotate(self.keys, new_key(suite, now), now, overlap)
        return self.keys[-1]


class Publisher:
    """Serves a text over HTTP. While `hangs` is set, requests are not answered."""

    def __init__(self, text):
        self.text, self.status, self.requests = text, 200, 0
        self.hangs = False
        self._writers = set()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/key-set.jws"

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_):
        self._server.close()
        while self._writers:
            writer = self._writers.pop()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, reader, writer):
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                if self.hangs:
                    await reader.read()
                    break
                body = self.text.encode()
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (self.status, len(body), body))
                await writer.drain()
        writer.close()
