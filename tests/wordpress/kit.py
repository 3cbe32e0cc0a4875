"""WordPress with the plugin, an agent in the tests' own hands, and another host: what tests on a real site need."""

import contextlib
import http.server
import json
import re
import socket
import threading
import time
from dataclasses import dataclass

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.interop.wordpress import PASSWORD, WordPress

PATIENCE = 20.0
INTERNAL, SERVER, CLIENT = 1, 2, 3
SETTINGS = "/wp-admin/options-general.php?page=otelwp"
FRONT = ["bootstrap", "plugins", "init", "query", "template", "shutdown"]
"""The phases of a request for a page."""


@dataclass
class Trace:
    """One message of the plugin, read as the agent reads it."""

    body: bytes
    resource: dict
    spans: list

    @property
    def root(self):
        return self.spans[0]

    @property
    def phases(self):
        return [span.name for span in self.spans if span.parent_span_id == self.root.span_id and span.kind == INTERNAL]

    def named(self, name):
        return [span for span in self.spans if span.name == name]

    def parent(self, span):
        (found,) = [each for each in self.spans if each.span_id == span.parent_span_id]
        return found


def attributes(holder):
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in holder.attributes}


class Listener:
    """The agent's datagram socket, in the test's own hands."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        path.chmod(0o666)
        self.socket.settimeout(0)
        self.url = f"unixgram://{path}"
        self.bodies = []

    def read(self):
        """Return what has come since it was asked last."""
        found = []
        while True:
            try:
                body = self.socket.recv(1 << 20)
            except BlockingIOError:
                break
            request = ExportTraceServiceRequest.FromString(body)
            (resource,) = request.resource_spans
            found.append(Trace(body, attributes(resource.resource), list(resource.scope_spans[0].spans)))
        self.bodies += [trace.body for trace in found]
        return found

    def wait(self):
        end = time.monotonic() + PATIENCE
        while not (found := self.read()):
            assert time.monotonic() < end, "the plugin sent nothing"
            time.sleep(0.02)
        return found


def quoted(text):
    """Write a string as PHP does."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


@dataclass
class Site:
    """WordPress with the plugin, sending to a listener."""

    wordpress: WordPress
    listener: Listener

    def trace(self, path, data=None, *, status=200, **how):
        """Visit a page; return its trace."""
        self.settle()
        answer = self.wordpress.visit(path, data, **how)
        assert answer.status == status, answer
        traces = self.listener.wait()
        assert len(traces) == 1, [trace.root.name for trace in traces]
        return traces[0]

    def nothing(self, path, **how):
        """Visit a page that must not be recorded."""
        self.settle()
        self.wordpress.visit(path, **how)
        self.after_marker()

    def after_marker(self):
        """Visit a page that must be recorded; its trace is the only one that has come."""
        caller = f"00-{'a' * 32}-{'b' * 16}-01"
        self.wordpress.visit("/?case=exit", headers={"traceparent": caller})
        traces = self.listener.wait()
        assert [trace.root.trace_id.hex() for trace in traces] == ["a" * 32]

    def settle(self):
        self.listener.read()

    def set(self, **settings):
        """Change settings as a form would, and leave the rest."""
        self.wordpress.php(
            f"Otelwp\\Settings::save(Otelwp\\Settings::sanitize(json_decode({quoted(json.dumps(settings))}, true)));"
        )
        self.settle()

    @contextlib.contextmanager
    def changed(self, **settings):
        """Change settings for a while."""
        before = self.ask("return Otelwp\\Settings::all();")
        self.set(**settings)
        try:
            yield
        finally:
            self.set(**before)

    def ask(self, code):
        """Run PHP in this WordPress; return what it returns."""
        said = self.wordpress.php(f'echo "\\n" . json_encode((static function () {{ {code} }})());')
        self.settle()
        return json.loads(said.splitlines()[-1])


class Other(http.server.ThreadingHTTPServer):
    """Another host that this WordPress talks to."""

    def __init__(self):
        self.seen = []
        self.answers = {}
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.thread = threading.Thread(target=self.serve_forever)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.thread.join()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answer with what the test has laid out, and 200 otherwise."""

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        self.server.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        status, headers, text = self.server.answers.get(path, (500 if "500" in path else 200, {}, "{}"))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    do_POST = do_GET  # noqa: N815 - the standard library's name

    def log_message(self, *_):
        pass


def form(text, action):
    """Return the fields of a form that the browser would send."""
    (found,) = re.findall(rf'<form action="[^"]*{action}" method="post">(.*?)</form>', text, re.DOTALL)
    inputs = [dict(re.findall(r"""(\w+)=["']([^"']*)""", each)) for each in re.findall("<input [^>]*>", found)]
    return {each["name"]: each["value"] for each in inputs if each["type"] == "hidden" and "[" not in each["name"]}


def assert_private(site):
    """Check that no message of the plugin so far contains anything that must stay private."""
    sent = b"\n".join(site.listener.bodies).decode(errors="replace")
    for private in (
        "jane",
        "secret argument",
        PASSWORD,
        "wordpress_logged_in",
        "127.0.0.1:9/",
        "User-Agent",
        "illness",
    ):
        assert private not in sent
    assert "secret" not in re.sub(r"action=secret|s=secret", "", sent)
    assert str(site.wordpress.folder) not in sent, "paths of the host"


def beat(site):
    return site.ask("$how = Otelwp\\Heartbeat::beat(); return is_wp_error($how) ? $how->get_error_message() : $how;")


@contextlib.contextmanager
def constants(site, **values):
    """Define constants for a while, as wp-config.php does."""
    file = site.wordpress.site / "wp-content/mu-plugins/a-constants.php"
    lines = [
        f"define('{name}', {quoted(value) if isinstance(value, str) else json.dumps(value)});"
        for name, value in values.items()
    ]
    site.wordpress.add_must_use(file.name, "<?php " + " ".join(lines))
    try:
        yield
    finally:
        file.unlink()
