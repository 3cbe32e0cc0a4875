"""PostgreSQL, with a database for each store."""

import os
import shutil
import signal
import subprocess
import tempfile
from itertools import count
from pathlib import Path

import pytest
from peers import debian

from tests.interop.process import Process, have
from tests.kit.agent import free_port

NOBODY = 65534
"""User of the server if the tests run as root, because PostgreSQL does not run as root."""


class Postgresql(Process):
    """A server on a unix socket and a port of loopback. Its data are in a folder that its user can read."""

    name = "postgresql"

    def __init__(self):
        self.machine = have(debian.postgresql)
        self.port = free_port()
        self.user = NOBODY if os.geteuid() == 0 else None
        self.data = Path(tempfile.mkdtemp(prefix="otelwp-postgresql-"))
        super().__init__(self.data)
        self._numbers = count(1)
        if self.user is not None:
            os.chown(self.data, NOBODY, NOBODY)
            # Other users cannot read root's cache.
            programs = shutil.copytree(self.machine.root, self.data / "programs", symlinks=True)
            self.machine = debian.Machine(programs)

    def command(self):
        if not (self.data / "db").exists():
            self.run("initdb", "-D", self.data / "db", "-U", "owner", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = ["fsync=off", "listen_addresses=127.0.0.1", f"unix_socket_directories={self.data}"]
        return [
            self.machine.program("postgres"),
            *["-D", str(self.data / "db"), "-p", str(self.port)],
            *[word for option in options for word in ("-c", option)],
        ]

    def environment(self):
        return self.machine.environment

    def ready(self):
        done = self.run("pg_isready", "-h", "127.0.0.1", "-p", str(self.port), check=False)
        return done.returncode == 0

    def database(self):
        """Create an empty database; return its URL."""
        name = f"store{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name}", "postgres")
        return self.url(name)

    def url(self, name):
        return f"postgresql://owner@127.0.0.1:{self.port}/{name}"

    def sql(self, statement, database):
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement)

    def run(self, program, *arguments, check=True):
        done = subprocess.run(
            [self.machine.program(program), *map(str, arguments)],
            env={**os.environ, **self.environment()},
            cwd=self.data,
            user=self.user,
            group=self.user,
            extra_groups=[] if self.user else None,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            pytest.skip(f"{program}: {done.stderr.strip()}")
        return done

    def stop(self):
        """Stop without waiting for clients to disconnect."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        super().stop()

    def remove(self):
        shutil.rmtree(self.data, ignore_errors=True)
