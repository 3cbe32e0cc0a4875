"""Get all peers, or the named ones, and print the result: `python -m peers [NAME…]`.

Succeeds even if a peer is not available: its tests are then skipped with the same reason that is printed here.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from peers import cache, debian, golang, maven, python

if TYPE_CHECKING:
    from collections.abc import Callable

PEERS: dict[str, Callable[[], object]] = {
    "postgresql": debian.postgresql,
    "redis": debian.redis,
    "prometheus": debian.prometheus,
    "wordpress": debian.wordpress,
    "chromium": debian.chromium,
    "old-sdk": python.old_sdk,
    "schemathesis": python.schemathesis,
    "zipkin": maven.zipkin,
    "h2spec": golang.h2spec,
    "opamp-agent": golang.opamp_agent,
    "collector": golang.collector,
    "jaeger-1": golang.jaeger_1,
    "jaeger": golang.jaeger,
}
"""Peers by name, the fastest to get first."""


def main(names: list[str]) -> int:
    """Get the peers; return the exit status."""
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        print(f"unknown peer {', '.join(unknown)}; the peers are {', '.join(PEERS)}", file=sys.stderr)
        return 2
    print(f"Peers are kept in {cache.folder() / 'peers'}")
    for name in names or PEERS:
        print(f"  {name:<10}", end=" ", flush=True)
        began = time.monotonic()
        try:
            PEERS[name]()
        except cache.Missing as missing:
            print(f"not available: {missing}")
        else:
            took = time.monotonic() - began
            print("ready" if took < 1 else f"ready, after {took:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
