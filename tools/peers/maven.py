"""Peers written in Java, from Maven's repository with the `mvn` command configured on this machine."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from peers import cache

if TYPE_CHECKING:
    from pathlib import Path

ZIPKIN = "3.4.4"
"""Version of Zipkin's server; it needs Java 17."""

JAVA = 17
"""Java version that Zipkin 3 was compiled for."""

_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"


def zipkin() -> Path:
    """Return the executable jar of Zipkin's server."""
    _java()

    def build(draft: Path) -> None:
        artifact = f"io.zipkin:zipkin-server:{ZIPKIN}:jar:exec"
        repository = draft / "repository"
        for goal in (
            [f"{_PLUGIN}:get", f"-Dartifact={artifact}", "-Dtransitive=false"],
            [f"{_PLUGIN}:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={draft}"],
        ):
            cache.run(["mvn", "-B", "-q", f"-Dmaven.repo.local={repository}", *goal], where=draft)
        shutil.rmtree(repository)

    return cache.once(f"zipkin-{ZIPKIN}", build) / f"zipkin-server-{ZIPKIN}-exec.jar"


def _java() -> None:
    cache.run(["java", "-version"])
    found = re.match(r"\S+ (\d+)", cache.run(["java", "--version"]))
    if found is None or int(found[1]) < JAVA:
        message = f"Zipkin needs Java {JAVA}, but the installed version is {found[1] if found else 'unknown'}"
        raise cache.Missing(message)
