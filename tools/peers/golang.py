"""Peers written in Go, built from their modules with the `go` command configured on this machine."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from peers import cache

COLLECTOR = Path(__file__).parent / "collector"
"""Folder with a `main` that uses the OpenTelemetry Collector's modules; go.mod has the versions."""

OPAMP_AGENT = Path(__file__).parent / "opamp_agent"
"""Folder with a `main` that uses opamp-go's client; go.mod has the version."""

JAEGER = "v1.76.0"
"""Module version whose `cmd/jaeger` is Jaeger 2.13; later versions are not available as a module."""

JAEGER_1 = "v1.42.0"
"""Version of Jaeger 1 that has OTLP receivers (since 1.35) and all of its own: Thrift over HTTP, `PostSpans`."""

H2SPEC = "v2.2.1+incompatible"
"""Version of h2spec, which tests an HTTP/2 server against RFC 7540."""

_JAEGER_MODULE = "github.com/jaegertracing/jaeger"


def collector() -> Path:
    """Return the binary of the OpenTelemetry Collector."""

    def build(draft: Path) -> None:
        _go("build", "-o", draft / "collector", ".", where=COLLECTOR)

    sources = b"".join((COLLECTOR / name).read_bytes() for name in ("go.mod", "go.sum", "main.go"))
    name = f"collector-{collector_version()}-{hashlib.sha256(sources).hexdigest()[:8]}"
    return cache.once(name, build) / "collector"


def collector_version() -> str:
    """Return the Collector's version from go.mod."""
    for line in (COLLECTOR / "go.mod").read_text().splitlines():
        if line.strip().startswith("go.opentelemetry.io/collector/otelcol v"):
            return line.split()[1]
    message = f"{COLLECTOR / 'go.mod'} does not require go.opentelemetry.io/collector/otelcol"
    raise LookupError(message)


def jaeger() -> Path:
    """Return the binary of Jaeger 2."""

    def build(draft: Path) -> None:
        # Not `go install`, which refuses a module whose go.mod has a `replace`.
        found = json.loads(_go("mod", "download", "-json", f"{_JAEGER_MODULE}@{JAEGER}", where=draft))
        version = f"-X {_JAEGER_MODULE}/internal/version.latestVersion={JAEGER}"
        _go("build", "-ldflags", version, "-o", draft / "jaeger", "./cmd/jaeger", where=Path(found["Dir"]))

    return cache.once(f"jaeger-{JAEGER}", build) / "jaeger"


def jaeger_1() -> Path:
    """Return the binary of Jaeger 1, all in one."""
    return _jaeger_1() / "all-in-one"


def h2spec() -> Path:
    """Return the binary of h2spec."""

    def build(draft: Path) -> None:
        module = f"github.com/summerwind/h2spec/cmd/h2spec@{H2SPEC}"
        _go("install", module, where=draft, env={"GOBIN": str(draft)})

    return cache.once(f"h2spec-{H2SPEC}", build) / "h2spec"


def opamp_agent() -> Path:
    """Return the binary of an agent that reports with opamp-go's client."""

    def build(draft: Path) -> None:
        _go("build", "-o", draft / "opamp-agent", ".", where=OPAMP_AGENT)

    sources = b"".join((OPAMP_AGENT / name).read_bytes() for name in ("go.mod", "go.sum", "main.go"))
    return cache.once(f"opamp-agent-{hashlib.sha256(sources).hexdigest()[:8]}", build) / "opamp-agent"


def tracegen() -> Path:
    """Return the binary `tracegen` of Jaeger 1, which sends traces like Jaeger's clients."""
    return _jaeger_1() / "tracegen"


def _jaeger_1() -> Path:
    def build(draft: Path) -> None:
        packages = [f"{_JAEGER_MODULE}/cmd/{name}@{JAEGER_1}" for name in ("all-in-one", "tracegen")]
        _go("install", *packages, where=draft, env={"GOBIN": str(draft)})

    return cache.once(f"jaeger-{JAEGER_1}", build)


def _go(*arguments: str | Path, where: Path, env: dict[str, str] | None = None) -> str:
    return cache.run(["go", *arguments], where=where, env={"CGO_ENABLED": "0", **(env or {})})
