"""Keep what was built under a name that tells its version; build it once, whoever asks first."""

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
"""Seconds that one command may take: the largest peer builds within a quarter of that on two idle cores."""


BUILD = "OTELWP_PEERS_BUILD"
"""`no` in this variable: take what is in the cache, and get nothing. `make interop` gets peers before its tests."""


class Missing(Exception):  # noqa: N818 - it is a state, not a fault: who asked for the peer does without
    """A peer cannot be had here; the message says what is missing."""


def folder() -> Path:
    """Return where peers are kept: `OTELWP_CACHE`, or `otelwp-agent` in the user's cache folder."""
    own = os.environ.get("OTELWP_CACHE")
    if own:
        return Path(own).resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "otelwp-agent"


def once(name: str, build: Callable[[Path], None]) -> Path:
    """Return the folder `name` of the cache, which `build` has filled: now, if it was not there.

    `build` writes to a draft, which gets its name when it is complete. Processes that ask for the same at once wait for
    the first. An attempt that failed leaves nothing but the reason.
    """
    kept = folder() / "peers" / name
    if kept.is_dir():
        return kept
    reason = kept.parent / f".{name}.missing"
    if os.environ.get(BUILD) == "no":
        why = reason.read_text("utf-8") if reason.exists() else "nobody asked for it: `make interop PEERS=…` does"
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
    """Run a command to its end and return what it printed; raise `Missing` if it is not there or fails."""
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
    return " ".join(map(str, command[:3])) + (" …" if len(command) > 3 else "")  # noqa: PLR2004 - enough to know it by
