"""WordPress and what it runs on, from Debian's packages by `apt-get` as it is configured here.

Nothing is installed: what apt would install is unpacked to the cache, and what the machine already has is used. So this
needs no root, and leaves no service behind. apt's lists and packages stay in the cache, too.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from peers import cache

PROGRAMS = (
    *(f"php8.2-{part}" for part in ("cli", "fpm", "mysql", "curl", "xml", "mbstring", "opcache", "apcu")),
    "mariadb-server",
    "nginx-light",
)
"""Packages of programs, whose dependencies come with them."""

SITE = ("wordpress", "wordpress-theme-twentytwentythree", "php-getid3", "libjs-underscore", "libjs-cropper")
"""Packages of WordPress. Its dependencies are left out: they ask for Apache and a system-wide database."""

EXTENSIONS = (
    *("ctype", "curl", "dom", "exif", "fileinfo", "iconv", "mbstring", "phar", "posix", "simplexml", "sockets"),
    *("tokenizer", "xml", "xmlreader", "xmlwriter", "mysqlnd", "mysqli", "apcu"),
)
"""PHP's extensions that are files of their own, in an order in which they load: mysqli needs mysqlnd."""


@dataclass(frozen=True)
class Machine:
    """Programs and libraries: those unpacked below `root`, and the system's own for the rest."""

    root: Path

    @property
    def site(self) -> Path:
        """WordPress's files, to be copied: without wp-config.php."""
        return self.root / "site"

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which the programs find each other and their libraries."""
        places = [self.root / place for place in ("usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin")]
        libraries = [str(path) for lib in ("usr/lib", "lib") for path in self.root.glob(f"{lib}/*-linux-gnu")]
        path = os.pathsep.join([*map(str, places), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
        found = {"PATH": path, "LANG": "C.UTF-8", "HOME": os.environ.get("HOME", "/")}
        if libraries:
            found["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
        return found

    def program(self, name: str) -> str:
        """Return the path of a program."""
        found = shutil.which(name, path=self.environment["PATH"])
        if found is None:
            message = f"`{name}` is neither installed nor in what was unpacked to {self.root}"
            raise cache.Missing(message)
        return found

    @property
    def php_ini(self) -> str:
        """What stands in place of the system's php.ini: the extensions, and nothing by chance."""
        # A machine may have PHP without some of its extensions: then only those were unpacked.
        folders = [*self.root.glob("usr/lib/php/20*"), *Path("/usr/lib/php").glob("20*")]
        files = {path.stem: path for folder in reversed(folders) for path in folder.glob("*.so")}
        lines = [f"zend_extension = {files['opcache']}"]
        return "\n".join([*lines, *(f"extension = {files[name]}" for name in EXTENSIONS if name in files), ""])


def wordpress() -> Machine:
    """Return WordPress, PHP-FPM, MariaDB and nginx, ready to be started."""

    def build(draft: Path) -> None:
        apt = _Apt(draft / "apt")
        apt.run("update")
        planned = apt.run("install", "--simulate", "--no-install-recommends", *PROGRAMS).splitlines()
        names = [line.split()[1] for line in planned if line.startswith("Inst ")]
        packages = draft / "packages"
        packages.mkdir()
        apt.run("download", *names, *SITE, where=packages)
        for package in sorted(packages.glob("*.deb")):
            cache.run(["dpkg-deb", "-x", package, draft])
        if (draft / "usr/bin/php8.2").exists():  # unpacking runs no update-alternatives
            (draft / "usr/bin/php").symlink_to("php8.2")
        for spare in ("usr/share/wordpress/.htaccess", "usr/share/wordpress/wp-config.php"):
            (draft / spare).unlink(missing_ok=True)
        shutil.copytree(draft / "usr/share/wordpress", draft / "site", ignore_dangling_symlinks=True)
        for folder in (packages, draft / "apt", draft / "usr/share/wordpress"):
            shutil.rmtree(folder)

    machine = Machine(cache.once("wordpress-php8.2", build))
    for name in ("php", "php-fpm8.2", "mariadbd", "mariadb-install-db", "nginx"):
        machine.program(name)
    return machine


class _Apt:
    """apt-get with lists and packages of its own, so that neither root nor its locks are needed."""

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
        """Run one command of apt-get."""
        return cache.run(["apt-get", "-q", *self._options, *arguments], where=where, env={"LC_ALL": "C"})
