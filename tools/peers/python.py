"""Peers written in Python, installed in separate environments with pip as configured on this machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from peers import cache

if TYPE_CHECKING:
    from pathlib import Path

SDK = "1.21.0"
"""Last version of the OpenTelemetry SDK with exporters for Jaeger (Thrift, `PostSpans`) and all formats of Zipkin."""


SCHEMATHESIS = "4.32.5"
"""Version of schemathesis, which tests an HTTP API with requests that it makes from the OpenAPI document."""


def old_sdk() -> Path:
    """Return a Python interpreter with the old SDK and its exporters to Jaeger and Zipkin."""
    names = ("sdk", "exporter-jaeger-thrift", "exporter-jaeger-proto-grpc", "exporter-zipkin")
    return _environment(f"opentelemetry-sdk-{SDK}", [f"opentelemetry-{name}=={SDK}" for name in names])


def schemathesis() -> Path:
    """Return a Python interpreter with schemathesis: run it with `-m schemathesis.cli`."""
    return _environment(f"schemathesis-{SCHEMATHESIS}", [f"schemathesis=={SCHEMATHESIS}"])


def _environment(name: str, wanted: list[str]) -> Path:
    """Return the interpreter of an environment with the `wanted` packages."""

    def build(draft: Path) -> None:
        cache.run([sys.executable, "-m", "venv", draft / "venv"])
        pip = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        cache.run([draft / "venv/bin/python", *pip, *wanted])

    # Its scripts contain the path of the temporary folder, but only the interpreter is used, which finds its packages.
    folder = cache.once(f"{name}-python{sys.version_info[0]}.{sys.version_info[1]}", build)
    return folder / "venv/bin/python"
