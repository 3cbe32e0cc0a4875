"""What the end-to-end tests share: backends to send to."""

import contextlib
import gzip
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from otelwp_agent.model import projections
from otelwp_agent.model.signal import Signal
from tests.kit.agent import PATIENCE


@pytest.fixture
def sink():
    """A backend that counts spans, in all and by the header `x-tenant`; while `gate` is cleared it answers nobody."""
    with backend() as server:
        yield server


@contextlib.contextmanager
def backend():
    """Serve a backend as long as the context is open."""
    counting = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            if server.gate.wait(PATIENCE):
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                spans = projections.count(Signal.TRACES, body)
                with counting:
                    server.spans += spans
                    server.tenants[self.headers.get("x-tenant", "")] += spans
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

        def log_message(self, *_):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    server.spans, server.tenants, server.gate = 0, Counter(), threading.Event()
    server.gate.set()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()
