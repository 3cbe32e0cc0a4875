"""A backend that keeps every request, requests for it, and a wire in front of it that keeps every byte."""

import contextlib
import socket
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelwp_agent.transport.compression import decompress
from tests.kit.agent import PATIENCE

TRACE = bytes(range(16))


def a_request(*names, service="shop-of-acme", **attributes):
    """A request with a span of each name, all with these attributes."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = service
    scope = resource.scope_spans.add()
    for number, name in enumerate(names, 1):
        now = time.time_ns()
        span = scope.spans.add(trace_id=TRACE, span_id=number.to_bytes(8, "big"), name=name)
        span.start_time_unix_nano, span.end_time_unix_nano = now - 1_000_000, now
        span.attributes.add(key="http.url").value.string_value = f"https://shop.example/{name}"
        for key, value in attributes.items():
            span.attributes.add(key=key).value.string_value = value
    return request


@contextlib.contextmanager
def span_backend():
    """Serve a backend that keeps every request: `requests` are (headers, body), `spans()` counts them by name."""
    arrived = threading.Condition()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            body = decompress(self.headers.get("content-encoding", ""), body, 2**24)
            with arrived:
                server.requests.append((dict(self.headers), body))
                arrived.notify_all()
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    server.requests = []
    server.port = server.server_address[1]

    def spans():
        found = Counter()
        for _, body in server.requests:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                found.update(span.name for scope in resource.scope_spans for span in scope.spans)
        return found

    def wait_for(number):
        with arrived:
            assert arrived.wait_for(lambda: spans().total() >= number, PATIENCE), spans()

    server.spans, server.wait_for = spans, wait_for
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Tap:
    """A wire to a port of this host, which keeps every byte that passes in either direction."""

    def __init__(self, port):
        self.captured = bytearray()
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open = []

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        for each in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                self._open += [near, far]
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=(source, target), daemon=True).start()

    def _copy(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.captured += data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
