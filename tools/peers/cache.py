"""Cache of built peers under names with their versions. Each is built once, also if several processes request it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PATIENCE = 1200.0
"""Timeout of one command in seconds; the largest peer takes a quarter of that on two idle cores."""


BUILD = "OTELWP_PEERS_BUILD"
"""Environment variable: with `no`, only the cache is used. `make interop` sets it for the tests."""


class Missing(Exception):  # noqa: N818 - a state, not an error: its tests are skipped
    """A peer is not available; the message says what is missing."""


def folder() -> Path:
    """Return the folder of the cache: `OTELWP_CACHE`, or `otelwp-agent` in the user's cache folder."""
    own = os.environ.get("OTELWP_CACHE")
    if own:
        return Path(own).resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "otelwp-agent"


def once(name: str, build: Callable[[Path], None]) -> Path:
    """Return the folder `name` of the cache; call `build` to fill it if it does not exist.

    `build` writes to a temporary folder, which is renamed when it is complete. If several processes need the same
    folder, the others wait for the first. A failed attempt leaves only its reason.
    """
    kept = folder() / "peers" / name
    if kept.is_dir():
        return kept
    reason = kept.parent / f".{name}.missing"
    if os.environ.get(BUILD) == "no":
        why = reason.read_text("utf-8") if reason.exists() else "get it with `make interop PEERS=…`"
        message = f"{name} is not in the cache: {why}"
        raise Missing(message)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with (kept.parent / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.is_dir():
            draft = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=kept.parent))
            try:
                build(draft)
                draft.chmod(0o755)
                draft.rename(kept)
                reason.unlink(missing_ok=True)
            except Missing as missing:
                reason.write_text(str(missing), "utf-8")
                raise
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    return kept


def run(command: Sequence[str | Path], *, where: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a command and return its output; raise `Missing` if it is not installed, fails or takes too long."""
    program = shutil.which(str(command[0]))
    if program is None:
        message = f"`{command[0]}` is not installed"
        raise Missing(message)
    try:
        done = subprocess.run(  # noqa: S603 - the commands are constants of these modules
            [program, *command[1:]],
            cwd=where,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        message = f"`{_short(command)}` took more than {PATIENCE:.0f} s"
        raise Missing(message) from None
    if done.returncode:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        message = f"`{_short(command)}` failed: {' / '.join(said[-3:])[-400:]}"
        raise Missing(message)
    return done.stdout


def _short(command: Sequence[str | Path]) -> str:
    return " ".join(map(str, command[:3])) + (" …" if len(command) > 3 else "")  # noqa: PLR2004 - enough to identify it
