"""Steady load on an agent from threads, each request with a credential that may change meanwhile."""

import http.client
import threading
import time
from dataclasses import dataclass

import grpc

from otelwp_agent.cli.generate.sample import Sample
from otelwp_agent.model.signal import Signal

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
PATIENCE = 60.0
"""Seconds to wait for an answer: long enough to see a request that waits for a store."""


@dataclass
class Answer:
    """The answer to one request."""

    began: float
    """`time.monotonic()` when it was sent."""
    seconds: float
    status: int | str
    """HTTP status, name of a gRPC status, or of the exception if there was no answer."""
    credential: object


class Load(threading.Thread):
    """Sends requests of one span at `rate` a second until `stop`, by `send`, a sender as below; keeps the answers."""

    def __init__(self, send, rate, credential=None):
        super().__init__(daemon=True)
        self.answers = []
        self.credential = credential
        self._send, self._rate = send, rate
        self._body = Sample(spans_per_trace=1).make(Signal.TRACES, 1, time.time_ns())
        self._stopping = threading.Event()

    def run(self):
        due = time.monotonic()
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            began = time.monotonic()
            self.ask()
            due = max(due + 1 / self._rate, began)
        self._send.close()

    def ask(self):
        """Send one request now; return its status."""
        credential, began = self.credential, time.monotonic()
        try:
            status = self._send(self._body, credential)
        except (OSError, http.client.HTTPException) as error:
            status = type(error).__name__
        self.answers.append(Answer(began, time.monotonic() - began, status, credential))
        return status

    def stop(self):
        self._stopping.set()
        self.join()


class HttpSender:
    """Sends over one connection, or with `fresh` over one for each request. A credential is a dict of headers."""

    def __init__(self, port, *, tls=None, fresh=False):
        self._fresh = fresh
        if tls is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        else:
            self._connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=tls)

    def __call__(self, body, credential):
        headers = {"Content-Type": "application/x-protobuf", **(credential or {})}
        try:
            self._connection.request("POST", "/v1/traces", body, headers)
            answer = self._connection.getresponse()
            answer.read()
        except BaseException:
            self._connection.close()
            raise
        if self._fresh:
            self._connection.close()
        return answer.status

    def close(self):
        self._connection.close()


class GrpcSender:
    """Sends over one channel, or with `fresh` over one for each request. A credential is a dict of metadata."""

    def __init__(self, port, *, tls=None, fresh=False):
        self._target, self._tls, self._fresh = f"127.0.0.1:{port}", tls, fresh
        self._channel = None

    def __call__(self, body, credential):
        if self._channel is None:
            # Channels of a process share connections otherwise.
            options = [("grpc.use_local_subchannel_pool", 1)]
            if self._tls is None:
                self._channel = grpc.insecure_channel(self._target, options)
            else:
                self._channel = grpc.secure_channel(self._target, self._tls, options)
        try:
            self._channel.unary_unary(EXPORT)(body, timeout=PATIENCE, metadata=tuple((credential or {}).items()))
        except grpc.RpcError as error:
            return error.code().name
        finally:
            if self._fresh:
                self.close()
        return "OK"

    def close(self):
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def accepted(answers):
    """Return those that were accepted."""
    return [answer for answer in answers if answer.status in (200, "OK")]
