"""A Redis server from Debian, on a port of its own, without persistence."""

import socket

from peers import debian

from tests.interop.process import Process, have
from tests.kit.agent import free_port


class Redis(Process):
    """`redis-server` as it comes, restarted on the same port."""

    name = "redis"

    def __init__(self, folder):
        super().__init__(folder)
        self._machine = have(debian.redis)
        self.port = free_port()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self):
        program = self._machine.program("redis-server")
        return [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]

    def environment(self):
        return self._machine.environment

    def ready(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
