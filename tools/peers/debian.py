"""WordPress with PHP-FPM, MariaDB and nginx; PostgreSQL; Redis; Prometheus; Chromium.

They come from Debian's packages, with the configured `apt-get`.

Nothing is installed: packages that apt would install are unpacked to the cache, and programs that the machine already
has are used. So this needs no root and starts no services. apt's lists and packages are stored in the cache too.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peers import cache

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAMS = (
    *(f"php8.2-{part}" for part in ("cli", "fpm", "mysql", "curl", "xml", "mbstring", "opcache", "apcu")),
    "mariadb-server",
    "nginx-light",
)
"""Packages of programs, which are unpacked with their dependencies."""

SITE = ("wordpress", "wordpress-theme-twentytwentythree", "php-getid3", "libjs-underscore", "libjs-cropper")
"""Packages of WordPress, without their dependencies, which include Apache and a system-wide database."""

POSTGRESQL = "15"
"""Version of PostgreSQL in this release of Debian, which is part of its paths."""

EXTENSIONS = (
    *("ctype", "curl", "dom", "exif", "fileinfo", "iconv", "mbstring", "phar", "posix", "simplexml", "sockets"),
    *("tokenizer", "xml", "xmlreader", "xmlwriter", "mysqlnd", "mysqli", "apcu"),
)
"""PHP extensions in separate files, in the order in which they must be loaded: mysqli needs mysqlnd."""


AXE = "4.14.1"
"""Version of axe-core, from npm."""

FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>/usr/share/fonts</dir>
  <dir prefix="relative">usr/share/fonts</dir>
  <cachedir prefix="xdg">fontconfig</cachedir>
</fontconfig>
"""
"""Configuration of fonts for Chromium: those of the machine, and the unpacked ones."""

SYSTEM_POSTGRESQL = f"/usr/lib/postgresql/{POSTGRESQL}/bin"
"""Folder of PostgreSQL's programs, if the machine has it: Debian does not add it to PATH."""


@dataclass(frozen=True)
class Machine:
    """Programs and libraries: those unpacked below `root`, and those of the system."""

    root: Path

    @property
    def site(self) -> Path:
        """Folder of WordPress's files, without wp-config.php; copy it before use."""
        return self.root / "site"

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables with which the programs find each other and their libraries."""
        folders = ("usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin", f"usr/lib/postgresql/{POSTGRESQL}/bin")
        places = [self.root / place for place in folders]
        places_of_libraries = ("usr/lib/*-linux-gnu", "usr/lib/*-linux-gnu/pulseaudio", "lib/*-linux-gnu")
        libraries = [str(path) for place in places_of_libraries for path in self.root.glob(place)]
        path = os.pathsep.join([*map(str, places), os.environ.get("PATH", ""), "/usr/sbin", "/sbin", SYSTEM_POSTGRESQL])
        found = {"PATH": path, "LANG": "C.UTF-8", "HOME": os.environ.get("HOME", "/")}
        if libraries:
            found["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
        return found

    def program(self, name: str) -> str:
        """Return the path of a program."""
        found = shutil.which(name, path=self.environment["PATH"])
        if found is None:
            message = f"`{name}` is neither installed nor unpacked to {self.root}"
            raise cache.Missing(message)
        return found

    @property
    def php_ini(self) -> str:
        """Text that replaces the system's php.ini: only the needed extensions and settings."""
        # If the machine has PHP without some of its extensions, only these extensions were unpacked.
        folders = [*self.root.glob("usr/lib/php/20*"), *Path("/usr/lib/php").glob("20*")]
        files = {path.stem: path for folder in reversed(folders) for path in folder.glob("*.so")}
        lines = [f"zend_extension = {files['opcache']}"]
        return "\n".join([*lines, *(f"extension = {files[name]}" for name in EXTENSIONS if name in files), ""])


