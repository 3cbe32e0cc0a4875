"""Get Rotel's binary with `pip install --pre rotel`, installed once into a separate virtual environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


class NotAvailableError(Exception):
    """Rotel is not available; the message has the reason."""


def get() -> tuple[Path, str]:
    """Return the path and version of the binary; install it first if necessary."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "otelwp-agent" / "rotel"
    binary = _find(cache)
    if binary is None:
        _install(cache)
        binary = _find(cache)
    if binary is None:
        message = f"the package rotel has no binary for this platform ({sys.platform})"
        raise NotAvailableError(message)
    return binary, _version(binary)


def _find(cache: Path) -> Path | None:
    return next(iter(cache.glob("lib/python*/site-packages/rotel/rotel-agent")), None)


def _version(binary: Path) -> str:
    info = next(iter(binary.parent.parent.glob("rotel-*.dist-info")), None)
    return info.name.removesuffix(".dist-info").removeprefix("rotel-") if info else "unknown version"


def _install(cache: Path) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    for command in (
        [sys.executable, "-m", "venv", str(cache)],
        [str(cache / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", "--pre", "rotel"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            message = f"`{' '.join(command[-4:])}` failed: {(done.stderr or done.stdout).strip().splitlines()[-1:]}"
            raise NotAvailableError(message)
