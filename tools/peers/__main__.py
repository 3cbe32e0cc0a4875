"""Get every peer, or those that are named, and show what came of it: `python -m peers [NAME…]`.

Always ends well: where a peer cannot be had its tests skip themselves, for the same reason that is shown here.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from peers import cache, debian, golang, maven, python

if TYPE_CHECKING:
    from collections.abc import Callable

PEERS: dict[str, Callable[[], object]] = {
    "wordpress": debian.wordpress,
    "old-sdk": python.old_sdk,
    "zipkin": maven.zipkin,
    "collector": golang.collector,
    "jaeger-1": golang.jaeger_1,
    "jaeger": golang.jaeger,
}
"""The quick ones first."""


def main(names: list[str]) -> int:
    """Get the peers; return the exit status."""
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        print(f"no peer is called {', '.join(unknown)}; there are {', '.join(PEERS)}", file=sys.stderr)
        return 2
    print(f"Peers are kept in {cache.folder() / 'peers'}")
    for name in names or PEERS:
        print(f"  {name:<10}", end=" ", flush=True)
        began = time.monotonic()
        try:
            PEERS[name]()
        except cache.Missing as missing:
            print(f"cannot be had: {missing}")
        else:
            took = time.monotonic() - began
            print("ready" if took < 1 else f"ready, after {took:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
