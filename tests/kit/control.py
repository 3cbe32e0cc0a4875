"""Ask a control socket, without the agent's own client."""

import asyncio
import json


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
