"""A Redis server on a real socket that answers the lease script only, with a model of it, or wrongly, or not at all."""

from __future__ import annotations

import asyncio
import math

from otelwp_agent.limiting.redis_store import SCRIPT


class Store:
    """The lease script in Python; `clock` is the time of the server."""

    def __init__(self, clock):
        self.clock = clock
        self.due = {}

    def run(self, keys, arguments):
        now, deadline = self.clock(), float(arguments[0])
        answers = [now]
        if now > deadline:
            return answers
        for index, key in enumerate(keys):
            interval, window, spent, floor, want, least = map(float, arguments[6 * index + 1 : 6 * index + 7])
            due = max(now, max(now, self.due.get(key, now + floor)) + spent * interval)
            granted = min(want, (now + window - due) / interval)
            if granted < least:
                granted = least if now + window - due > least * interval - 1e-6 else 0.0
            self.due[key] = due = due + granted * interval
            answers += [granted, due - now]
        return answers


class RedisServer:
    """`behaviour` is called with the answers of the model, and returns the bytes to send, or `None` to send none."""

    def __init__(self, clock):
        self.store = Store(clock)
        self.behaviour = encode
        self.calls = 0
        self.running = asyncio.Event()
        """While it is cleared, the server hangs: it executes commands when it is set again, as Redis does."""
        self.running.set()
        self._server = None
        self._writers = set()

    async def __aenter__(self):
        await self.start(0)
        return self

    async def __aexit__(self, *_):
        await self.stop()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self, port):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self):
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader, writer):
        self._writers.add(writer)
        try:
            while words := await self._read(reader):
                await self.running.wait()
                answer = self._answer(words)
                if answer is not None:
                    writer.write(answer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _read(self, reader):
        line = await reader.readline()
        if not line:
            return None
        words = []
        for _ in range(int(line[1:])):
            size = int((await reader.readline())[1:])
            words.append((await reader.readexactly(size + 2))[:-2].decode())
        return words

    def _answer(self, words):
        command = words[0].upper()
        if command in ("EVALSHA", "EVAL"):
            self.calls += 1
            count = int(words[2])
            return self.behaviour(self.store.run(words[3 : 3 + count], words[3 + count :]))
        if command == "SCRIPT":
            assert words[2] == SCRIPT
            return b"$40\r\n" + b"0" * 40 + b"\r\n"
        if command == "HELLO":
            return b"-ERR unknown command\r\n" if len(words) < 2 or words[1] != "3" else _hello()
        return b"+OK\r\n"


def encode(values):
    """Return the values as a Redis array of strings."""
    texts = [repr(value).encode() if not math.isnan(value) else b"nan" for value in values]
    return b"*%d\r\n" % len(texts) + b"".join(b"$%d\r\n%s\r\n" % (len(text), text) for text in texts)


def _hello():
    fields = {b"server": b"redis", b"version": b"7.0.0"}
    return (
        b"%%%d\r\n" % (len(fields) + 1)
        + b"".join(b"$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(key), key, len(value), value) for key, value in fields.items())
        + b"$5\r\nproto\r\n:3\r\n"
    )
