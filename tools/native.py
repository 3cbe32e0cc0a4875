"""Compile the extension module with every warning as an error; with `--fuzz`, fuzz it under GCC's sanitizers.

Run by `make check` and `make fuzz`, the latter with arguments for benchmarks/fuzz/fuzz_traces.py. Where there is no
compiler, or what else it takes, this says so and is content: nobody needs the extension module.
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
    """What it takes is not there; says what."""


def compiler() -> list[str]:
    """Return the command that compiles C: that in `CC`, else the first that is there."""
    wanted = shlex.split(os.environ.get("CC", ""))
    for command in [wanted] if wanted else [["cc"], ["gcc"], ["clang"]]:
        if shutil.which(command[0]):
            return command
    raise SkippedError("there is no C compiler")


def includes() -> list[str]:
    """Return the arguments that find Python's headers, whose own warnings are not ours."""
    folder = sysconfig.get_path("include")
    if not (Path(folder) / "Python.h").exists():
        raise SkippedError("Python's headers are not there")
    return ["-isystem", folder]


def sources() -> list[str]:
    """Return what is compiled."""
    return [str(path) for path in sorted((ROOT / SOURCES).glob("*.c"))]


def check() -> int:
    """Compile everything, to nowhere; return the exit status."""
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
            "ASAN_OPTIONS": "detect_leaks=0",  # Python leaves to the end of the process what lives as long
            "PYTHONMALLOC": "malloc",  # so that each `bytes` lies alone, with a fence behind it
            "OTELWP_PURE_PYTHON": "1",
            "OTELWP_FUZZ_NATIVE": str(library),
        }
        command = [sys.executable, str(ROOT / FUZZ_TARGET), *arguments]
        return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603


def _runtime() -> str:
    """Return where AddressSanitizer's library is, which has to be in a process from its beginning."""
    command = [*compiler(), "-print-file-name=libasan.so"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603
    if not Path(found).is_absolute():
        raise SkippedError("the compiler has no AddressSanitizer that can be preloaded")
    return found


def main(arguments: Sequence[str]) -> int:
    """Do what is asked for; return the exit status."""
    try:
        return fuzz(arguments[1:]) if arguments[:1] == ["--fuzz"] else check()
    except SkippedError as error:
        print(f"{SOURCES}: skipped, {error}")
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
