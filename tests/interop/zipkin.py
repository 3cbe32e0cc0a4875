"""Zipkin's server, keeping spans in memory."""

from urllib.parse import urlencode

from peers import maven

from tests.interop.process import Process, answers, get_json, have
from tests.kit.agent import free_port


class Zipkin(Process):
    """Zipkin: takes spans at `port` (`/api/v2/spans`), and is asked there."""

    name = "zipkin"

    def __init__(self, folder):
        super().__init__(folder)
        self.jar = have(maven.zipkin)
        self.port = free_port()

    def command(self):
        small = ["-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Djava.io.tmpdir={self.folder}"]
        address = ["--armeria.ports[0].address=127.0.0.1", f"--armeria.ports[0].port={self.port}"]
        return ["java", *small, "-jar", self.jar, *address, "--armeria.ports[0].protocols[0]=http"]

    def environment(self):
        return {"STORAGE_TYPE": "mem", "QUERY_PORT": str(self.port), "SELF_TRACING_ENABLED": "false"}

    def ready(self):
        return answers(self.port, "/health")

    def services(self):
        return get_json(self.port, "/api/v2/services")

    def traces(self, service, **query):
        """Return the traces with a span of `service`, each a list of spans."""
        return get_json(self.port, f"/api/v2/traces?{urlencode({'serviceName': service, 'limit': 1000, **query})}")

    def trace(self, trace_id):
        """Return the spans of a trace, or None."""
        return get_json(self.port, f"/api/v2/trace/{trace_id}")
