"""Peers written in Python, installed in separate environments with pip as configured on this machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from peers import cache

if TYPE_CHECKING:
    from pathlib import Path

SDK = "1.21.0"
"""Last version of the OpenTelemetry SDK with exporters for Jaeger (Thrift, `PostSpans`) and all formats of Zipkin."""


def old_sdk() -> Path:
    """Return a Python interpreter with the old SDK and its exporters to Jaeger and Zipkin."""

    def build(draft: Path) -> None:
        cache.run([sys.executable, "-m", "venv", draft / "venv"])
        names = ("sdk", "exporter-jaeger-thrift", "exporter-jaeger-proto-grpc", "exporter-zipkin")
        wanted = [f"opentelemetry-{name}=={SDK}" for name in names]
        pip = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        cache.run([draft / "venv/bin/python", *pip, *wanted])

    # Its scripts contain the path of the temporary folder, but only the interpreter is used, which finds its packages.
    return (
        cache.once(f"opentelemetry-sdk-{SDK}-python{sys.version_info[0]}.{sys.version_info[1]}", build)
        / "venv/bin/python"
    )
