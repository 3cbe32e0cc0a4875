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
    """A request, and the status that answers it; what it is called, by its address alone and by WordPress; an event.

    The event is one that a trace of it has: its name, and a value in it.
    """

    path: str
    status: int = 200
    route: str = "front"
    route_within: str = ""
    event: tuple[str, str] | None = None
    logged_in: bool = False
    form: dict | None = field(default=None, hash=False)

    def visit(self, wordpress, headers=None):
        answer = wordpress.visit(self.path, self.form, headers=headers, logged_in=self.logged_in)
        assert answer.status == self.status, answer
        return answer


PAGES = {
    "front": Page("/"),
    "post": Page("/hello-world/", route="singular", route_within="single"),
    "404": Page("/no-such-page/", 404, "404"),
    "search": Page("/?s=hello", route="search"),
    "login": Page("/wp-login.php", route="login"),
    "login-wrong": Page(
        "/wp-login.php", route="login", form={"log": "nobody", "pwd": "not the one", "testcookie": "1"}
    ),
    "rest": Page("/wp-json/wp/v2/posts", route="rest /wp/v2/posts"),
    "rest-401": Page("/wp-json/wp/v2/users/me", 401, "rest /wp/v2/users/me"),
    "cron": Page("/wp-cron.php?doing_wp_cron", route="cron"),
    "admin": Page("/wp-admin/index.php", route="admin index.php", logged_in=True),
    "ajax": Page(
        "/wp-admin/admin-ajax.php",
        route="ajax",
        route_within="ajax heartbeat",
        logged_in=True,
        form={"action": "heartbeat", "_nonce": "x"},
    ),
    "fatal": Page(
        "/?laboratory=fatal",
        500,
        event=("exception", "Call to undefined function interop_function_that_does_not_exist()"),
    ),
    "exception": Page("/?laboratory=exception", 500, event=("exception", "the laboratory burns")),
    "die": Page("/?laboratory=die", 403, event=("wordpress.wp_die", "no entry")),
    "queries": Page("/?laboratory=queries", event=("wordpress.db.n_plus_one", "SELECT posts")),
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