def wordpress() -> Machine:
    """Return WordPress, PHP-FPM, MariaDB and nginx, ready to be started."""

    def build(draft: Path) -> None:
        _unpack(draft, PROGRAMS, SITE)
        if (draft / "usr/bin/php8.2").exists():  # unpacking does not run update-alternatives
            (draft / "usr/bin/php").symlink_to("php8.2")
        for spare in ("usr/share/wordpress/.htaccess", "usr/share/wordpress/wp-config.php"):
            (draft / spare).unlink(missing_ok=True)
        shutil.copytree(draft / "usr/share/wordpress", draft / "site", ignore_dangling_symlinks=True)
        shutil.rmtree(draft / "usr/share/wordpress")

    machine = Machine(cache.once("wordpress-php8.2", build))
    for name in ("php", "php-fpm8.2", "mariadbd", "mariadb-install-db", "nginx"):
        machine.program(name)
    return machine


def postgresql() -> Machine:
    """Return a PostgreSQL server, ready to be started."""
    machine = Machine(
        cache.once(f"postgresql-{POSTGRESQL}", lambda draft: _unpack(draft, (f"postgresql-{POSTGRESQL}",)))
    )
    for name in ("initdb", "postgres", "pg_isready"):
        machine.program(name)
    return machine


def redis() -> Machine:
    """Return a Redis server, ready to be started."""
    machine = Machine(cache.once("redis", lambda draft: _unpack(draft, ("redis-server",))))
    machine.program("redis-server")
    return machine


def prometheus() -> Machine:
    """Return Prometheus with `promtool`, which checks rules and evaluates them in tests."""
    machine = Machine(cache.once("prometheus", lambda draft: _unpack(draft, (), ("prometheus",))))
    machine.program("promtool")
    return machine


def chromium() -> Machine:
    """Return the browser Chromium with a font, ready to be started without a display.

    `package/axe.min.js` below its root is axe-core, which tests pages for accessibility.
    """

    def build(draft: Path) -> None:
        cache.run(["npm", "pack", f"axe-core@{AXE}"], where=draft)
        cache.run(["tar", "xzf", f"axe-core-{AXE}.tgz", "package/axe.min.js"], where=draft)
        _unpack(draft, ("chromium", "fonts-dejavu-core"))
        (draft / "fonts.conf").write_text(FONTS)
        if (draft / "usr/lib/chromium").exists():  # Debian's script finds only an installed Chromium
            (draft / "usr/bin/chromium").unlink(missing_ok=True)
            (draft / "usr/bin/chromium").symlink_to("../lib/chromium/chromium")

    machine = Machine(cache.once(f"chromium-axe-{AXE}", build))
    machine.program("chromium")
    return machine


def _unpack(draft: Path, programs: Sequence[str], single: Sequence[str] = ()) -> None:
    """Unpack to `draft` the packages that apt would install for `programs`, and the packages `single` alone."""
    apt = _Apt(draft / "apt")
    apt.run("update")
    planned = apt.run("install", "--simulate", "--no-install-recommends", *programs).splitlines()
    names = [line.split()[1] for line in planned if line.startswith("Inst ")]
    packages = draft / "packages"
    packages.mkdir()
    if names or single:
        apt.run("download", *names, *single, where=packages)
    for package in sorted(packages.glob("*.deb")):
        cache.run(["dpkg-deb", "-x", package, draft])
    for folder in (packages, draft / "apt"):
        shutil.rmtree(folder)


class _Apt:
    """apt-get with separate folders for lists and packages, so that neither root nor the system's locks are needed."""

    def __init__(self, folder: Path) -> None:
        for part in ("lists/partial", "archives/partial"):
            (folder / part).mkdir(parents=True)
        self._options = [
            f"-oDir::State::lists={folder / 'lists'}",
            f"-oDir::Cache={folder}",
            "-oDebug::NoLocking=1",
            "-oAPT::Sandbox::User=",
            "-oAcquire::Retries=2",
        ]

    def run(self, *arguments: str, where: Path | None = None) -> str:
        """Run apt-get with `arguments` in the folder `where`."""
        return cache.run(["apt-get", "-q", *self._options, *arguments], where=where, env={"LC_ALL": "C"})
