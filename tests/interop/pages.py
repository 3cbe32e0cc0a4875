"""What the tests ask a WordPress for, and where what it sends is written down on the way."""

import json
import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path

PLUGINS = Path(__file__).parent / "plugins"
LABORATORY = PLUGINS / "laboratory.php"
FOUNDING_PLUGIN = PLUGINS / "wpotel"
OUR_PLUGIN = Path(__file__).parents[2] / "examples/wordpress/otelwp"


@dataclass(frozen=True)
class Page:
    """A request, and the status that answers it."""

    path: str
    status: int = 200
    logged_in: bool = False
    form: dict | None = field(default=None, hash=False)

    def visit(self, wordpress, headers=None):
        answer = wordpress.visit(self.path, self.form, headers=headers, logged_in=self.logged_in)
        assert answer.status == self.status, answer
        return answer


PAGES = {
    "front": Page("/"),
    "post": Page("/hello-world/"),
    "404": Page("/no-such-page/", 404),
    "search": Page("/?s=hello"),
    "login": Page("/wp-login.php"),
    "login-wrong": Page("/wp-login.php", form={"log": "nobody", "pwd": "wrong", "testcookie": "1"}),
    "rest": Page("/wp-json/wp/v2/posts"),
    "rest-401": Page("/wp-json/wp/v2/users/me", 401),
    "cron": Page("/wp-cron.php?doing_wp_cron"),
    "admin": Page("/wp-admin/index.php", logged_in=True),
    "ajax": Page("/wp-admin/admin-ajax.php", logged_in=True, form={"action": "heartbeat", "_nonce": "x"}),
    "fatal": Page("/?laboratory=fatal", 500),
    "exception": Page("/?laboratory=exception", 500),
    "die": Page("/?laboratory=die", 403),
    "queries": Page("/?laboratory=queries"),
    "outgoing": Page("/?laboratory=outgoing"),
}


def posted(wordpress):
    """Return the bodies that plugins have posted so far through WordPress, each read as JSON."""
    file = wordpress.folder / "posted.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(json.loads(line)["body"]) for line in lines]


class Tee:
    """A unix datagram socket at `path` that keeps a copy of each datagram and hands it on to `to`."""

    def __init__(self, path, to):
        self.datagrams = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(0.1)
        self._to = str(to)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._copy, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._stopped.set()
        self._thread.join()
        self._socket.close()

    def _copy(self):
        while not self._stopped.is_set():
            try:
                datagram = self._socket.recv(1 << 20)
            except TimeoutError:
                continue
            self.datagrams.append(datagram)
            self._socket.sendto(datagram, self._to)
