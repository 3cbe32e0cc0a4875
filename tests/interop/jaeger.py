"""Jaeger, keeping spans in memory: version 2, and version 1 that still has all the receivers of old."""

from dataclasses import dataclass
from urllib.parse import urlencode

from peers import golang

from tests.interop.process import Process, answers, get_json, have
from tests.kit.agent import free_port

VERSION_2 = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:{otlp_grpc}'}}, http: {{endpoint: '127.0.0.1:{otlp_http}'}}}}}}
  jaeger: {{protocols: {{grpc: {{endpoint: '127.0.0.1:{grpc}'}}, thrift_http: {{endpoint: '127.0.0.1:{thrift}'}}}}}}
exporters:
  jaeger_storage_exporter: {{trace_storage: memory}}
extensions:
  jaeger_storage: {{backends: {{memory: {{memory: {{max_traces: 100000}}}}}}}}
  jaeger_query:
    storage: {{traces: memory}}
    http: {{endpoint: '127.0.0.1:{query}'}}
    grpc: {{endpoint: '127.0.0.1:{query_grpc}'}}
service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines:
    traces: {{receivers: [otlp, jaeger], exporters: [jaeger_storage_exporter]}}
  telemetry: {{metrics: {{level: none}}}}
"""

FLAGS_1 = {
    "otlp_grpc": "collector.otlp.grpc.host-port",
    "otlp_http": "collector.otlp.http.host-port",
    "grpc": "collector.grpc-server.host-port",
    "thrift": "collector.http-server.host-port",
    "query": "query.http-server.host-port",
    "query_grpc": "query.grpc-server.host-port",
    "admin": "admin.http.host-port",
    "sampling": "http-server.host-port",
    "compact": "processor.jaeger-compact.server-host-port",
    "binary": "processor.jaeger-binary.server-host-port",
    "zipkin_compact": "processor.zipkin-compact.server-host-port",
}
"""What each of version 1's ports is set by: all of them, so that two of them can run at once."""


@dataclass(frozen=True)
class Span:
    """One span as Jaeger's query API shows it; times in µs, the `parent` of a root is empty."""

    trace_id: str
    span_id: str
    parent: str
    name: str
    start: int
    duration: int
    tags: dict
    service: str
    process_tags: dict
    logs: list


class Jaeger(Process):
    """Jaeger 2: `ports` has where it takes what (`otlp_grpc`, `otlp_http`, `grpc`, `thrift`) and `query`."""

    name = "jaeger"

    def __init__(self, folder):
        super().__init__(folder)
        self.binary = self.find()
        self.ports = {name: free_port() for name in FLAGS_1}

    def find(self):
        return have(golang.jaeger)

    def command(self):
        config = self.folder / f"{self.name}.yaml"
        config.write_text(VERSION_2.format(**self.ports))
        return [self.binary, f"--config=file:{config}"]

    def ready(self):
        return answers(self.ports["query"], "/api/services")

    def services(self):
        return get_json(self.ports["query"], "/api/services")["data"] or []

    def traces(self, service, **query):
        """Return the traces with a span of `service`, each a list of `Span`, sorted by start."""
        query = urlencode({"service": service, "limit": 1000, "lookback": "1h", **query})
        return [_spans(trace) for trace in get_json(self.ports["query"], f"/api/traces?{query}")["data"]]

    def trace(self, trace_id):
        """Return the spans of a trace, sorted by start; none if there is no such trace."""
        found = get_json(self.ports["query"], f"/api/traces/{trace_id}")
        return _spans(found["data"][0]) if found and found["data"] else []


class Jaeger1(Jaeger):
    """Jaeger 1.42, all in one."""

    name = "jaeger-1"

    def find(self):
        return have(golang.jaeger_1)

    def command(self):
        flags = [f"--{flag}=127.0.0.1:{self.ports[name]}" for name, flag in FLAGS_1.items()]
        return [self.binary, "--collector.otlp.enabled=true", "--memory.max-traces=100000", *flags]

    def environment(self):
        return {"SPAN_STORAGE_TYPE": "memory", "JAEGER_DISABLED": "true"}


def _spans(trace):
    found = []
    for span in trace["spans"]:
        process = trace["processes"][span["processID"]]
        parents = [each["spanID"] for each in span["references"] if each["refType"] == "CHILD_OF"]
        found.append(
            Span(
                trace_id=span["traceID"],
                span_id=span["spanID"],
                parent=parents[0] if parents else "",
                name=span["operationName"],
                start=span["startTime"],
                duration=span["duration"],
                tags=_tags(span["tags"]),
                service=process["serviceName"],
                process_tags=_tags(process.get("tags") or []),
                logs=[{"at": log["timestamp"], **_tags(log["fields"])} for log in span["logs"] or []],
            )
        )
    return sorted(found, key=lambda span: (span.start, span.span_id))


def _tags(tags):
    return {tag["key"]: tag["value"] for tag in tags}
