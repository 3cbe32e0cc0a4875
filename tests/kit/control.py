"""Control sockets: asked without the agent's own client, or served from a thread beside a test."""

import asyncio
import contextlib
import json
import threading

import structlog

from otelwp_agent.service.control import Control


async def ask(path, method, target, body=b""):
    """Return the status of the answer, and what it says: JSON, or text."""
    reader, writer = await asyncio.open_unix_connection(path)
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    return status, json.loads(body) if b"application/json" in head else body.decode()


@contextlib.contextmanager
def answering(path, prepare):
    """Serve a control socket at `path` as long as the context is open; `prepare(control)` runs in its event loop."""
    ready, done = threading.Event(), []

    async def serve():
        control = Control(structlog.get_logger())
        closing = prepare(control)
        await control.listen(str(path))
        stop = asyncio.Event()
        done.append(lambda: loop.call_soon_threadsafe(stop.set))
        loop = asyncio.get_running_loop()
        ready.set()
        await stop.wait()
        await control.shutdown()
        if closing is not None:
            closing()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(60)
        yield
    finally:
        for stop in done:
            stop()
        thread.join()
