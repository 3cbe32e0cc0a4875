"""Compile the extension module with every warning as an error; with `--fuzz`, fuzz it under GCC's sanitizers.

Run by `make check` and by `make fuzz`, which passes arguments for benchmarks/fuzz/fuzz_traces.py. If there is no
compiler or another requirement is missing, this prints the reason and succeeds, because the extension module is
optional.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[1]
SOURCES = Path("otelwp_agent/model/native")
FUZZ_TARGET = Path("benchmarks/fuzz/fuzz_traces.py")

STRICT = ("-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Wno-sign-conversion", "-Werror", "-fsyntax-only")
SANITIZED = (
    "-std=c11", "-O1", "-g", "-fno-omit-frame-pointer", "-shared", "-fPIC",
    "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
)  # fmt: skip


class SkippedError(Exception):
    """A requirement is missing; the message names it."""


def compiler() -> list[str]:
    """Return the command that compiles C: the one in `CC`, else the first that is installed."""
    wanted = shlex.split(os.environ.get("CC", ""))
    for command in [wanted] if wanted else [["cc"], ["gcc"], ["clang"]]:
        if shutil.which(command[0]):
            return command
    raise SkippedError("there is no C compiler")


def includes() -> list[str]:
    """Return the arguments for the path of Python's headers; warnings in these headers are suppressed."""
    folder = sysconfig.get_path("include")
    if not (Path(folder) / "Python.h").exists():
        raise SkippedError("Python's headers are not installed")
    return ["-isystem", folder]


def sources() -> list[str]:
    """Return the source files to compile."""
    return [str(path) for path in sorted((ROOT / SOURCES).glob("*.c"))]


def check() -> int:
    """Compile all sources without output; return the exit status."""
    return subprocess.run([*compiler(), *STRICT, *includes(), *sources()], check=False).returncode  # noqa: S603


def fuzz(arguments: Sequence[str]) -> int:
    """Run the fuzz target on a module with sanitizers; return the exit status."""
    runtime = _runtime()
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "_native.abi3.so"
        subprocess.run([*compiler(), *SANITIZED, *includes(), *sources(), "-o", library], check=True)  # noqa: S603
        environment = {
            **os.environ,
            "LD_PRELOAD": runtime,
            "ASAN_OPTIONS": "detect_leaks=0",  # Python does not free objects that exist until the process ends
            "PYTHONMALLOC": "malloc",  # so that each `bytes` is a separate block with a guard after it
            "OTELWP_PURE_PYTHON": "1",
            "OTELWP_FUZZ_NATIVE": str(library),
        }
        command = [sys.executable, str(ROOT / FUZZ_TARGET), *arguments]
        return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603


def _runtime() -> str:
    """Return the path of AddressSanitizer's library, which must be preloaded into a process."""
    command = [*compiler(), "-print-file-name=libasan.so"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603
    if not Path(found).is_absolute():
        raise SkippedError("the compiler has no AddressSanitizer that can be preloaded")
    return found


def main(arguments: Sequence[str]) -> int:
    """Run the check, or the fuzz target with `--fuzz`; return the exit status."""
    try:
        return fuzz(arguments[1:]) if arguments[:1] == ["--fuzz"] else check()
    except SkippedError as error:
        print(f"{SOURCES}: skipped, {error}")
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
